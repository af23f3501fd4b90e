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
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import redact
from deepfer_yolo.stream.address import scrub, split_credentials
from deepfer_yolo.stream.source_errors import Reason, SourceReadError

MAX_REDIRECTS = 5
HTTP_REASONS: dict[int, Reason] = {401: "unauthorised", 403: "unauthorised", 404: "not-found", 410: "not-found"}


class HttpOpener:
    """Opens the URLs that one HTTP source leads to; `open` has the form of PyAV's `io_open`.

    The source's own host may be any; what its playlists name must be the same host or one of `config.allow_host`; a
    redirect may not lead to a private address. Raises SourceReadError with a reason.
    """

    def __init__(self, url: str, config: StreamConfig) -> None:
        self._url = url
        self._bare, self._user, self._password = split_credentials(url)
        host = urlsplit(self._bare).hostname or ""
        self._trusted = {name.lower() for name in (host, *config.allow_host)}
        self._timeout_s = config.read_timeout_s

    def open(self, url: str, flags: int, options: Mapping[str, str]) -> HttpFile:
        """A readable file for `url`; seekable where the server takes ranges."""
        bare = self._bare if url == self._url else split_credentials(url)[0]
        parts = urlsplit(bare)
        where = None
        if parts.scheme not in ("http", "https"):
            where = f"a {parts.scheme or 'local'}: address, which is not followed"
        elif (parts.hostname or "").lower() not in self._trusted:
            where = f"another host, {parts.hostname}; --allow-host permits it"
        if where is not None:
            raise SourceReadError(f"{redact(self._url)} leads to {where}", "forbidden")
        return HttpFile(self, bare, int(options.get("offset", 0) or 0), int(options.get("end_offset", 0) or 0))

    def fetch(self, url: str, start: int, end: int) -> http.client.HTTPResponse:
        """The bytes of `url` from `start` to `end`, which may be 0 for all the rest."""
        headers = {"User-Agent": "deepfer", "Accept": "*/*"}
        if start or end:
            headers["Range"] = f"bytes={start}-{end - 1 if end else ''}"
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the scheme is checked)
        try:
            response: http.client.HTTPResponse = self._opener().open(request, timeout=self._timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise self.explain(error) from None
        return response

    def _opener(self) -> urllib.request.OpenerDirector:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if self._user:
            # Credentials belong to the named host alone: a redirect elsewhere gets none.
            parts = urlsplit(self._bare)
            passwords.add_password(None, f"{parts.scheme}://{parts.netloc}", self._user, self._password)
        no_proxy = urllib.request.ProxyHandler({})
        return urllib.request.build_opener(
            no_proxy, _Basic(passwords), _Digest(passwords), _Redirects(), _Connections(self._trusted)
        )

    def explain(self, error: Exception) -> SourceReadError:
        """The failure behind an error of HTTP or of the connection."""
        name = redact(self._url)
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            if 300 <= error.code < 400:
                return SourceReadError(f"{name} redirects in a way that is not followed", "forbidden")
            return SourceReadError(f"{name} answered {error.code}", HTTP_REASONS.get(error.code, "network"))
        if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
            error = error.reason
        if isinstance(error, TimeoutError):
            return SourceReadError(f"{name} did not answer in time", "timeout")
        if isinstance(error, ConnectionRefusedError):
            return SourceReadError(f"{name} refused the connection", "refused")
        if isinstance(error, http.client.IncompleteRead):
            return SourceReadError(f"{name} broke off")
        if isinstance(error, socket.gaierror):
            return SourceReadError(f"{name}: its host name is not known")
        return SourceReadError(f"reading {name} failed: {scrub(str(error) or type(error).__name__, self._url)}")


class HttpFile(io.RawIOBase):
    """A URL, from `first` to `end`, as a file that FFmpeg reads from; a seek asks for the rest anew, from there on."""

    def __init__(self, opener: HttpOpener, url: str, first: int, end: int) -> None:
        self._opener = opener
        self._part = (url, first, end)
        self._at = self._wanted = 0
        self._response = self._fetch()
        length = self._response.headers.get("Content-Length")
        self.size = int(length) if length and length.isdecimal() else None
        takes_ranges = self.size is not None and self._response.headers.get("Accept-Ranges") == "bytes"
        self._is_seekable = takes_ranges and not first and not end

    @property
    def content_type(self) -> str:
        """What the server says that it is."""
        return self._response.headers.get_content_type()

    def _fetch(self) -> http.client.HTTPResponse:
        url, first, end = self._part
        return self._opener.fetch(url, first + self._wanted, end)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, as soon as there are any: live images must not wait. Raises SourceReadError."""
        if self._wanted != self._at:
            self._response.close()
            self._response = self._fetch()
            self._at = self._wanted
        try:
            data = self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise self._opener.explain(error) from None
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


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def __init__(self, trusted: set[str]) -> None:
        super().__init__()
        self._trusted = trusted

    def do_open(self, http_class: Any, req: Any, **arguments: Any) -> Any:
        return super().do_open(_checked(http_class, self._trusted), req, **arguments)


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
