"""Records to an MQTT broker, and what Home Assistant reads of them."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from deepfer_yolo.errors import ConfigError, DeepferError, did_you_mean, explained_imports
from deepfer_yolo.stream.address import slug, slugs
from deepfer_yolo.stream.records import Output
from deepfer_yolo.stream.sinks.home_assistant import HomeAssistant
from deepfer_yolo.stream.sinks.network import SPOOL, RemoteSink

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

FIRST_WAIT_S, MAX_WAIT_S = 1, 30
"""Seconds between attempts to reach a broker: doubled from the first to the second."""
OPEN_S = 6.0
"""How long the first outputs wait for the broker's first answer."""
FLUSH_S = 2.0
IDLE_S = 0.2
QUEUE_IS_FULL = 15
"""paho's MQTT_ERR_QUEUE_SIZE, whose module is imported only where it is used."""
REFUSALS = frozenset({"Bad user name or password", "Not authorized", "Client identifier not valid", "Banned"})
"""Answers to a connection that no further attempt changes."""


class MqttSink(RemoteSink):
    """Publishes each record as JSON to `<prefix>/<source>/<kind>` of `mqtt[s]://[user:password@]host[:port]/prefix`.

    Faces have quality of service 0 and are dropped while there is no connection; events and states have 1 and wait.
    An output is delivered when the broker has, or for faces the socket took, all of its messages. With
    `?discovery=PREFIX` Home Assistant finds sensors there.
    """

    def __init__(self, target: str, sources: Sequence[str], labels: tuple[str, ...]) -> None:
        super().__init__("mqtt", target, ("mqtt", "mqtts"))
        with explained_imports():
            import paho.mqtt.client
        parts = urlsplit(self._url)
        self._host, self._port = parts.hostname or "", parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        self._slugs = slugs(sources)
        self._prefix = parts.path.strip("/") or "deepfer"
        discovery = _discovery(parts.query)
        self._home = HomeAssistant(discovery, self._prefix, self._slugs, labels) if discovery else None
        self._client = client = paho.mqtt.client.Client(paho.mqtt.enums.CallbackAPIVersion.VERSION2)
        client.max_queued_messages_set(SPOOL)
        client.reconnect_delay_set(FIRST_WAIT_S, MAX_WAIT_S)
        if parts.scheme == "mqtts":
            client.tls_set()
        if self._user:
            client.username_pw_set(self._user, self._password)
        if self._home is not None:
            client.will_set(*self._home.will)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail, client.on_publish = self._on_connect_fail, self._on_publish
        # Written by the client's thread, read by the sink's.
        self._is_connected = self._is_answered = self._was_connected = self._is_new = self._is_cut = False
        self._refusal: str | None = None
        self._trouble: str | None = None
        self._confirmed: deque[int] = deque()
        # The sink's own.
        self._is_told = False
        self._open: dict[int, tuple[_Delivery, bool]] = {}

    def open(self) -> None:
        """Begin to connect, and wait a moment for the answer; the client tries again by itself, less and less often."""
        self._client.connect_async(self._host, self._port, keepalive=30)
        self._client.loop_start()
        deadline = time.monotonic() + OPEN_S
        while not self._is_answered and time.monotonic() < deadline:
            time.sleep(0.01)
        self.idle()

    def write(self, output: Output) -> None:
        """Publish the records. Raises DeepferError where the broker refuses us."""
        self.idle()
        delivery = _Delivery(len(output.records))
        self.n_waiting += 1
        for record in output.records:
            is_face = record.kind == "face"
            topic = f"{self._prefix}/{self._slugs.get(record.source) or slug(record.source)}/{record.kind}"
            text = json.dumps(record.to_json(self.run), ensure_ascii=False)
            if is_face and not self._is_connected:
                self._settle(delivery, is_lost=True)
                continue
            sent = self._client.publish(topic, text, qos=0 if is_face else 1)
            if sent.rc == QUEUE_IS_FULL or (is_face and sent.rc):
                self._settle(delivery, is_lost=True)
            else:
                self._open[sent.mid] = delivery, is_face
        if self._home is not None:
            self._say(self._home.take(output.records, time.monotonic()))

    def _settle(self, delivery: _Delivery, *, is_lost: bool = False) -> None:
        """One message of an output has come to its end."""
        delivery.n_open -= 1
        delivery.is_lost |= is_lost
        if delivery.n_open == 0:
            self.n_waiting -= 1
            self.n_lost += delivery.is_lost

    def _say(self, messages: Mapping[str, str]) -> None:
        """Publish what Home Assistant reads; what is not published now comes with the next connection."""
        for topic, payload in messages.items():
            if self._is_connected:
                self._client.publish(topic, payload, qos=1, retain=True)

    def idle_s(self) -> float | None:
        """Often enough to notice what the broker said."""
        return IDLE_S

    def idle(self) -> None:
        """Notice what the broker said. Raises DeepferError where it refuses us."""
        while self._confirmed:
            delivery, _ = self._open.pop(self._confirmed.popleft(), (None, False))
            if delivery is not None:
                self._settle(delivery)
        if self._is_cut:
            self._is_cut = False
            for mid in [mid for mid, (_, is_face) in self._open.items() if is_face]:
                self._settle(self._open.pop(mid)[0], is_lost=True)
        if self._refusal is not None:
            raise DeepferError(f"{self.name}: the broker refuses the connection: {self._refusal}")
        self._tell()
        if self._home is not None and self._is_connected:
            if self._is_new:
                self._is_new = False
                self._home.forget()
            self._say(self._home.take((), time.monotonic()))

    def _tell(self) -> None:
        """Report a connection that is lost, once, and that it is back."""
        if self._trouble is not None and not self._is_connected and not self._is_told:
            self._is_told = True
            self.report(f"{self._trouble}; it is tried again, faces are dropped meanwhile")
        elif self._is_connected and self._is_told:
            self._is_told = False
            self.report("the broker is connected")

    def close(self) -> None:
        """Send what waits, for two seconds at most, and disconnect. Raises DeepferError where some is lost."""
        deadline = time.monotonic() + FLUSH_S
        try:
            if self._refusal is None:
                self._flush(deadline)
        finally:
            was_connected = self._is_connected
            self._client.disconnect()
            if was_connected:
                self._client.loop_stop()
        if self._refusal is None and (self.n_waiting or not self._was_connected):
            why = self._trouble or "the broker did not answer"
            raise DeepferError(f"{self.name}: {self.n_waiting + self.n_lost} outputs could not be delivered: {why}")

    def _flush(self, deadline: float) -> None:
        self.idle()
        while self._is_connected and self.n_waiting and time.monotonic() < deadline:
            time.sleep(0.01)
            self.idle()
        if self._home is not None and self._is_connected:
            # An orderly end cancels the last will.
            said = self._client.publish(*self._home.will)
            with suppress(RuntimeError, ValueError):
                said.wait_for_publish(max(0.0, deadline - time.monotonic()))

    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self._is_answered = True
        words = code.getName()
        if words in REFUSALS:
            self._refusal = words
        elif code.is_failure:
            self._trouble = f"the broker answers: {words}"
        else:
            self._is_connected = self._was_connected = self._is_new = True

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if self._is_connected:
            self._trouble = "the connection to the broker is lost"
        self._is_connected, self._is_cut = False, True

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        error = sys.exc_info()[1]  # the client calls this from within `except`
        words = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
        self._trouble, self._is_answered = f"the broker cannot be reached ({words})", True

    def _on_publish(self, client: Any, userdata: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        # No lock here: the client holds its own, which `publish` asks for in the sink's thread.
        self._confirmed.append(mid)


@dataclass(slots=True)
class _Delivery:
    """One output on its way: how many of its messages are still open, and whether one was lost."""

    n_open: int
    is_lost: bool = False


def _discovery(query: str) -> str | None:
    """The prefix in `?discovery=PREFIX`. Raises ConfigError for other questions."""
    asked = dict(parse_qsl(query, keep_blank_values=True))
    prefix = asked.pop("discovery", None)
    if asked:
        word = next(iter(asked))
        raise ConfigError(f"mqtt knows no '{word}'{did_you_mean(word, ['discovery'])}", "?discovery=homeassistant")
    if prefix is not None and not re.fullmatch(r"[\w-]+(/[\w-]+)*", prefix):
        raise ConfigError(f"'{prefix}' is no discovery prefix", "Home Assistant's own is: ?discovery=homeassistant")
    return prefix
