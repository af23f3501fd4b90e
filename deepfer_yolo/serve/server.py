"""The server process: HTTP with bounds, binding the port, and running until a signal."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import re
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any
from urllib.parse import quote

import uvicorn  # noqa: TID253 (only `deepfer serve` imports this package)
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: TID253 (this file is about uvicorn)

from deepfer_yolo.errors import ConfigError, DeepferError
from deepfer_yolo.serve.middleware import Guard, host_name, is_loopback
from deepfer_yolo.serve.prefix import is_prefix
from deepfer_yolo.servers import ServerConfig

MAX_HEAD_BYTES = 64_000
GRACE_S = 2.0
"""The application refuses a slow body itself; this much later the connection goes, also where it was refused before."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which cuts off who dribbles headers, sends endless ones or does not read the answer."""

    limits = ServerConfig()

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


MAX_IMAGE_BYTES = 4_000_000
"""The largest image that a camera may send."""
NOISE = frozenset(
    {
        "ASGI callable returned without completing handshake.",
        "Invalid UTF-8 sequence received from client.",
        "Invalid HTTP request received.",
    }
)
"""What uvicorn would log for each connection that is refused: strangers must not fill a disk."""
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
"""What an Authorization header can carry (RFC 6750, section 2.1)."""


def check_exposure(config: ServerConfig) -> None:
    """Raise ConfigError where others could reach the server without a token, or nobody with it."""
    if not config.host:
        raise ConfigError("--host is empty", "use 127.0.0.1, or an address of this machine")
    for name in config.allow_host:
        if host_name(name) != name.lower():
            raise ConfigError(
                f"--allow-host {name!r} is no host name",
                "give the name alone, without scheme, port or path: box.example.org",
            )
    if config.root_path and not is_prefix(config.root_path.rstrip("/")):
        raise ConfigError(f"--root-path {config.root_path!r} is no path", "such as /faces")
    doors = {"--host": [config.host], "--allow-host": config.allow_host}
    open_doors = [f"{flag} {name}" for flag, names in doors.items() for name in names if not is_loopback(name)]
    if config.token is None and open_doors:
        raise ConfigError(
            f"{open_doors[0]} lets other machines in, so a token is needed",
            "export DEEPFER_TOKEN=$(openssl rand -hex 16), or stay on 127.0.0.1",
        )
    if config.token is not None and len(config.token) < 16:
        raise ConfigError("the token has less than 16 characters", "make one with: openssl rand -hex 16")
    if config.token is not None and not TOKEN.fullmatch(config.token):
        raise ConfigError(
            "the token has characters that a header cannot carry",
            "letters, digits and - . _ ~ + / can be used: openssl rand -hex 16",
        )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises DeepferError where the address is taken or not this machine's."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise DeepferError(
            f"unknown host '{host}': {error.strerror}", "use 127.0.0.1, or an address of this machine"
        ) from None
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        hints = {
            errno.EADDRINUSE: "choose another --port, or 0 for a free one",
            errno.EACCES: "ports below 1024 need rights; choose another --port",
        }
        if error.errno not in (*hints, errno.EADDRNOTAVAIL):
            raise
        hint = hints.get(error.errno, "use 127.0.0.1, or an address of this machine")
        raise DeepferError(f"cannot listen on {host} port {port}: {(error.strerror or '').lower()}", hint) from None
    listener.listen(1024)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    host, port = listener.getsockname()[:2]
    any_host = ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)
    shown = "localhost" if host in any_host else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def entry_url(url: str, token: str | None) -> str:
    """What a browser opens once to be let in."""
    return url if token is None else f"{url}?token={quote(token, safe='')}"


class Server(uvicorn.Server):
    """uvicorn, which says when it is ready and is stopped as gently by a second signal as by the first."""

    def __init__(self, settings: uvicorn.Config, stop_timeout_s: float, on_ready: Callable[[], None]) -> None:
        super().__init__(settings)
        self._stop_timeout_s = stop_timeout_s
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, at a signal."""
        # uvicorn would drop everything at a second Ctrl-C, workers and sources included; the end is at most seconds
        # away.
        if not self.should_exit and self.server_state.tasks:
            print(f"stopping; what is under way has {self._stop_timeout_s:g} s", file=sys.stderr, flush=True)
        self.should_exit = True


def run(app: Guard, config: ServerConfig, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is under way. Raises DeepferError where the start fails."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg not in NOISE)
    settings = uvicorn.Config(
        app,
        http=type("ConfiguredProtocol", (BoundedProtocol,), {"limits": config}),
        ws="websockets-sansio",
        ws_max_size=MAX_IMAGE_BYTES,
        ws_max_queue=2,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(config.stop_timeout_s),
    )
    server = Server(settings, config.stop_timeout_s, on_ready)
    # To be stopped is a server's ordinary end, also by a signal before or after uvicorn's own handlers stand.
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not server.started:
        raise DeepferError("the server did not start", "its own message stands above")
