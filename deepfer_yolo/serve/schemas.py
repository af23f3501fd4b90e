"""The shapes of answers, which are also the OpenAPI document's, and the error that becomes one."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from deepfer_yolo.records import JsonValue

if TYPE_CHECKING:
    from starlette.responses import Response

SCHEMA = 1
MEDIA_TYPE = "application/problem+json"


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str


class SeenFace(BaseModel):
    """How well a face can be seen, and why its label is uncertain where it is; null for images that are faces."""

    reason: str | None = None
    size_px: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None


class LabelledFace(SeenFace):
    """One face and its apparent expression. `box` is x1, y1, x2, y2 in pixels of the upright image."""

    box: list[float] = Field(min_length=4, max_length=4)
    score: float
    label: str
    confidence: float
    probs: dict[str, float]


class Picture(BaseModel):
    """One uploaded image: its faces, or what is wrong with it."""

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


class TrackedFace(SeenFace):
    """One face in one frame of a video, smoothed over time."""

    track: int
    box: list[float] = Field(min_length=4, max_length=4)
    score: float
    label: str
    confidence: float
    probs: dict[str, float]
    raw_label: str


class VideoFrame(BaseModel):
    """One frame of a video."""

    time_s: float
    faces: list[TrackedFace]


class VideoEvent(BaseModel):
    """One apparent expression of one track from start to end."""

    track: int
    label: str
    start_s: float
    end_s: float
    decided_s: float
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
    """The answer to `GET /v1/model`. Without `has_live`, the extra [live], only images that are faces are labelled."""

    schema_version: int
    card: dict[str, Any]
    provider: str
    detector: str
    has_live: bool
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


class CameraAnswer(BaseModel):
    """The answer to one image of a camera; not in the OpenAPI document, which knows no WebSockets."""

    index: int
    time_s: float
    width: int
    height: int
    faces: list[TrackedFace]
    find_ms: float
    label_ms: float


class Health(BaseModel):
    """The answer of a health check."""

    status: str


class ProblemError(Exception):
    """A request that is refused: an HTTP status, what is wrong, and what else the answer says."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: JsonValue
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def response(self) -> Response:
        """The problem document as an answer."""
        from starlette.responses import Response  # decode workers know the schemas, but not Starlette

        title = http.HTTPStatus(self.status).phrase
        document = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.more}
        return Response(json.dumps(document), self.status, self.headers, MEDIA_TYPE)


def too_many(detail: str, retry_after_s: float = 1.0) -> ProblemError:
    """The refusal of a client that asks too much at once."""
    return ProblemError(429, detail, headers={"Retry-After": str(max(1, round(retry_after_s)))})
