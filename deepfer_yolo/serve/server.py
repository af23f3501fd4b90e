"""Binding the port and running until a signal."""

from __future__ import annotations

import errno
import logging
import math
import re
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import quote

import uvicorn  # noqa: TID253 (only `deepfer serve` imports this package)

from deepfer_yolo.errors import ConfigError, DeepferError
from deepfer_yolo.serve.app import create_app
from deepfer_yolo.serve.http_protocol import BoundedProtocol
from deepfer_yolo.serve.middleware import host_name, is_loopback

if TYPE_CHECKING:
    from deepfer_yolo.config import ServeConfig
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.serve.live_sources import LiveBoard

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


def check_exposure(config: ServeConfig) -> None:
    """Raise ConfigError where others could reach the server without a token, or nobody with it."""
    if not config.host:
        raise ConfigError("--host is empty", "use 127.0.0.1, or an address of this machine")
    for name in config.allow_host:
        if host_name(name) != name.lower():
            raise ConfigError(
                f"--allow-host {name!r} is no host name",
                "give the name alone, without scheme, port or path: box.example.org",
            )
    doors = {"--host": [config.host], "--allow-host": config.allow_host}
    open_doors = [f"{flag} {name}" for flag, names in doors.items() for name in names if not is_loopback(name)]
    if config.token is None and open_doors:
        raise ConfigError(
            f"{open_doors[0]} lets other machines in, so a token is needed",
            "DEEPFER_TOKEN=$(openssl rand -hex 16) deepfer serve …, or stay on 127.0.0.1",
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


def run(
    classifier: Classifier,
    config: ServeConfig,
    listener: socket.socket,
    live: LiveBoard | None,
    on_ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is under way. Raises DeepferError where the start fails."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg not in NOISE)
    settings = uvicorn.Config(
        create_app(classifier, config, live),
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
