"""A run whose stdout or stderr is closed, and ends by signals however busy its threads are."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STREAM = (sys.executable, "-m", "deepfer_yolo", "stream")
CAMERA = ("testsrc=size=96x64:rate=20", "--policy", "lossless", "--detector", "whole")
CLOSED_AT_START = ("stdin", "stdout", "stderr")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory, write_linear_model: Callable[..., Path]) -> Path:
    weights = np.random.RandomState(4).normal(0, 0.05, (7, 16 * 16 * 3)).astype(np.float32)
    return write_linear_model(tmp_path_factory.mktemp("model") / "random.onnx", weights, np.zeros(7, np.float32))


@pytest.fixture
def camera_url() -> Iterator[str]:
    """The URL of an MJPEG camera."""
    stream = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (240, 320, 3)).astype(np.uint8)).save(stream, "JPEG")
    head = f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(stream.getvalue())}\r\n\r\n".encode()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=x")
            self.end_headers()
            while True:
                self.wfile.write(head + stream.getvalue() + b"\r\n")
                time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/cam"
    server.shutdown()
    server.server_close()


def kinds(path: Path) -> Counter[str]:
    """How many records of each kind a file holds; every line must be whole."""
    return Counter(json.loads(line)["kind"] for line in path.read_text().splitlines())


@pytest.mark.parametrize("closed", CLOSED_AT_START)
def test_what_is_closed_from_the_start_is_not_written_into_a_sink(
    closed: str, model_file: Path, tmp_path: Path
) -> None:
    """The first file that is opened would take the number of the closed one."""
    lines = tmp_path / "o.jsonl"
    arguments = (*CAMERA, "-m", str(model_file), "--max-frames", "40", "--sink", f"jsonl={lines}")
    number = CLOSED_AT_START.index(closed)
    close = f"import os, sys; os.close({number}); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", close, *STREAM, *arguments], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert kinds(lines)["face"] == 40


def test_a_reader_of_stderr_that_is_gone_stops_nothing(model_file: Path, tmp_path: Path) -> None:
    lines = tmp_path / "o.jsonl"
    arguments = ("--max-seconds", "4", "--sink", f"jsonl={lines}")
    program = [*STREAM, *CAMERA, "-m", str(model_file), *arguments]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(60) == 0
    assert kinds(lines)["face"] > 40


def test_a_reader_of_stdout_that_is_gone_costs_its_own_sink_alone(model_file: Path, tmp_path: Path) -> None:
    lines = tmp_path / "o.jsonl"
    sinks = ("--sink", "jsonl=-", "--sink", f"jsonl={lines}")
    program = [*STREAM, *CAMERA, "-m", str(model_file), "--max-frames", "60", *sinks]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        chatter = process.stderr.read().decode()
        assert process.wait(60) == 1
    assert "Exception ignored" not in chatter
    found = kinds(lines)
    assert found["face"] == 60
    told = [json.loads(line) for line in lines.read_text().splitlines() if '"sink"' in line]
    assert [state["source"] for state in told] == ["jsonl=-"]


def test_the_closing_table_may_have_no_reader(model_file: Path, tmp_path: Path) -> None:
    arguments = ("--max-frames", "20", "--sink", f"jsonl={tmp_path / 'o.jsonl'}")
    program = [*STREAM, *CAMERA, "-m", str(model_file), *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, chatter = process.communicate(timeout=60)
    assert process.returncode == 0, chatter
    assert b"ignored" not in chatter


def test_under_nohup_a_hangup_is_ignored(model_file: Path, tmp_path: Path) -> None:
    lines = tmp_path / "o.jsonl"
    program = [*STREAM, *CAMERA, "-m", str(model_file), "--sink", f"jsonl={lines}"]
    program = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *program, "--max-seconds", "3"]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_records(lines, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0


def wait_for_records(lines: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while not (lines.exists() and lines.stat().st_size > 600):
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("is_loaded", [False, True])
def test_sigterm_ends_a_run_with_haar_cleanly_each_time(
    is_loaded: bool, model_file: Path, tmp_path: Path, camera_url: str
) -> None:
    """25 times at rest and 25 times beside busy processes: at a random moment, with two cameras and a network stream,
    three sinks, and the detector that spends longest in native code.
    """
    busy = ["import os\nwhile os.getppid() != 1: pass"] * ((os.cpu_count() or 1) if is_loaded else 0)
    loads = [subprocess.Popen([sys.executable, "-c", code]) for code in busy]
    moments = random.Random(7)
    try:
        for turn in range(25):
            folder = tmp_path / str(turn)
            folder.mkdir()
            terminate_once(folder, model_file, camera_url, moments.uniform(0.0, 1.5))
    finally:
        for load in loads:
            load.kill()
            load.wait()


def terminate_once(folder: Path, model_file: Path, url: str, wait_s: float) -> None:
    import av

    lines, table, video = folder / "o.jsonl", folder / "o.csv", folder / "v.mp4"
    sinks = [f"jsonl={lines}", f"csv={table}", f"video={video}"]
    program = [*STREAM, "testsrc2=size=1280x720:rate=10", "testsrc=size=640x480:rate=20", url, "-m", str(model_file)]
    program += ["--detector", "haar", *(word for sink in sinks for word in ("--sink", sink))]
    with (folder / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        wait_for_records(lines, process)
        time.sleep(wait_s)
        process.send_signal(signal.SIGTERM)
        code = process.wait(90)
    finally:
        process.kill()
        process.wait()
    assert code == 128 + signal.SIGTERM, (folder / "stderr.txt").read_text()
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    ends = {record["source"] for record in records if record.get("state") == "ended"}
    assert len(ends) == 3, "each source has told its end"
    with table.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(records)
    left = sorted(path.name for path in folder.iterdir() if path.name.startswith("v") or "part" in path.name)
    assert all(name.startswith("v-") for name in left), "no video is left unfinished"
    assert left, "there is a video"
    for name in left:
        with av.open(str(folder / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0


def test_output_that_the_terminal_cannot_spell_fails_nothing(painted_csv: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deepfer_yolo", "convert", str(painted_csv), str(tmp_path / "data")]
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environ, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2192" in done.stdout  # the arrow of the table's title


INTERRUPTED = """
import importlib.abc, os, signal, sys
module = sys.argv.pop(1)

class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *rest):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
from deepfer_yolo.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["typer", "deepfer_yolo.cli.convert", "numpy", "cv2"])
def test_an_interrupt_while_the_program_is_imported_ends_without_a_traceback(
    module: str, painted_csv: Path, tmp_path: Path
) -> None:
    words = [module, "convert", str(painted_csv), str(tmp_path / "data"), "--split", "train=0.8,val=0.2", "--reshuffle"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)
    assert list(tmp_path.iterdir()) == []
