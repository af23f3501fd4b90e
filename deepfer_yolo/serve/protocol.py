"""HTTP connections with time limits for the head, for the body and for reading the answer, and a bound on their number:
uvicorn has none.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: TID253 (this file is about uvicorn)

MAX_HEAD_BYTES = 64_000
GRACE_S = 2.0
"""The application refuses a slow body itself; this much later the connection goes, also where it was refused before."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol; a client that dribbles its headers, sends endless ones or does not read what it asked for is
    cut off.
    """

    head_timeout_s = 10.0
    body_timeout_s = 60.0
    max_connections = 256

    def connection_made(self, transport: Any) -> None:
        """A client connects."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = self.loop.call_later(self.head_timeout_s, self._give_up)
        self._write_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._answering: Any = None
        if len(self.connections) > self.max_connections:
            self._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_timer()
        self._stop_body_timer()
        self._stop_write_timer()
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
        self._write_timer = self.loop.call_later(self.body_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._stop_write_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Bytes arrive; while a head is incomplete they are counted."""
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """A request begins on a connection that may have had others."""
        super().on_message_begin()
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up)

    def on_headers_complete(self) -> None:
        """The head is complete; the body must follow, whether anyone wants it or not."""
        self._stop_timer()
        self._stop_body_timer()
        self._body_timer = self.loop.call_later(self.body_timeout_s + GRACE_S, self._give_up)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete."""
        self._stop_body_timer()
        super().on_message_complete()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()
