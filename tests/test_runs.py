"""The record of runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from deepfer_yolo import runs
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
    runs.create_run("train", "x", EvaluateConfig(), tmp_path)
    with pytest.raises(ConfigError, match="a run of this name already"):
        runs.create_run("train", "x", EvaluateConfig(), tmp_path)
    runs.create_run("evaluate", "x", EvaluateConfig(), tmp_path)


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
