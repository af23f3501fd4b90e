"""Binding the port and running until a signal."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from deepfer_yolo.errors import ConfigError, DeepferError
from deepfer_yolo.serve.guard import is_loopback

if TYPE_CHECKING:
    from deepfer_yolo.config import ServeConfig
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.serve.live import LiveBoard

SHUTDOWN_S = 10
MAX_FRAME_BYTES = 4_000_000
"""The largest picture that a camera may send."""


def check_exposure(config: ServeConfig) -> None:
    """Raise ConfigError where others could reach the server without a token."""
    if config.token is None and not is_loopback(config.host):
        raise ConfigError(
            f"--host {config.host} lets other machines in, so a token is needed",
            "DEEPFER_TOKEN=$(openssl rand -hex 16) deepfer serve …, or stay on 127.0.0.1",
        )
    if config.token is not None and len(config.token) < 16:
        raise ConfigError("the token has less than 16 characters", "make one with: openssl rand -hex 16")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises DeepferError where the address is taken or not this machine's."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise DeepferError(f"unknown host '{host}': {error.strerror}", "use 127.0.0.1, or an address of this machine") from None
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        hints = {errno.EADDRINUSE: "choose another --port, or 0 for a free one", errno.EACCES: "ports below 1024 need rights; choose another --port"}
        if error.errno not in (*hints, errno.EADDRNOTAVAIL):
            raise
        hint = hints.get(error.errno, "use 127.0.0.1, or an address of this machine")
        raise DeepferError(f"cannot listen on {host} port {port}: {(error.strerror or '').lower()}", hint) from None
    listener.listen(1024)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    host, port = listener.getsockname()[:2]
    shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104 (compared, not bound)
    return f"http://{shown}:{port}/"


def run(classifier: Classifier, config: ServeConfig, listener: socket.socket, live: LiveBoard | None, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is under way. Raises DeepferError where the start fails."""
    import uvicorn

    from deepfer_yolo.serve.app import create_app
    from deepfer_yolo.serve.protocol import BoundedProtocol

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    bounded = type("Bounded", (BoundedProtocol,), {"head_timeout_s": config.head_timeout, "max_connections": config.max_connections})
    settings = uvicorn.Config(
        create_app(classifier, config, live),
        http=bounded,
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        ws_max_queue=2,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_ready()

    server = Server(settings)
    # uvicorn raises the signals that stopped it again once it is done; to be stopped is a server's ordinary end.
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not server.started:
        raise DeepferError("the server did not start", "its own message stands above")
