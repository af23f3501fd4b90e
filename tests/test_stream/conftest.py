"""Real parts for the stream's tests: small clips, ffmpeg publishers, HTTP servers, and a sink that remembers."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.records import Crops, Face, Frame, Prediction, Probs, Track
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.address import parse_sources
from deepfer_yolo.stream.pipeline import Pipeline
from deepfer_yolo.stream.records import Output, Result, Summary
from deepfer_yolo.stream.sinks.worker import Sink, SinkWorker


class CollectSink(Sink):
    """Remembers every output; `delay_s` makes it slow."""

    def __init__(
        self,
        wants: Literal["records", "images"] = "images",
        *,
        delay_s: float = 0.0,
        name: str = "collect",
        depth: int = 100_000,
    ) -> None:
        super().__init__(name)
        self.wants, self.depth = wants, depth
        self.delay_s = delay_s
        self.records: list[dict[str, Any]] = []
        self.results: list[Result] = []

    def write(self, output: Output) -> None:
        self.records += [dict(record.to_json(self.run)) for record in output.records]
        self.results += [output.result] if output.result is not None else []
        time.sleep(self.delay_s)

    def states(self, source: str | None = None) -> list[str]:
        """The states that were told, in order."""
        return [r["state"] for r in self.records if r["kind"] == "state" and source in (None, r["source"])]


class SlowModel:
    """A classifier that takes `seconds` longer a call."""

    def __init__(self, model: Classifier, seconds: float) -> None:
        self._model, self._seconds = model, seconds
        self.card = model.card

    def predict(self, crops: Crops) -> Probs:
        time.sleep(self._seconds)
        return self._model.predict(crops)


@dataclass
class Run:
    """A pipeline over real sources that runs in a thread."""

    pipeline: Pipeline
    sink: CollectSink
    thread: threading.Thread | None = None
    summary: Summary | None = None
    error: list[BaseException] = field(default_factory=list)

    def start(self) -> Run:
        def work() -> None:
            try:
                self.summary = self.pipeline.run()
            except BaseException as error:
                self.error.append(error)

        self.thread = threading.Thread(target=work)
        self.thread.start()
        return self

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, (
                f"not in {timeout_s} s; states {self.sink.states()}, {self.pipeline.summary().sources}"
            )
            time.sleep(0.01)

    def finish(self, timeout_s: float = 60.0) -> Summary:
        assert self.thread is not None
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "the run does not end"
        if self.error:
            raise self.error[0]
        assert self.summary is not None
        return self.summary

    def stop(self) -> Summary:
        self.pipeline.stop()
        return self.finish()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory, write_linear_model: Callable[..., Path]) -> Path:
    """A classifier with random weights: its answers differ from image to image, and are sure enough to be a label."""
    random = np.random.RandomState(4)
    weights = random.normal(0, 0.05, (7, 16 * 16 * 3)).astype(np.float32)
    return write_linear_model(tmp_path_factory.mktemp("model") / "random.onnx", weights, np.zeros(7, np.float32))


@pytest.fixture
def model(model_file: Path) -> Classifier:
    return Classifier(model_file)


@pytest.fixture
def run_of(model: Classifier) -> Iterator[Callable[..., Run]]:
    """A function that makes a `Run`; what it started is stopped at the end of the test."""
    runs: list[Run] = []

    def make(
        sources: Sequence[str],
        *,
        slow_s: float = 0.0,
        workers: Sequence[SinkWorker] = (),
        **settings: Any,
    ) -> Run:
        sink = CollectSink()
        used = SlowModel(model, slow_s) if slow_s else model
        config = StreamConfig(**{"detector": "whole", "open_timeout_s": 3.0, "read_timeout_s": 3.0, **settings})
        run = Run(Pipeline(parse_sources(list(sources)), used, [SinkWorker(sink), *workers], config), sink)
        runs.append(run)
        return run

    yield make
    for run in runs:
        if run.thread is not None and run.thread.is_alive():
            run.pipeline.stop()
            run.thread.join(10)


@pytest.fixture
def result_of() -> Callable[..., Result]:
    """A function that makes a frame of noise with one face at (100, 60)-(160, 130), labelled with 70 % confidence."""

    def make(
        index: int,
        *,
        size: tuple[int, int] = (360, 270),
        label: str = "happy",
        epoch: int = 0,
        time_s: float | None = None,
        source: str = "cam",
    ) -> Result:
        image = np.random.RandomState(index).randint(0, 255, (size[1], size[0], 3)).astype(np.uint8)
        probs = np.full(7, 0.05, np.float32)
        probs[EMOTIONS.index(label)] = 0.7
        said = Prediction(probs, EMOTIONS)
        face = Face(np.array([100, 60, 160, 130], np.float32), 0.9)
        frame = Frame(index, index / 25 if time_s is None else time_s, "pts", image, source)
        return Result(frame, epoch, (Track(1, face, said, said, 0.0, label),))

    return make


@pytest.fixture
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


class Publisher:
    """An ffmpeg process that plays a test image to a listening consumer."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            ["ffmpeg", "-nostdin", "-loglevel", "error", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def publish() -> Iterator[Callable[..., Publisher]]:
    """A function that starts ffmpeg with arguments; skips where there is no ffmpeg."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg program to publish with")
    started: list[Publisher] = []

    def start(*arguments: str) -> Publisher:
        publisher = Publisher(list(arguments))
        started.append(publisher)
        return publisher

    yield start
    for publisher in started:
        if publisher.process.poll() is None:
            publisher.go_on()
            publisher.kill()
        if publisher.process.stderr is not None:
            publisher.process.stderr.close()


def is_listening(port: int) -> bool:
    """Whether a process of this machine listens on `port`; a connection would take the only place that there is."""
    tables = [path for path in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if path.exists()]
    ends = [line.split()[1:4:2] for path in tables for line in path.read_text().splitlines()[1:]]
    return not tables or any(end.endswith(f":{port:04X}") and state == "0A" for end, state in ends)


@pytest.fixture
def publish_rtsp(publish: Callable[..., Publisher]) -> Callable[..., Publisher]:
    """A function that plays a moving test image by RTSP to a consumer that listens on `port`; it keeps trying until
    that does.
    """

    def start(port: int, *, size: str = "160x120", rate: int = 25, codec: str = "libx264") -> Publisher:
        deadline = time.monotonic() + 60
        while not is_listening(port) and time.monotonic() < deadline:
            time.sleep(0.02)
        while True:
            source = ["-re", "-f", "lavfi", "-i", f"testsrc=size={size}:rate={rate}"]
            coding = [
                "-c:v",
                codec,
                *(
                    ["-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"]
                    if codec == "libx264"
                    else []
                ),
            ]
            publisher = publish(
                *source, *coding, "-g", "5", "-f", "rtsp", "-rtsp_transport", "tcp", f"rtsp://127.0.0.1:{port}/live"
            )
            time.sleep(0.4)
            if publisher.process.poll() is None:
                return publisher
            assert time.monotonic() < deadline, "nobody listens"

    return start


@pytest.fixture
def serve_http() -> Iterator[Callable[..., str]]:
    """A function that serves a GET handler, `handler(request)`, and returns the base URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(handler: Callable[[BaseHTTPRequestHandler], None], host: str = "127.0.0.1") -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                handler(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer((host, 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://{host}:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def jpeg(value: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A small JPEG with a gradient around `value`."""
    import io

    from PIL import Image

    grey = np.clip(np.arange(size[0])[None, :] + np.full((size[1], 1), value), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def make_jpeg() -> Callable[..., bytes]:
    return jpeg


@pytest.fixture
def collect() -> type[CollectSink]:
    return CollectSink
