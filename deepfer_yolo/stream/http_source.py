"""The HTTP that streams are read through: what a playlist or a redirect may lead to is checked here.

FFmpeg's own HTTP would follow a playlist or a redirect anywhere, into the network behind the camera too. Python opens
every URL instead, and each connection is checked by the address that it really reached, so that a name which resolves
twice does not slip through.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from deepfer_yolo.errors import redact
from deepfer_yolo.stream.address import scrub
from deepfer_yolo.stream.source_errors import SourceReadError

MAX_REDIRECTS = 5


class Guard:
    """Opens the URLs that one HTTP source leads to; `open` has the form of PyAV's `io_open`.

    The source's own host may be any; what its playlists name must be the same host or one of `allowed_hosts`; a
    redirect may not lead to a private address. Raises SourceReadError with a reason.
    """

    def __init__(self, url: str, allowed_hosts: tuple[str, ...] = (), *, timeout_s: float = 10.0) -> None:
        self._url = url
        self._bare, self._user, self._password = _split_credentials(url)
        self._host = (urlsplit(self._bare).hostname or "").lower()
        self._trusted = {self._host, *(host.lower() for host in allowed_hosts)}
        self._timeout_s = timeout_s

    def open(self, url: str, flags: int, options: Mapping[str, str]) -> HttpFile:
        """A readable file for `url`; seekable where the server takes ranges."""
        bare = self._bare if url == self._url else _split_credentials(url)[0]
        parts = urlsplit(bare)
        if parts.scheme not in ("http", "https"):
            raise SourceReadError(
                f"{redact(self._url)} leads to a {parts.scheme or 'local'}: address, which is not followed", "forbidden"
            )
        if (parts.hostname or "").lower() not in self._trusted:
            raise SourceReadError(
                f"{redact(self._url)} leads to another host, {parts.hostname}; --allow-host permits it", "forbidden"
            )
        first, last = int(options.get("offset", 0) or 0), int(options.get("end_offset", 0) or 0)
        fetch = lambda start: self._fetch(bare, first + start, last)  # noqa: E731
        return HttpFile(fetch, lambda error: _explain(error, self._url), is_seekable=not first and not last)

    def _fetch(self, url: str, start: int, end: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": "deepfer", "Accept": "*/*"}
        if start or end:
            headers["Range"] = f"bytes={start}-{end - 1 if end else ''}"
        try:
            response: http.client.HTTPResponse = self._opener().open(
                urllib.request.Request(url, headers=headers),  # noqa: S310 (the scheme is checked)
                timeout=self._timeout_s,
            )
        except (OSError, http.client.HTTPException) as error:
            raise _explain(error, self._url) from None
        return response

    def _opener(self) -> urllib.request.OpenerDirector:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if self._user:
            # Credentials belong to the named host alone: a redirect elsewhere gets none.
            passwords.add_password(
                None, f"{urlsplit(self._bare).scheme}://{urlsplit(self._bare).netloc}", self._user, self._password
            )
        return urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            _Basic(passwords),
            _Digest(passwords),
            _Redirects(),
            _CheckedHttp(self._trusted),
            _CheckedHttps(self._trusted),
        )


class HttpFile(io.RawIOBase):
    """A URL as a file that FFmpeg reads from; a seek asks for the rest anew, from there on.

    `explain` makes the error of a broken connection.
    """

    def __init__(
        self,
        fetch: Callable[[int], http.client.HTTPResponse],
        explain: Callable[[Exception], SourceReadError],
        *,
        is_seekable: bool,
    ) -> None:
        self._fetch = fetch
        self._explain = explain
        self._response = fetch(0)
        self._at = self._wanted = 0
        length = self._response.headers.get("Content-Length")
        self.size = int(length) if length and length.isdecimal() else None
        self._is_seekable = (
            is_seekable and self.size is not None and self._response.headers.get("Accept-Ranges") == "bytes"
        )

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, as soon as there are any: waiting for a full block would hold a live picture back.

        Raises SourceReadError where the connection breaks.
        """
        if self._wanted != self._at:
            self._response.close()
            self._response = self._fetch(self._wanted)
            self._at = self._wanted
        try:
            data = self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise self._explain(error) from None
        self._at += len(data)
        self._wanted = self._at
        return data

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Whether the server takes ranges."""
        return self._is_seekable

    def seek(self, offset: int, whence: int = 0) -> int:
        """Where the next read begins."""
        if not self._is_seekable or self.size is None:
            raise io.UnsupportedOperation("this server takes no ranges")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._wanted, io.SEEK_END: self.size}[whence]
        self._wanted = min(max(0, base + offset), self.size)
        return self._wanted

    def tell(self) -> int:
        """Where the next read begins."""
        return self._wanted

    def close(self) -> None:
        """Close the connection."""
        self._response.close()
        super().close()


class _Basic(urllib.request.HTTPBasicAuthHandler):
    def http_error_401(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()
        return super().http_error_401(req, fp, code, msg, headers)


class _Digest(urllib.request.HTTPDigestAuthHandler):
    def http_error_401(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()
        return super().http_error_401(req, fp, code, msg, headers)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise SourceReadError(
                f"a redirect leads to a {urlsplit(newurl).scheme}: address, which is not followed", "forbidden"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _CheckedHttp(urllib.request.HTTPHandler):
    def __init__(self, trusted: set[str]) -> None:
        super().__init__()
        self._trusted = trusted

    def http_open(self, req: Any) -> Any:
        return self.do_open(_checked(http.client.HTTPConnection, self._trusted), req)


class _CheckedHttps(urllib.request.HTTPSHandler):
    def __init__(self, trusted: set[str]) -> None:
        super().__init__()
        self._trusted = trusted

    def https_open(self, req: Any) -> Any:
        return self.do_open(_checked(http.client.HTTPSConnection, self._trusted), req)


def _checked(kind: Any, trusted: set[str]) -> Any:
    """A connection class that refuses a private address, unless the user named the host."""

    class Connection(kind):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            peer = ipaddress.ip_address(self.sock.getpeername()[0].partition("%")[0])
            peer = getattr(peer, "ipv4_mapped", None) or peer
            if self.host.lower() not in trusted and not peer.is_global:
                self.close()
                raise SourceReadError(
                    f"a redirect leads to the private address {peer}; --allow-host {self.host} permits it", "forbidden"
                )

    return Connection


def _explain(error: Exception, url: str) -> SourceReadError:
    name = redact(url)
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if 300 <= error.code < 400:
            return SourceReadError(f"{name} redirects in a way that is not followed", "forbidden")
        reason = {401: "unauthorised", 403: "unauthorised", 404: "not-found", 410: "not-found"}.get(
            error.code, "network"
        )
        return SourceReadError(f"{name} answered {error.code}", reason)  # type: ignore[arg-type]
    cause = error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, TimeoutError):
        return SourceReadError(f"{name} did not answer in time", "timeout")
    if isinstance(cause, http.client.IncompleteRead):
        return SourceReadError(f"{name} broke off", "network")
    if isinstance(cause, ConnectionRefusedError):
        return SourceReadError(f"{name} refused the connection", "refused")
    if isinstance(cause, socket.gaierror):
        return SourceReadError(f"{name}: its host name is not known", "network")
    return SourceReadError(f"reading {name} failed: {scrub(str(cause) or type(cause).__name__, url)}", "network")


def _split_credentials(url: str) -> tuple[str, str, str]:
    """The URL without its user and password, and both, percent-decoded."""
    parts = urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), unquote(user), unquote(password)
