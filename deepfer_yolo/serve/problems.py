"""Errors as problem+json (RFC 9457)."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from typing import Any

from deepfer_yolo.errors import DeepferError

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
        return json.dumps({"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.more}).encode()


class TooLarge(DeepferError):  # noqa: N818 (says what is wrong)
    """A file that is beyond a limit: of pixels, seconds or memory."""


def too_many(detail: str, retry_after_s: float = 1.0) -> Problem:
    """The refusal of a client that asks too much at once."""
    return Problem(429, detail, headers={"Retry-After": str(max(1, round(retry_after_s)))})
