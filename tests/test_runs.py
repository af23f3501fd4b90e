"""The record of runs."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deepfer_yolo import files, runs
from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.errors import ConfigError


def test_a_run_says_how_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/x/bin/deepfer", "evaluate", "rtsp://me:hunter2@cam/1?token=abc", "a b"])
    config = EvaluateConfig(split="test", exclude="http://me:hunter2@host/list.csv?key=abc#x: y")
    run = runs.create_run("evaluate", "first", config, tmp_path / "runs")
    assert run == tmp_path / "runs" / "evaluate" / "first"
    assert "split: test" in (run / "config.yaml").read_text()
    assert yaml.safe_load((run / "config.yaml").read_text())["exclude"] == "http://***@host/list.csv?key=***"
    found = json.loads((run / "env.json").read_text())
    assert found["command"] == "deepfer evaluate 'rtsp://***@cam/1?token=***' 'a b'"
    assert found["versions"]["numpy"] == np.__version__
    assert found["cores"] >= 1
    assert "hunter2" not in (run / "env.json").read_text()


def test_unnamed_runs_of_one_second_get_different_folders(tmp_path: Path) -> None:
    made = {runs.create_run("evaluate", None, EvaluateConfig(), tmp_path) for _ in range(3)}
    assert len(made) == 3


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "a\\b", "a\0b"])
def test_names_that_are_no_folder_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        runs.create_run("evaluate", name, EvaluateConfig(), tmp_path)


def test_existing_name_is_refused(tmp_path: Path) -> None:
    runs.write_metrics(runs.create_run("train", "x", EvaluateConfig(), tmp_path), {})
    with pytest.raises(ConfigError, match="a run of this name already"):
        runs.create_run("train", "x", EvaluateConfig(), tmp_path)
    (tmp_path / "train" / "mine").mkdir()
    (tmp_path / "train" / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="a run of this name already"):
        runs.create_run("train", "mine", EvaluateConfig(), tmp_path)
    runs.create_run("evaluate", "x", EvaluateConfig(), tmp_path)


HOLD = """
import sys
from pathlib import Path
from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.runs import recorded_run
with recorded_run("evaluate", "x", EvaluateConfig(), Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_run_gives_its_name_back_and_one_under_way_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        (found,) = runs.read_runs(tmp_path)
        assert (found.state, runs.list_row(found)[3]) == ("running", "running")
        with pytest.raises(ConfigError, match="under way"):
            runs.create_run("evaluate", "x", EvaluateConfig(), tmp_path)
        process.kill()
    (found,) = runs.read_runs(tmp_path)
    assert found.state == "failed"
    with runs.recorded_run("evaluate", "x", EvaluateConfig(), tmp_path) as run:
        assert "ended without a result" in caplog.text
        runs.write_metrics(run, {"n": 7})
    (found,) = runs.read_runs(tmp_path)
    assert (found.state, runs.list_row(found)[3]) == ("finished", "7")


BEGIN = """
import sys
from pathlib import Path
from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.runs import create_run
print("ready", flush=True)
for line in sys.stdin:
    try:
        create_run("evaluate", line.strip(), EvaluateConfig(), Path(sys.argv[1]))
        print("begun", flush=True)
    except ConfigError as error:
        print(error.message, flush=True)
"""


def test_of_runs_of_one_name_that_start_together_one_has_it(tmp_path: Path) -> None:
    """Twenty times four; every other name was left by a run that was killed."""
    command = [sys.executable, "-c", BEGIN, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        started: list[Any] = [stack.enter_context(subprocess.Popen(command, text=True, **pipes)) for _ in range(4)]
        assert [process.stdout.readline() for process in started] == ["ready\n"] * 4
        for number in range(20):
            if number % 2:
                (tmp_path / "evaluate" / f"r{number}").mkdir(parents=True)
            for process in started:
                process.stdin.write(f"r{number}\n")
                process.stdin.flush()
            answers = [process.stdout.readline() for process in started]
            assert sum(answer == "begun\n" for answer in answers) == 1, answers
            assert all("run of this name" in answer for answer in answers if answer != "begun\n"), answers
            assert (tmp_path / "evaluate" / f"r{number}" / "env.json").is_file()


def test_a_run_of_which_nobody_knows_whether_it_lives_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk without locks, and behind a link."""
    run = runs.create_run("evaluate", "x", EvaluateConfig(), tmp_path)
    runs.release(run)
    (tmp_path / "evaluate" / "link").symlink_to(run)
    with pytest.raises(ConfigError, match="cannot be known"):
        runs.create_run("evaluate", "link", EvaluateConfig(), tmp_path)
    monkeypatch.setattr(files, "lock_handle", lambda handle, *, is_shared=False: None)
    with pytest.raises(ConfigError, match="cannot be known"):
        runs.create_run("evaluate", "x", EvaluateConfig(), tmp_path)
    assert (run / "env.json").is_file()
    runs.create_run("evaluate", "y", EvaluateConfig(), tmp_path)


@pytest.mark.parametrize("trace", ["weights/last.pt", "study.db", "fold-2/weights/last.pt"])
def test_a_run_that_can_go_on_is_never_replaced(trace: str, tmp_path: Path) -> None:
    run = runs.create_run("train", "x", EvaluateConfig(), tmp_path)
    (run / trace).parent.mkdir(parents=True, exist_ok=True)
    (run / trace).touch()
    with pytest.raises(ConfigError, match="was stopped and can go on") as refusal:
        runs.create_run("train", "x", EvaluateConfig(), tmp_path)
    assert str(refusal.value.hint).startswith(f"deepfer train --resume {run}")
    assert (run / trace).exists()


def test_a_full_disk_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(runs, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        runs.create_run("train", "x", EvaluateConfig(), tmp_path)
    assert not (tmp_path / "train" / "x").exists()


@pytest.mark.parametrize("end", [ConfigError("no"), KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_measured_nothing_leaves_no_folder(end: BaseException, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with pytest.raises(type(end)), runs.recorded_run("evaluate", "x", EvaluateConfig(), root):
        raise end
    assert not root.exists()
    with runs.recorded_run("evaluate", "kept", EvaluateConfig(), root) as kept:
        runs.write_metrics(kept, {})

    def ended_once_it_was_measured() -> None:
        with runs.recorded_run("evaluate", "measured", EvaluateConfig(), root) as measured:
            runs.write_metrics(measured, {})
            raise end

    with pytest.raises(type(end)):
        ended_once_it_was_measured()
    with pytest.raises(type(end)), runs.recorded_run("evaluate", "x", EvaluateConfig(), root):
        raise end
    assert sorted(path.name for path in root.glob("*/*")) == ["kept", "measured"]


def test_metrics_are_plain_json(tmp_path: Path) -> None:
    path = runs.write_metrics(
        tmp_path,
        {"a": np.float32(0.5), "b": np.array([1, 2]), "c": float("nan"), "d": (Path("x"), np.inf), "e": np.int64(3)},
    )
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [1, 2], "c": None, "d": ["x", None], "e": 3}
