"""MQTT to a broker made by hand and to a real mosquitto: refused, late, killed; what Home Assistant finds there."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.records import Face, Prediction, Track
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.records import FaceRecord, Output, Result, State
from deepfer_yolo.stream.session import run_stream
from deepfer_yolo.stream.sinks.home_assistant import NO_FACE, HomeAssistant
from deepfer_yolo.stream.sinks.mqtt import MqttSink
from deepfer_yolo.stream.sinks.worker import SinkWorker

STATE = State("cam", 0, 1.0, "pts", "live", None, "why")
CAMERA = "testsrc=size=96x64:rate=20"


class Broker:
    """A mosquitto on a port of its own that knows one user, ann, whose password is p@ss."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port, self._config = port, folder / "mosquitto.conf"
        users = folder / "users"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "ann", "p@ss"], check=True, capture_output=True)
        lines = (f"listener {port} 127.0.0.1", "allow_anonymous false", f"password_file {users}", "user root")
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, user: str = "ann:p%40ss", tail: str = "home") -> str:
        return f"mqtt://{user}@127.0.0.1:{self.port}/{tail}"

    def start(self) -> None:
        program = ["mosquitto", "-c", str(self._config)]
        self._process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def broker(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Broker]:
    if shutil.which("mosquitto") is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("no mosquitto program")
    made = Broker(tmp_path, free_port())
    yield made
    made.kill()


class Listener:
    """Everything that is published under `#`, newest last; retained messages come first."""

    def __init__(self, broker: Broker) -> None:
        import paho.mqtt.client as paho

        self.messages: list[tuple[str, str, bool]] = []
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.username_pw_set("ann", "p@ss")
        self._client.on_connect = lambda *_: self._client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda client, userdata, message: self.messages.append(
            (message.topic, message.payload.decode(), message.retain)
        )
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._ready.wait(60)

    def last(self, topic: str) -> Any:
        """The last payload of a topic, as JSON where it is; None where there was none."""
        payloads = [payload for name, payload, _ in self.messages if name == topic]
        if not payloads:
            return None
        return json.loads(payloads[-1]) if payloads[-1].startswith("{") else payloads[-1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def started(sink: MqttSink, told: list[State] | None = None) -> SinkWorker:
    worker = SinkWorker(sink)
    worker.start((told if told is not None else []).append)
    return worker


def test_mqtt_publishes_to_a_broker(result_of: Callable[..., Result]) -> None:
    """A broker of forty lines: it takes CONNECT and PUBLISH (QoS 0 and 1) of MQTT 3.1.1 and remembers the messages."""
    messages: list[tuple[str, dict[str, Any]]] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb", buffering=0) as wire:
            while head := wire.read(1):
                length, shift = 0, 0
                while True:
                    byte = wire.read(1)[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body = b""
                while len(body) < length:
                    body += wire.read(length - len(body))
                if head[0] >> 4 == 1:
                    wire.write(b"\x20\x02\x00\x00")
                elif head[0] >> 4 == 3:
                    size = int.from_bytes(body[:2], "big")
                    topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
                    if head[0] & 6:
                        wire.write(b"\x40\x02" + rest[:2])
                        rest = rest[2:]
                    messages.append((topic, json.loads(rest)))
                elif head[0] >> 4 == 14:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    sink = MqttSink(
        f"mqtt://me:topsecret@127.0.0.1:{listener.getsockname()[1]}/home/faces", ["rtsp://host/live"], EMOTIONS
    )
    assert "topsecret" not in sink.name
    sink.open()
    state = replace(STATE, source="rtsp://host/live")
    sink.write(Output((state, *result_of(0, source="rtsp://host/live").records())))
    deadline = time.monotonic() + 5
    while len(messages) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    sink.close()
    thread.join(5)
    listener.close()
    assert [topic for topic, _ in messages] == ["home/faces/host-live/state", "home/faces/host-live/face"]
    assert messages[0][1]["state"] == "live"


def test_refused_credentials_fail_the_sink_and_count_what_is_lost(
    broker: Broker, model: Classifier, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    broker.start()
    lines = tmp_path / "o.jsonl"
    sinks = [f"mqtt={broker.url('ann:wr0ng')}", f"jsonl={lines}"]
    summary = run_stream([str(make_clip())], model, sinks, StreamConfig(detector="whole"))
    mqtt, jsonl = summary.sinks
    assert summary.exit_code == 1
    assert mqtt.error == f"{mqtt.sink}: the broker refuses the connection: Not authorized"
    assert "wr0ng" not in mqtt.error
    assert (mqtt.written, mqtt.dropped) == (0, jsonl.written)
    states = [json.loads(line) for line in lines.read_text().splitlines() if '"sink"' in line]
    assert [state["reason"] for state in states] == [mqtt.error]


def test_a_broker_that_is_down_at_the_start_is_tried_again(broker: Broker, result_of: Callable[..., Result]) -> None:
    told: list[State] = []
    worker = started(MqttSink(broker.url(), ["cam"], EMOTIONS), told)
    for index in range(5):
        worker.put(Output((STATE, *result_of(index).records())), may_wait=False)
    wait_until(lambda: bool(told) and worker.summary().written == 0)
    assert "cannot be reached (Connection refused)" in told[0].reason
    broker.start()
    listener = Listener(broker)
    wait_until(lambda: len(listener.messages) >= 5)
    worker.put(Output((STATE, *result_of(9).records())), may_wait=False)
    wait_until(lambda: len(listener.messages) >= 7)
    worker.close()
    listener.close()
    summary = worker.summary()
    assert (summary.written, summary.dropped, summary.error) == (1, 5, None), "states waited, faces were dropped"
    assert [state.reason for state in told][1:] == ["the broker is connected"]
    assert [topic for topic, *_ in listener.messages] == ["home/cam/state"] * 6 + ["home/cam/face"]


def test_a_broker_that_never_comes_is_an_error_with_all_counts(free_port: Callable[[], int]) -> None:
    worker = started(MqttSink(f"mqtt://me:topsecret@127.0.0.1:{free_port()}/x", ["cam"], EMOTIONS))
    for _ in range(7):
        worker.put(Output((STATE,)), may_wait=False)
    worker.close()
    summary = worker.summary()
    assert (summary.written, summary.dropped) == (0, 7)
    assert "7 outputs could not be delivered: the broker cannot be reached" in str(summary.error)
    assert "topsecret" not in str(summary)


def test_a_broker_that_dies_gets_the_states_when_it_is_back(broker: Broker, result_of: Callable[..., Result]) -> None:
    broker.start()
    told: list[State] = []
    worker = started(MqttSink(broker.url(), ["cam"], EMOTIONS), told)
    worker.put(Output((STATE,)), may_wait=False)
    wait_until(lambda: worker.summary().written == 1)
    broker.kill()
    wait_until(lambda: bool(told))
    for index in range(3):
        worker.put(Output((replace(STATE, time_s=float(index)),)), may_wait=False)
        worker.put(Output(result_of(index).records()), may_wait=False)
    broker.start()
    listener = Listener(broker)
    wait_until(lambda: len(listener.messages) >= 3)
    worker.close()
    listener.close()
    assert [json.loads(payload)["time_s"] for _, payload, _ in listener.messages] == [0, 1, 2]
    summary = worker.summary()
    assert (summary.written, summary.dropped, summary.error) == (4, 3, None)


@pytest.mark.parametrize(
    ("tail", "words"), [("home?dicovery=x", "did you mean 'discovery'"), ("home?discovery=a+b/%23", "no discovery")]
)
def test_what_is_asked_of_the_url_is_checked(tail: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MqttSink(f"mqtt://host/{tail}", ["cam"], EMOTIONS)


def face(track: int, label: str, time_s: float, *, side: float = 50.0, confidence: float = 0.8) -> FaceRecord:
    probs = np.full(7, (1 - confidence) / 6, np.float32)
    probs[EMOTIONS.index(label) if label in EMOTIONS else 0] = confidence
    said = Prediction(probs, EMOTIONS)
    box = Face(np.array([0, 0, side, side], np.float32), 0.9)
    return FaceRecord("cam", 0, time_s, "arrival", 0, 1.0, Track(track, box, said, said, 0.0, label))


def test_places_go_to_faces_that_stay_and_states_come_from_the_options() -> None:
    home = HomeAssistant("homeassistant", "home", {"cam": "cam"}, EMOTIONS)
    first = home.take((STATE,), 0.0)
    config = json.loads(first["homeassistant/sensor/deepfer_home_cam/expression/config"])
    assert config["options"] == [*EMOTIONS, "uncertain", NO_FACE]
    assert (config["device_class"], config["availability_mode"]) == ("enum", "all")
    assert json.loads(first["home/cam/expression"])["label"] == NO_FACE
    assert (first["home/availability"], first["home/cam/availability"]) == ("online", "online")

    said: dict[str, str] = {}
    for index in range(30):
        now_s = 1 + index / 10
        said |= home.take((face(1, "happy", now_s), face(2, "sad", now_s, side=90.0)), now_s)
        assert ("homeassistant/sensor/deepfer_home_cam/face_1/config" in said) == (index >= 10)
    assert json.loads(said["home/cam/expression"]) == {"label": "sad", "confidence": 0.8, "track": 2, "faces": 2}
    assert {json.loads(said[f"home/cam/expression/{place}"])["label"] for place in (1, 2)} == {"happy", "sad"}
    options = json.loads(said["homeassistant/sensor/deepfer_home_cam/face_1/config"])["options"]
    assert options == [*EMOTIONS, "uncertain"]

    gone = home.take((face(2, "sad", 6.0, side=90.0),), 6.0)
    assert gone["home/cam/availability/1"] == "offline"
    for index in range(15):
        gone |= home.take((face(7, "fear", 7 + index / 10), face(2, "sad", 7 + index / 10)), 7 + index / 10)
    assert gone["home/cam/availability/1"] == "online"
    assert json.loads(gone["home/cam/expression/1"])["track"] == 7, "a place that is free is taken again"
    assert not any("face_3" in topic for topic in gone)
    assert home.take((replace(STATE, state="lost"),), 9.0)["home/cam/availability"] == "offline"


def test_numbers_alone_change_a_state_once_a_second() -> None:
    home = HomeAssistant("homeassistant", "home", {"cam": "cam"}, EMOTIONS)
    home.take((STATE,), 0.0)
    topics = [
        home.take((face(1, "sad" if index == 25 else "happy", index / 10, confidence=0.5 + index / 100),), index / 10)
        for index in range(30)
    ]
    times = [index for index, messages in enumerate(topics) if "home/cam/expression" in messages]
    assert times == [0, 10, 20, 25, 26]


def test_home_assistant_finds_sensors_on_a_real_broker(broker: Broker) -> None:
    """Configuration and states are retained, a killed run goes offline by its last will, an orderly one by itself."""
    broker.start()
    url = broker.url(tail="home?discovery=homeassistant")
    sink = MqttSink(url, [CAMERA], EMOTIONS)
    worker = started(sink)
    base = "home/testsrc-size-96x64-rate-20"
    worker.put(Output((replace(STATE, source=CAMERA),)), may_wait=False)
    config = "homeassistant/sensor/deepfer_home_testsrc-size-96x64-rate-20/expression/config"

    def has_all(one: Listener) -> bool:
        return all(one.last(topic) is not None for topic in (f"{base}/availability", config, "home/availability"))

    early = Listener(broker)
    wait_until(lambda: has_all(early))
    early.close()
    listener = Listener(broker)
    wait_until(lambda: has_all(listener))
    assert listener.last(config)["state_topic"] == f"{base}/expression"
    assert all(is_retained for topic, _, is_retained in listener.messages)
    assert listener.last("home/availability") == "online"
    sock = sink._client.socket()
    assert sock is not None
    sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: listener.last("home/availability") == "offline")
    wait_until(lambda: listener.last("home/availability") == "online")
    worker.close()
    wait_until(lambda: listener.last("home/availability") == "offline")
    listener.close()
