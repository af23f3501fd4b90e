"""Real browsers for the tests of pages."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)


@pytest.fixture(scope="module")  # while it is open, its event loop runs in this thread, which other tests cannot bear
def open_browser() -> Iterator[Callable[..., Any]]:
    """A function that opens headless Chromium with more flags: a browser, or with `profile`, a folder in which it keeps
    what pages leave, a context; `proxy` is what all its requests go through, those to this machine too.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here; Debian: apt-get install -y chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("no playwright here; pip install playwright")
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())

        def start(*flags: str, profile: Path | None = None, proxy: str | None = None) -> Any:
            through = {"server": proxy, "bypass": "<-loopback>"} if proxy else None
            settings: Any = {"executable_path": program, "args": [*FLAGS.split(), *flags], "proxy": through}
            if profile is None:
                opened: Any = playwright.chromium.launch(**settings)
            else:
                opened = playwright.chromium.launch_persistent_context(profile, **settings)
            stack.callback(opened.close)
            return opened

        yield start


@dataclass(frozen=True, slots=True)
class Sent:
    """One request that left the browser."""

    method: str
    url: str
    body_bytes: int


class Recorder(ThreadingHTTPServer):
    """A proxy that writes down what a browser sends, whatever part of it and wherever to; only `site` is reached."""

    daemon_threads = True

    def __init__(self, site: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self.site = site
        self.sent: list[Sent] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Forwarding(BaseHTTPRequestHandler):
    server: Recorder
    protocol_version = "HTTP/1.1"

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        is_chunked = "transfer-encoding" in self.headers
        self.server.sent.append(Sent(self.command, self.path, -1 if is_chunked else len(body)))
        parts = urlsplit(self.path)
        if is_chunked or not self.path.startswith(self.server.site):
            self.close_connection = True
            self.send_error(502)
            return
        connection = HTTPConnection(parts.netloc, timeout=60)
        try:
            connection.request(self.command, self.path[len(f"http://{parts.netloc}") :], body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            self.close_connection = True
            self.send_error(502)
            return
        finally:
            connection.close()
        self.send_response_only(answer.status)
        kept = {"content-length", "connection", "transfer-encoding"}
        for name, value in answer.getheaders():
            if name.lower() not in kept:
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def __getattr__(self, name: str) -> Any:
        """Every method is taken, so that none is missed."""
        if name.startswith("do_"):
            return self._forward
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        """Nothing: the requests are written down."""


@pytest.fixture(scope="module")
def start_recorder() -> Iterator[Callable[[str], Recorder]]:
    """A function that starts a proxy before the site with this address."""
    started: list[Recorder] = []

    def start(site: str) -> Recorder:
        started.append(Recorder(site))
        threading.Thread(target=started[-1].serve_forever, daemon=True).start()
        return started[-1]

    yield start
    for recorder in started:
        recorder.shutdown()
        recorder.server_close()
