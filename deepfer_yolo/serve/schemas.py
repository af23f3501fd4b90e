"""The shapes of answers, for the OpenAPI document."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from deepfer_yolo.errors import DeepferError


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str


class LabelledFace(BaseModel):
    """One face and its apparent expression. `box` is x1, y1, x2, y2 in pixels of the upright picture."""

    box: list[float] = Field(min_length=4, max_length=4)
    score: float
    label: str
    confidence: float
    probs: dict[str, float]


class Picture(BaseModel):
    """One uploaded picture: its faces, or what is wrong with it."""

    name: str
    width: int | None = None
    height: int | None = None
    faces: list[LabelledFace] | None = None
    error: str | None = None


class Predicted(BaseModel):
    """The answer to `POST /v1/predict`."""

    schema_version: int
    model: str
    faces: bool
    pictures: list[Picture]


class TrackedFace(BaseModel):
    """One face in one picture of a video, smoothed over time."""

    track: int
    box: list[float] = Field(min_length=4, max_length=4)
    label: str
    confidence: float
    probs: dict[str, float]
    raw_label: str


class VideoFrame(BaseModel):
    """One picture of a video."""

    time_s: float
    faces: list[TrackedFace]


class VideoEvent(BaseModel):
    """One apparent expression of one track from start to end."""

    track: int
    label: str
    start_s: float
    end_s: float
    mean_confidence: float


class Watched(BaseModel):
    """The answer to `POST /v1/video`."""

    schema_version: int
    model: str
    name: str
    width: int
    height: int
    duration_s: float
    frames: list[VideoFrame]
    events: list[VideoEvent]


class Limits(BaseModel):
    """What one request may hold."""

    body_mb: float
    pictures: int
    megapixels: float
    video_s: float


class ModelFacts(BaseModel):
    """The answer to `GET /v1/model`."""

    schema_version: int
    card: dict[str, Any]
    provider: str
    detector: str
    limits: Limits
    sources: int
    version: str


class LiveSource(BaseModel):
    """One live source of the command line."""

    index: int
    name: str
    state: str
    reason: str | None
    age_ms: float | None
    captured: int
    processed: int
    dropped: int
    reconnects: int
    faces: list[TrackedFace]


class LiveSources(BaseModel):
    """The answer to `GET /v1/sources`."""

    schema_version: int
    sources: list[LiveSource]


class Health(BaseModel):
    """The answer of a health check."""

    status: str


MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 (what RFC 9457 calls it)
    """A request that is refused: an HTTP status, what is wrong, and what else the answer says."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def body(self) -> bytes:
        """The problem document."""
        title = http.HTTPStatus(self.status).phrase
        return json.dumps(
            {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.more}
        ).encode()


class TooLarge(DeepferError):  # noqa: N818 (says what is wrong)
    """A file that is beyond a limit: of pixels, seconds or memory."""


def too_many(detail: str, retry_after_s: float = 1.0) -> Problem:
    """The refusal of a client that asks too much at once."""
    return Problem(429, detail, headers={"Retry-After": str(max(1, round(retry_after_s)))})
