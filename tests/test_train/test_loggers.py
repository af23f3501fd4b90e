"""Experiment loggers: opt-in, off the network, and without a hand in what is learned."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deepfer_yolo.errors import MissingDependencyError
from deepfer_yolo.presets import to_yaml
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.run import train
from deepfer_yolo.yolo import load_checkpoint, trainer_callbacks

NAMES = ("tensorboard", "mlflow", "wandb")


@pytest.mark.parametrize("name", NAMES)
def test_a_logger_that_is_not_installed_is_an_error_with_the_line_that_installs_it(
    name: str, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("deepfer_yolo.train.loggers.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=f"--logger {name} needs") as error:
        train(tiny_config.model_copy(update={"logger": name}), root=tmp_path)
    assert error.value.hint == f"pip install {name}"
    assert not list(tmp_path.iterdir())


def test_without_being_asked_no_logger_listens() -> None:
    modules = {function.__module__ for functions in trainer_callbacks(None).values() for function in functions}
    assert modules == {"ultralytics.utils.callbacks.base"}


@pytest.mark.parametrize("name", NAMES)
def test_a_logger_gets_the_figures_of_every_epoch_and_changes_nothing(
    name: str, tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:  # fmt: skip
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "recipe.yaml").write_text(to_yaml(tiny_config))
    # Ultralytics' loggers are silent under pytest: a program of its own. Unreachable proxies stand for the absent
    # network.
    away = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "WANDB", "MLFLOW"))}
    command = [
        sys.executable,
        "-m",
        "deepfer_yolo",
        "train",
        str(tiny_config.data),
        "--config",
        "recipe.yaml",
        "--logger",
        name,
        "--name",
        "r",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ | away, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()
    run = tmp_path / "runs" / "train" / "r"
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run)).Reload()
        assert [point.step for point in events.Scalars("metrics/macro_f1")] == [1, 2, 3]
    elif name == "mlflow":
        with contextlib.closing(sqlite3.connect(run / "mlflow.db")) as store:
            points = store.execute("select step from metrics where key = 'metrics/macro_f1' order by step").fetchall()
        assert points == [(0,), (1,), (2,)]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "runs"]
    else:
        assert list(run.glob("wandb/offline-run-*/*.wandb"))
    found, wanted = (load_checkpoint(folder / "weights" / "best.pt").state_dict() for folder in (run, finished_run))
    assert all(bool((value == wanted[key]).all()) for key, value in found.items())
