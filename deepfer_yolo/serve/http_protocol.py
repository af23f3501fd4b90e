"""HTTP connections with time limits for the head, for the body and for reading the answer, and a bound on their number:
uvicorn has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: TID253 (this file is about uvicorn)

from deepfer_yolo.config import ServeConfig

MAX_HEAD_BYTES = 64_000
GRACE_S = 2.0
"""The application refuses a slow body itself; this much later the connection goes, also where it was refused before."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol; a client that dribbles its headers, sends endless ones or does not read what it asked for is
    cut off.
    """

    limits = ServeConfig()

    def connection_made(self, transport: Any) -> None:
        """A client connects."""
        super().connection_made(transport)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._head_bytes = 0
        self._answering: Any = None
        self._limit("head", self.limits.head_timeout_s)
        if len(self.connections) > self.limits.max_connections:
            self._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        for part in list(self._timers):
            self._lift(part)
        super().connection_lost(exc)
        if self._answering is not None:
            # uvicorn tells the newest request only; of several in one connection an earlier one may be under way.
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._limit("answer", self.limits.body_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._lift("answer")
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Bytes arrive; while a head is incomplete they are counted."""
        if "head" in self._timers:
            self._head_bytes += len(data)
        super().data_received(data)
        if "head" in self._timers and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """A request begins on a connection that may have had others."""
        super().on_message_begin()
        if "head" not in self._timers:
            self._head_bytes = 0
            self._limit("head", self.limits.head_timeout_s)

    def on_headers_complete(self) -> None:
        """The head is complete; the body must follow, whether anyone wants it or not."""
        self._lift("head")
        self._limit("body", self.limits.body_timeout_s + GRACE_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete."""
        self._lift("body")
        super().on_message_complete()

    def _limit(self, part: str, seconds: float, end: Callable[[], None] | None = None) -> None:
        """Begin to count the time that a part may take."""
        self._lift(part)
        self._timers[part] = self.loop.call_later(seconds, end or self._give_up)

    def _lift(self, part: str) -> None:
        if (timer := self._timers.pop(part, None)) is not None:
            timer.cancel()

    def _give_up(self) -> None:
        self._timers.pop("head", None)
        if not self.transport.is_closing():
            self.transport.close()
