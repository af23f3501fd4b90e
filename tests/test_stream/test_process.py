"""The command as a process of its own, and real ffmpeg publishers that are killed and paused for as long as cameras
are.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "p@ss/w?rd#1"


class Command:
    """`deepfer stream` whose records are collected as they come."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.stats, self.errors = folder / "stats.json", folder / "stderr.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deepfer_yolo", "stream", *arguments, "--stats-json", str(self.stats)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.records: list[dict[str, Any]] = []
        self.arrived: list[float] = []
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.records.append(json.loads(line))
            self.arrived.append(time.monotonic())

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in list(self.records) if record["kind"] == kind]

    def states(self) -> list[str]:
        return [record["state"] for record in self.of("state")]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline, f"not in {timeout_s} s: {self.states()}, {len(self.records)} records"
            time.sleep(0.02)

    def terminate(self) -> tuple[int, dict[str, Any]]:
        """End it by SIGTERM; its exit code and the last line of statistics."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(10)
        self._thread.join(5)
        return code, json.loads(self.stats.read_text().splitlines()[-1])


@pytest.fixture
def command(tmp_path: Path, model_file: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        started.append(Command([*arguments, "-m", str(model_file), "--detector", "whole"], tmp_path))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(10)
        if one.process.stdout is not None:
            one.process.stdout.close()


@pytest.mark.slow
def test_a_camera_killed_at_frame_30_is_back_after_3_s_in_another_size(
    command: Callable[..., Command], publish_rtsp: Any, free_port: Any, tmp_path: Path
) -> None:
    port = free_port()
    listen = ("--input-option", "rtsp_flags=listen", "--input-option", "listen_timeout=8")
    video = tmp_path / "out.mp4"
    run = command(
        f"rtsp://127.0.0.1:{port}/live", *listen, "--sink", "jsonl=-", "--sink", f"video={video}", "--read-timeout", "2"
    )
    run.wait_for(lambda: "connecting" in run.states(), 60)
    first = publish_rtsp(port)
    run.wait_for(lambda: len(run.of("face")) >= 30)
    first.kill()
    run.wait_for(lambda: "lost" in run.states())
    time.sleep(3.0)
    publish_rtsp(port, size="320x240")
    run.wait_for(lambda: sum(record["epoch"] == 1 for record in run.of("face")) >= 30)
    code, stats = run.terminate()

    assert code == 128 + signal.SIGTERM
    (source,) = stats["sources"]
    assert source["epochs"] == 2
    assert source["in_flight"] == 0
    assert source["captured"] == source["processed"] + source["overwritten"] + source["stale"] + source["corrupt"]
    assert source["processed"] == len(run.of("face"))
    assert {(face["epoch"], tuple(face["box"][2:])) for face in run.of("face")} == {
        (0, (160.0, 120.0)),
        (1, (320.0, 240.0)),
    }
    assert run.states()[0:2] == ["connecting", "live"]
    assert [state["state"] for state in run.of("state") if state["source"].startswith("rtsp")][-1] == "ended", run.of(
        "state"
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert {"out.mp4", "out-2.mp4"} <= names, "a new size begins a new file"


@pytest.mark.slow
def test_a_camera_that_hangs_for_10_s_is_told_and_then_fresh(
    command: Callable[..., Command], publish_rtsp: Any, free_port: Any, stopwatch: Callable[..., Any]
) -> None:
    port = free_port()
    listen = ("--input-option", "rtsp_flags=listen", "--input-option", "listen_timeout=8")
    run = command(f"rtsp://127.0.0.1:{port}/live", *listen, "--sink", "jsonl=-", "--read-timeout", "30", "--stall", "2")
    run.wait_for(lambda: "connecting" in run.states(), 60)
    publisher = publish_rtsp(port)
    run.wait_for(lambda: len(run.of("face")) >= 20)
    publisher.pause()
    paused, watch = time.monotonic(), stopwatch()
    run.wait_for(lambda: "stalled" in run.states())
    assert watch() < 5
    time.sleep(max(0.0, paused + 10 - time.monotonic()))
    publisher.go_on()
    run.wait_for(lambda: run.states()[-1] == "live")
    n = len(run.of("face"))
    run.wait_for(lambda: len(run.of("face")) >= n + 50 and max(face["age_ms"] for face in run.of("face")[-25:]) < 500)
    run.terminate()
    assert run.states()[:4] == ["connecting", "live", "stalled", "live"]


@pytest.mark.slow
def test_an_mjpeg_camera_that_ends_comes_back(command: Callable[..., Command], publish: Any, free_port: Any) -> None:
    port = free_port()

    def camera(size: str) -> Any:
        source = (
            "-re",
            "-f",
            "lavfi",
            "-i",
            f"testsrc=size={size}:rate=15",
            "-c:v",
            "mjpeg",
            "-f",
            "mpjpeg",
            "-listen",
            "1",
        )
        return publish(*source, f"http://127.0.0.1:{port}/cam")

    first = camera("160x120")
    run = command(f"http://bob:secret@127.0.0.1:{port}/cam", "--sink", "jsonl=-", "--read-timeout", "2")
    run.wait_for(lambda: len(run.of("face")) >= 30)
    first.kill()
    run.wait_for(lambda: "lost" in run.states())
    camera("320x240")
    run.wait_for(lambda: sum(record["epoch"] == 1 for record in run.of("face")) >= 15)
    code, stats = run.terminate()
    assert code == 128 + signal.SIGTERM
    (source,) = stats["sources"]
    assert source["processed"] == len(run.of("face"))
    assert {face["clock"] for face in run.of("face")} == {"arrival"}
    assert "secret" not in run.errors.read_text() + json.dumps(run.records) + json.dumps(stats)
