"""Experiment loggers, only when asked for, through Ultralytics' own callbacks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deepfer_yolo.errors import MissingDependencyError, TrainingError
from deepfer_yolo.yolo import tensorboard_is_open

# What each would send without being asked: wandb its records and crash reports, mlflow its usage. A variable that is
# set already stays.
_QUIET = {
    "tensorboard": {},
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_EXPERIMENT_NAME": "deepfer"},
    "wandb": {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"},
}


def prepare_logger(name: str | None) -> None:
    """Keep the logger `name` off the network where its own variables do not say otherwise.

    Raises MissingDependencyError where it is not installed.
    """
    if name is None:
        return
    if find_spec(name) is None:
        raise MissingDependencyError(
            f"--logger {name} needs the Python module '{name}', which is not installed", f"pip install {name}"
        )
    if name == "tensorboard":  # Ultralytics traces the network to draw its graph, and torch calls that old
        warnings.filterwarnings("ignore", module=r"torch\.jit")
    for key, value in _QUIET[name].items():
        os.environ.setdefault(key, value)


def attach_logger(trainer: Any, name: str | None, say: Callable[[str], None]) -> None:
    """Stop a run whose logger did not start, and say so where mlflow gives up on the way: Ultralytics only warns."""
    if name == "tensorboard" and not tensorboard_is_open():
        raise _not_started(name, f"pip install --upgrade {name}")
    if name == "mlflow":
        _keep_mlflow_in(trainer.save_dir)
        trainer.add_callback("on_train_start", _require_mlflow)
        trainer.add_callback("on_fit_epoch_end", lambda running: _watch_mlflow(running, say))


def _keep_mlflow_in(folder: Path) -> None:
    """Let mlflow write into the run's folder where its own variable names no store: left alone, it puts `mlflow.db` and
    `mlruns/` into the current one.
    """
    import mlflow

    if "MLFLOW_TRACKING_URI" in os.environ:
        return
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    name = os.environ["MLFLOW_EXPERIMENT_NAME"]
    if mlflow.get_experiment_by_name(name) is None:  # a run that goes on has it already
        mlflow.create_experiment(name, artifact_location=(folder / "mlflow").as_uri())


def _require_mlflow(trainer: Any) -> None:
    if not trainer._mlflow_active:
        raise _not_started("mlflow", "check MLFLOW_TRACKING_URI and that its store can be written")


def _watch_mlflow(trainer: Any, say: Callable[[str], None]) -> None:
    if not trainer._mlflow_active and not getattr(trainer, "mlflow_is_lost", False):
        trainer.mlflow_is_lost = True
        say("mlflow takes no more records; the run goes on without it")


def _not_started(name: str, hint: str) -> TrainingError:
    return TrainingError(f"--logger {name} could not be started", hint)
