"""`deepfer stream` as a program: outputs, exit codes, signals, and what must never be seen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.cli.app import app
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.painted import paint_frames

COMMAND = [sys.executable, "-m", "deepfer_yolo", "stream"]
CAMERA = "testsrc=size=96x64:rate=20"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory, write_linear_model: Callable[..., Path]) -> Path:
    weights = np.random.RandomState(4).normal(0, 0.05, (7, 16 * 16 * 3)).astype(np.float32)
    return write_linear_model(tmp_path_factory.mktemp("model") / "random.onnx", weights, np.zeros(7, np.float32))


@pytest.fixture(scope="module")
def painted_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import av

    from deepfer_yolo.stream.pixels import to_frame

    path = tmp_path_factory.mktemp("clip") / "painted.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for frame in paint_frames(3, ("happy", "sad"), 10, 96):
            container.mux(stream.encode(to_frame(frame)))
        container.mux(stream.encode(None))
    return path


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )


def test_no_source_at_all_is_wrong_usage() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "--sources" in done.stderr


def test_a_painted_video_from_end_to_end_without_torch(painted_clip: Path, model_file: Path, tmp_path: Path) -> None:
    lines, video = tmp_path / "out.jsonl", tmp_path / "annotated.mp4"
    code = "import sys; from deepfer_yolo.cli.app import app; code = app(sys.argv[1:], standalone_mode=False)\n"
    code += "assert not {'torch', 'torchvision', 'ultralytics'} & set(sys.modules); sys.exit(code)"
    arguments = [
        "stream",
        str(painted_clip),
        "-m",
        str(model_file),
        "--detector",
        "whole",
        "--sink",
        f"jsonl={lines}",
        "--sink",
        f"video={video}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sum(record["kind"] == "face" for record in records) == 20
    assert video.stat().st_size > 1000
    assert "20 frames and 20 faces" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_lines_go_to_stdout_and_chatter_to_stderr(painted_clip: Path, model_file: Path, tmp_path: Path) -> None:
    done = run(
        str(painted_clip),
        "-m",
        str(model_file),
        "--stats-json",
        str(tmp_path / "stats.jsonl"),
        env={"DEEPFER_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["kind"] for line in done.stdout.splitlines()} >= {"state"}
    assert "captured" in done.stderr
    last = json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])
    assert last["final"] is True
    assert last["sources"][0]["captured"] == last["sources"][0]["processed"] == 20


def test_the_summary_as_json(painted_clip: Path, model_file: Path, tmp_path: Path) -> None:
    done = run(
        str(painted_clip), "-m", str(model_file), "--detector", "whole", "--sink", f"csv={tmp_path / 'o.csv'}", "--json"
    )
    summary = json.loads(done.stdout)
    assert summary["sources"][0]["state"] == "ended"
    assert summary["stages"]["classify"]["p50_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.mp4",), "nowhere.mp4"),
        (("{clip}", "--detector", "retina"), "retina"),
        (("{clip}", "--sink", "jsonl"), "KIND=TARGET"),
        (("{clip}", "--sink", "kafka=x"), "kafka"),
        (("{clip}", "--policy", "newest"), "newest"),
        (("{clip}", "--face-model", "none.onnx"), "none.onnx"),
        (("{clip}", "--detector", "whole", "--input-option", "tcp"), "KEY=VALUE"),
        (("{clip}", "--sink", "prometheus=here"), "here"),
        (("{clip}", "--sink", "video=out.xyz"), "out.xyz"),
        (("{clip}", "--sink", "csv=-"), "standard output"),
        (("{clip}", "--sink", "jsonl=same.out", "--sink", "csv=./same.out"), "same file"),
        (("{clip}", "--sink", "video={clip}", "--overwrite"), "a source of this run"),
        (("{clip}", "--stats-json", "{clip}", "--overwrite"), "a source of this run"),
        (("{clip}", "--stats-json", "{clip}"), "exists"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    arguments: tuple[str, ...], words: str, painted_clip: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = painted_clip.read_bytes()
    with pytest.raises(DeepferError) as caught:
        app(
            ["stream", *(argument.format(clip=painted_clip) for argument in arguments), "-m", str(model_file)],
            standalone_mode=False,
        )
    assert words in caught.value.message
    assert painted_clip.read_bytes() == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_signals_end_the_run_with_whole_files(
    number: signal.Signals, code: int, model_file: Path, tmp_path: Path, stopwatch: Callable[..., Any]
) -> None:
    video, lines = tmp_path / "v.mp4", tmp_path / "o.jsonl"
    command = [
        *COMMAND,
        CAMERA,
        "-m",
        str(model_file),
        "--detector",
        "whole",
        "--sink",
        f"video={video}",
        "--sink",
        f"jsonl={lines}",
    ]
    # Whoever runs the tests with nohup ignores SIGHUP, and children inherit that.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    deadline = time.monotonic() + 60
    while not (lines.exists() and lines.read_text().count("\n") > 20):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    watch = stopwatch()
    _, chatter = process.communicate(timeout=20)
    assert watch() < 5
    assert process.returncode == code, chatter
    assert "Traceback" not in chatter
    assert json.loads(lines.read_text().splitlines()[-1])["state"] == "ended"
    import av

    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 10


def test_a_signal_whose_exit_a_library_swallows_ends_the_run_all_the_same(
    model_file: Path, stopwatch: Callable[..., Any]
) -> None:
    """What a signal raises is lost where it meets an `except:` of an import; the run then ends at its next tick."""
    code = "import os, signal, sys; from deepfer_yolo.cli import app, options; plain = options.open_classifier\n"
    code += "def opened(*a, **k):\n try: os.kill(os.getpid(), signal.SIGTERM)\n"
    code += " except BaseException: pass\n return plain(*a, **k)\n"
    code += "options.open_classifier = opened; sys.argv = ['deepfer', *sys.argv[1:]]; app.main()"
    arguments = ["stream", CAMERA, "-m", str(model_file), "--detector", "whole", "--max-seconds", "20"]
    watch = stopwatch()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert watch() < 15


def test_no_password_is_ever_seen(model_file: Path, tmp_path: Path) -> None:
    """Hostile passwords in every place that takes a URL, every output on, and debug too."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        passwords = ["s3cr3t@with@at", "s3cr3t%40%2Fpct", "s3cr3t:colon"]
        sources = [
            f"{scheme}://ann:{password}@127.0.0.1:{port}/cam?token=s3cr3t"
            for scheme in ("rtsp", "http", "rtmp")
            for password in passwords
        ]
        sinks = [f"webhook=http://ann:s3cr3tpw@127.0.0.1:{port}/x", f"mqtt=mqtt://ann:s3cr3tpw@127.0.0.1:{port}/x"]
        sinks += [
            f"jsonl={tmp_path / 'o.jsonl'}",
            f"csv={tmp_path / 'o.csv'}",
            f"video={tmp_path / 'v.mp4'}",
            f"snapshots={tmp_path / 'snap'}",
        ]
        arguments = [part for sink in sinks for part in ("--sink", sink)]
        options = [
            "--retries",
            "0",
            "--detector",
            "whole",
            "--stats-json",
            str(tmp_path / "stats.json"),
            "--max-seconds",
            "8",
        ]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "deepfer_yolo",
                "--debug",
                "stream",
                *sources,
                "-m",
                str(model_file),
                *arguments,
                *options,
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"o.jsonl", "o.csv", "stats.json"}
    assert "refused" in (tmp_path / "o.jsonl").read_text()
    for place, text in [
        ("stdout", done.stdout),
        ("stderr", done.stderr),
        *((path.name, path.read_text(errors="replace")) for path in written),
    ]:
        assert "s3cr3t" not in text, place
    assert not [path for path in tmp_path.rglob("*") if "s3cr3t" in path.name]


@pytest.mark.parametrize("password", ["s3cr3t/with@slash", "s3cr3t#hash", "s3cr3t?x", "[s3cr3t"])
@pytest.mark.parametrize(
    "place",
    [
        "rtsp://ann:{}@127.0.0.1:554/cam",
        "--sink=webhook=http://ann:{}@127.0.0.1/x",
        "--sink=mqtt=mqtt://ann:{}@127.0.0.1/x",
    ],
)
def test_a_password_that_no_url_can_hold_is_refused_and_not_shown(
    password: str, place: str, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeepferError) as caught:
        app(
            ["stream", place.format(password), "testsrc=size=64x48", "-m", str(model_file), "--detector", "whole"],
            standalone_mode=False,
        )
    assert "percent-encoded" in str(caught.value.hint)
    assert "s3cr3t" not in caught.value.message
    assert "".join(capsys.readouterr()) == ""


def test_a_closed_pipe_ends_the_run_quietly(model_file: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, CAMERA, "-m", str(model_file), "--detector", "whole", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for _ in range(3):
        process.stdout.readline()
    process.stdout.close()
    chatter = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 141
    assert "Traceback" not in chatter
    assert "error: the program that read the results has gone" in chatter
    assert "hint: --sink jsonl=FILE" in chatter


def test_a_closed_pipe_is_a_failed_sink_where_there_are_others(
    painted_clip: Path, model_file: Path, tmp_path: Path
) -> None:
    command = [*COMMAND, str(painted_clip), "-m", str(model_file), "--detector", "whole", "--quiet"]
    command += ["--sink", "jsonl=-", "--sink", f"csv={tmp_path / 'o.csv'}"]
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert process.wait(30) == 1
    assert process.stderr is not None
    assert "failed: the reader of jsonl=- has gone" in process.stderr.read()
    process.stderr.close()
    assert (tmp_path / "o.csv").read_text().count("\nface,") == 20
