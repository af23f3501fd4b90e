"""What every request passes before any route sees it: who may come in, how often, and with how much.

Every answer gets its security headers here.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from deepfer_yolo.serve.metrics import Metrics
from deepfer_yolo.serve.prefix import placed, route_of
from deepfer_yolo.serve.schemas import ProblemError, too_many

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from deepfer_yolo.servers import ServerConfig

MAX_CLIENTS = 4096
"""Clients whose rate is remembered; the longest silent one is forgotten first."""


class Rate:
    """A token bucket a client: `per_s` requests a second, `burst` at once. 0 allows everything."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, client: str) -> None:
        """Count one request. Raises ProblemError where the client's bucket is empty."""
        if self._per_s == 0:
            return
        now = self._clock()
        level, since = self._buckets.pop(client, (float(self._burst), now))
        level = min(float(self._burst), level + (now - since) * self._per_s)
        allowed = level >= 1
        self._buckets[client] = (level - 1 if allowed else level, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise too_many(f"more than {self._per_s:g} requests a second", math.ceil((1 - level) / self._per_s))


class Quota:
    """How much of something may be in use at once; `refusal` is what is said where it would be more."""

    def __init__(self, limit: int, refusal: str, retry_after_s: float = 1.0) -> None:
        self._limit = limit
        self._refusal = refusal
        self._retry_after_s = retry_after_s
        self.in_use = 0

    def take(self, n: int = 1) -> None:
        """Count `n`, until they are given back. Raises ProblemError where they are too many."""
        if self.in_use + n > self._limit:
            raise too_many(self._refusal, self._retry_after_s)
        self.in_use += n

    def give_back(self, n: int = 1) -> None:
        """What `take` counted is free again."""
        self.in_use -= n

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Take one for the time of the body."""
        self.take()
        try:
            yield
        finally:
            self.give_back()


def return_memory() -> None:
    """Let glibc give back what was freed, as it keeps what large bodies took; elsewhere do nothing."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return


OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What health checks ask: no token, no rate."""
COOKIE = "deepfer_session"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
NO_STORE = (b"cache-control", b"no-store")
LARGE, RETURN_AFTER_S = 4_000_000, 1.0
"""Bodies of so many bytes are worth asking the allocator for, once the last reference to them is gone."""


class Guard:
    """ASGI middleware: host, origin, token, rate, concurrency, body size and time, security headers, counting."""

    def __init__(
        self, app: ASGIApp, config: ServerConfig, metrics: Metrics, headers: Mapping[str, str] = HEADERS
    ) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._config = config
        self._root_path = config.root_path.rstrip("/")
        self._hosts = allowed_hosts(config.host, config.allow_host)
        self._max_body = int(config.max_body_mb * 1e6)
        self._rate = Rate(config.rate_per_s, config.burst)
        self._uploads = Quota(config.max_uploads, f"{config.max_uploads} uploads are under way already")
        max_bytes = int(config.max_memory_mb * 1e6)
        self._bytes = Quota(max_bytes, "the uploads under way take all the memory that they may", 2.0)
        self._metrics = metrics
        metrics.measure("deepfer_uploads_in_flight", "Uploads under way.", lambda: self._uploads.in_use)
        words = "Bytes that uploads under way hold."
        metrics.measure("deepfer_upload_bytes_in_flight", words, lambda: self._bytes.in_use)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan."""
        if scope["type"] == "http":
            await self._http(placed(scope, self._root_path), receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(placed(scope, self._root_path), receive, send)
        else:
            await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except ProblemError as problem:
            if "websocket.http.response" in scope.get("extensions", {}):
                answer = problem.response()
                answer.raw_headers += self._headers
                await answer(scope, receive, send)
            else:  # the server cannot give a status of ours; it answers 403
                await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        status = 0
        is_head = scope["method"] == "HEAD"
        if is_head:  # every GET answers a HEAD too
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers]
                if not any(name == NO_STORE[0] for name, _ in message["headers"]):
                    message["headers"].append(NO_STORE)
                if status >= 400 and body.is_endless:
                    message["headers"].append((b"connection", b"close"))
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        headers = Headers(scope=scope)
        body = _Body(receive, self._bytes, self._max_body, self._config.body_timeout_s, "transfer-encoding" in headers)
        answer: ASGIApp = self._app
        try:
            cookie = self._check(scope)
            _check_length(headers, self._max_body)
            if cookie:
                answer = _enter(cookie, scope.get("root_path", ""))
            elif not route_of(scope):  # relative links need the slash
                answer = Response(status_code=307, headers={"location": f"{scope['path']}/"})
            if scope["method"] == "POST":
                with self._uploads.hold():
                    await answer(scope, body.receive, send_with_headers)
            else:
                await answer(scope, receive, send_with_headers)
        except ProblemError as problem:
            await problem.response()(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The server stops and has waited long enough; only it cancels requests.
            if status == 0:
                stopped = ProblemError(503, "the server stops", headers={"Connection": "close"})
                await stopped.response()(scope, receive, send_with_headers)
        finally:
            if body.release() > LARGE:
                asyncio.get_running_loop().call_later(RETURN_AFTER_S, return_memory)
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.observe_request(route, status, time.perf_counter() - began)

    def _check(self, scope: Scope) -> str | None:
        """Raise ProblemError for who may not come in; a cookie's value for who brought the token in the address."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host_name(host) not in self._hosts and not (self._config.token and _is_ip(host_name(host))):
            raise ProblemError(421, "this server is not called that; name the host with --allow-host")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise ProblemError(403, "requests of other sites are refused")
        if route_of(scope) in OPEN_PATHS:
            return None
        client = scope["client"][0] if scope.get("client") else "?"
        self._rate.spend(client)
        return self._check_token(scope, headers)

    def _check_token(self, scope: Scope, headers: Headers) -> str | None:
        token = self._config.token
        if token is None:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(given.strip(), token):
            return None
        if any(_same(value, session_of(token)) for value in _cookies(headers)):
            return None
        if scope["type"] == "http" and (scope["method"], route_of(scope)) == ("GET", "/"):
            # A plus in a query means a space, which no token holds.
            asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
            if any(_same(value.replace(" ", "+"), token) for value in asked):
                return session_of(token)
        raise ProblemError(
            401,
            "a token is needed: Authorization: Bearer …, or open /?token=… in a browser",
            headers={"WWW-Authenticate": "Bearer"},
        )


class _Body:
    """A request's body, counted while it arrives."""

    def __init__(self, receive: Receive, quota: Quota, max_size: int, timeout_s: float, is_chunked: bool) -> None:
        self._receive = receive
        self._quota = quota
        self._max_size = max_size
        self._timeout_s = timeout_s
        self._is_chunked = is_chunked
        self._size = 0
        self._deadline: float | None = None
        self._is_complete = False

    async def receive(self) -> Message:
        """The next piece. Raises ProblemError past the limit of size or time."""
        if self._is_complete:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise ProblemError(
                408, f"the body took longer than {self._timeout_s:g} s", headers={"Connection": "close"}
            ) from None
        n = len(message.get("body", b""))
        if self._size + n > self._max_size:
            raise too_large(self._max_size)
        self._quota.take(n)
        self._size += n
        self._is_complete = not message.get("more_body", False)
        return message

    @property
    def is_endless(self) -> bool:
        """Whether a body without a length is still under way; unlike one that says where it ends, it is not awaited."""
        return self._is_chunked and not self._is_complete

    def release(self) -> int:
        """Give the memory back; return how many bytes it was."""
        self._quota.give_back(self._size)
        return self._size


def _check_length(headers: Headers, limit: int) -> None:
    """Refuse a body that says itself that it is too large, before any of it is read."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limit:
        raise too_large(limit)


def too_large(limit: int) -> ProblemError:
    """The refusal of a body; the connection closes, since the rest of it may still be on its way."""
    return ProblemError(413, f"the body is larger than {limit / 1e6:g} MB", headers={"Connection": "close"})


def host_name(host: str) -> str:
    """The name in a Host header, lower case, without port and brackets."""
    return "" if set(host) & set("/\\?#@ \t") else urlsplit(f"//{host}").hostname or ""


def allowed_hosts(bound: str, extra: Iterable[str]) -> frozenset[str]:
    """The names under which the server may be called."""
    return frozenset({"localhost", "127.0.0.1", "::1", bound.lower(), *(name.lower() for name in extra)})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def session_of(token: str) -> str:
    """What a browser's cookie holds instead of the token itself."""
    return hmac.new(token.encode(), b"deepfer session", hashlib.sha256).hexdigest()


def _enter(session: str, prefix: str) -> ASGIApp:
    """The answer that gives a browser its cookie and leads it to the page without the token in the address."""
    # Lax, not Strict: a browser that came by a link in a mail or chat would not send a strict cookie to the page it is
    # led to. Other sites' requests are refused by their Origin.
    # One name a token: cookies know no ports, and several servers of one machine would overwrite each other's.
    cookie = f"{COOKIE}_{session[:8]}={session}; Path={prefix or '/'}; HttpOnly; SameSite=Lax"
    return Response(status_code=303, headers={"location": f"{prefix}/", "set-cookie": cookie})


def _cookies(headers: Headers) -> list[str]:
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return [value for name, _, value in pairs if name.startswith(COOKIE)]


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
