"""Records over the network: a webhook with signed requests, and MQTT."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from deepfer_yolo.errors import ConfigError, DeepferError, explained_imports, redact
from deepfer_yolo.stream.address import require_host, slug, slugs, split_credentials
from deepfer_yolo.stream.records import Output
from deepfer_yolo.stream.sinks.worker import Sink

SECRET_VARIABLE = "DEEPFER_WEBHOOK_SECRET"  # noqa: S105 (a variable's name)
SIGNATURE_HEADER = "X-Deepfer-Signature"
WEBHOOK_KINDS = frozenset({"event", "state"})
"""Faces come many times a second; a webhook gets what a person would want to be told."""
SPOOL = 1000
ATTEMPTS = 5
FIRST_WAIT_S = 0.2
TIMEOUT_S = 5.0


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
    """POSTs events and states as JSON, one request an output, with retries; a bounded spool keeps the newest.

    With the environment variable DEEPFER_WEBHOOK_SECRET each request is signed: `X-Deepfer-Signature:
    t=<unix>,v1=<hex>`, the HMAC-SHA256 of `<unix>.<body>`. Redirects are not followed.
    """

    def __init__(self, target: str) -> None:
        super().__init__("webhook", target, ("http", "https"))
        self._secret = os.environ.get(SECRET_VARIABLE, "").encode()
        self._headers = {"Content-Type": "application/json", "User-Agent": "deepfer"}
        if self._user:
            pair = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        self._opener = urllib.request.build_opener(_NoRedirects(), urllib.request.ProxyHandler({}))
        self._spool: deque[bytes] = deque(maxlen=SPOOL)

    def write(self, output: Output) -> None:
        """Send what waits, then these records; what cannot be sent now stays. Raises DeepferError for a refusal."""
        records = [record.to_json() for record in output.records if record.kind in WEBHOOK_KINDS]
        if records:
            self._spool.append(json.dumps({"records": records}, ensure_ascii=False).encode())
        self._drain(ATTEMPTS if len(self._spool) == 1 else 1)

    def close(self) -> None:
        """Try once more to send what waits. Raises DeepferError where something is lost."""
        self._drain(ATTEMPTS)
        if self._spool:
            raise DeepferError(f"{self.name}: {len(self._spool)} requests could not be delivered")

    def _drain(self, attempts: int) -> None:
        wait_s = FIRST_WAIT_S
        while self._spool and attempts > 0:
            if self._post(self._spool[0]):
                self._spool.popleft()
                continue
            attempts -= 1
            if attempts > 0:
                time.sleep(wait_s)
                wait_s *= 2

    def _post(self, body: bytes) -> bool:
        """Whether it was delivered. Raises DeepferError where trying again is useless."""
        headers = dict(self._headers)
        if self._secret:
            stamp = str(int(time.time()))
            digest = hmac.new(self._secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers[SIGNATURE_HEADER] = f"t={stamp},v1={digest}"
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 (the scheme was checked)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (408, 425, 429) or error.code >= 500:
                return False
            raise DeepferError(f"{self.name} answered {error.code}") from None
        except OSError:
            return False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class MqttSink(RemoteSink):
    """Publishes each record as JSON to `<prefix>/<source>/<kind>` of `mqtt[s]://[user:password@]host[:port]/prefix`."""

    def __init__(self, target: str, sources: Sequence[str]) -> None:
        super().__init__("mqtt", target, ("mqtt", "mqtts"))
        with explained_imports():
            import paho.mqtt.client
        parts = urlsplit(self._url)
        self._host, self._port = parts.hostname or "", parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        self._slugs = slugs(sources)
        self._prefix = parts.path.strip("/") or "deepfer"
        self._client = paho.mqtt.client.Client(paho.mqtt.enums.CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(SPOOL)
        if parts.scheme == "mqtts":
            self._client.tls_set()
        if self._user:
            self._client.username_pw_set(self._user, self._password)

    def open(self) -> None:
        """Connect; the client takes up lost connections again. Raises DeepferError where there is no broker."""
        try:
            self._client.connect(self._host, self._port, keepalive=30)
        except OSError as error:
            raise DeepferError(f"{self.name} cannot be reached: {error.strerror or type(error).__name__}") from None
        self._client.loop_start()

    def write(self, output: Output) -> None:
        """Publish the records at quality of service 0 (faces) or 1 (events and states)."""
        for record in output.records:
            topic = f"{self._prefix}/{self._slugs.get(record.source) or slug(record.source)}/{record.kind}"
            text = json.dumps(record.to_json(), ensure_ascii=False)
            self._client.publish(topic, text, qos=0 if record.kind == "face" else 1)

    def close(self) -> None:
        """Send what waits, for two seconds at most, and disconnect."""
        deadline = time.monotonic() + 2.0
        while self._client.want_write() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._client.disconnect()
        self._client.loop_stop()
