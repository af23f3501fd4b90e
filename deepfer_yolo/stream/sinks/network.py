"""Records over the network: what sinks behind a URL share, and the webhook with its signed requests."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import http.client
import json
import math
import os
import random
import time
import urllib.error
import urllib.request
from collections import deque
from typing import Any
from urllib.parse import urlsplit

from deepfer_yolo.errors import ConfigError, DeepferError, redact
from deepfer_yolo.stream.address import require_host, split_credentials
from deepfer_yolo.stream.records import Output
from deepfer_yolo.stream.sinks.worker import Sink

SECRET_VARIABLE = "DEEPFER_WEBHOOK_SECRET"  # noqa: S105 (a variable's name)
SIGNATURE_HEADER = "X-Deepfer-Signature"
WEBHOOK_KINDS = frozenset({"event", "state"})
"""Faces come many times a second; a webhook gets what a person would want to be told."""
SPOOL = 1000
"""How many outputs wait for a server that is away; the oldest go first."""
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 60.0
MAX_RETRY_AFTER_S = 3600.0
TIMEOUT_S = 5.0
LAST_TRIES_S = 4.0
"""How long the end of a run goes on trying."""


class RemoteSink(Sink):
    """A sink behind a URL, whose credentials its name does not show."""

    depth = SPOOL
    is_remote = True

    def __init__(self, kind: str, target: str, schemes: tuple[str, ...]) -> None:
        super().__init__(f"{kind}={redact(target)}")
        require_host(target)
        if urlsplit(target).scheme not in schemes:
            raise ConfigError(f"{kind} needs a URL such as {schemes[-1]}://host/path, not '{redact(target)}'")
        self._url, self._user, self._password = split_credentials(target)


class WebhookSink(RemoteSink):
    """POSTs events and states as JSON, one request an output; what a server does not take waits and is tried again.

    With the environment variable DEEPFER_WEBHOOK_SECRET each request is signed: `X-Deepfer-Signature:
    t=<unix>,v1=<hex>`, the HMAC-SHA256 of `<unix>.<body>`. Redirects are not followed.
    """

    kinds = WEBHOOK_KINDS

    def __init__(self, target: str) -> None:
        super().__init__("webhook", target, ("http", "https"))
        self._secret = os.environ.get(SECRET_VARIABLE, "").encode()
        self._headers = {"Content-Type": "application/json", "User-Agent": "deepfer"}
        if self._user:
            pair = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        self._opener = urllib.request.build_opener(_NoRedirects(), urllib.request.ProxyHandler({}))
        self._spool: deque[bytes] = deque()
        self._failures, self._next_at, self._is_told_to_wait = 0, 0.0, False

    def write(self, output: Output) -> None:
        """Put the records behind what waits, and send what may go. Raises DeepferError for a refusal."""
        records = [record.to_json(self.run) for record in output.records]
        if len(self._spool) == SPOOL:
            self._spool.popleft()
            self.n_lost += 1
        self._spool.append(json.dumps({"records": records}, ensure_ascii=False).encode())
        try:
            self.idle()
        except DeepferError:
            self._spool.pop()  # an output whose write fails has not been taken
            raise
        finally:
            self.n_waiting = len(self._spool)

    def idle_s(self) -> float | None:
        """Until the next attempt, where something waits."""
        return max(0.0, self._next_at - time.monotonic()) if self._spool else None

    def idle(self) -> None:
        """Send what waits, unless it is too early for that."""
        while self._spool and time.monotonic() >= self._next_at:
            answered, asked_s = self._post(self._spool[0])
            if not answered:
                self._back_off(asked_s)
                return
            self._spool.popleft()
            self.n_waiting = len(self._spool)
            if self._failures:
                self.report("requests are delivered again")
            self._failures = 0

    def close(self) -> None:
        """Try for a few seconds more, unless the server named a later time. Raises DeepferError where some is lost."""
        deadline = time.monotonic() + LAST_TRIES_S
        if not self._is_told_to_wait:
            self._failures, self._next_at = min(self._failures, 1), 0.0
        while self._spool and self._next_at < deadline:
            time.sleep(max(0.0, self._next_at - time.monotonic()))
            self.idle()
        if self._spool:
            raise DeepferError(f"{self.name}: {len(self._spool)} requests could not be delivered")

    def _back_off(self, asked_s: float | None) -> None:
        """Wait twice as long as the last time, or as long as the server asks."""
        wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures, 20)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._is_told_to_wait = asked_s is not None
        self._next_at = time.monotonic() + max(wait_s, min(asked_s or 0.0, MAX_RETRY_AFTER_S))
        self._failures += 1
        if self._failures == 1:
            self.report("a request was not taken; it is tried again, less and less often")

    def _post(self, body: bytes) -> tuple[bool, float | None]:
        """Whether it was delivered, and how long the server asks to wait. Raises DeepferError for a final refusal."""
        headers = dict(self._headers)
        if self._secret:
            stamp = str(int(time.time()))
            digest = hmac.new(self._secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers[SIGNATURE_HEADER] = f"t={stamp},v1={digest}"
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 (the scheme was checked)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S):
                return True, None
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (408, 425, 429) or error.code >= 500:
                return False, retry_after_s(error.headers.get("Retry-After"), time.time())
            self._next_at, self._is_told_to_wait = math.inf, True
            raise DeepferError(f"{self.name} answered {error.code}") from None
        except (OSError, http.client.HTTPException):
            return False, None


def retry_after_s(text: str | None, now_s: float) -> float | None:
    """The seconds that a `Retry-After` header asks for, as a number or a date (RFC 9110, 10.2.3); None for neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except ValueError:
        return None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None
