"""Several GPUs: one process each, started by torch's launcher, that meet in Ultralytics' own DDP.

Ultralytics' launcher pickles the trainer, loses what is not among its arguments and empties the run's folder first.
Here each process reads the recipe from the run's folder, as a resumed run does, so that nothing has to be carried over.
The first process writes everything that is written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deepfer_yolo import errors
from deepfer_yolo.config import TrainConfig
from deepfer_yolo.errors import ConfigError, DeepferError, TrainingError
from deepfer_yolo.files import write_atomic

STOP, FAILURE = ".stop", ".failure.json"
PARENT = "DEEPFER_PARENT"
WORKER = ("-m", "deepfer_yolo.train.rank_worker")
POLL_S = 0.1


def n_devices(device: str) -> int:
    """How many devices `0,1` names."""
    return len(device.split(","))


def check_ranks(config: TrainConfig) -> None:
    """Raise ConfigError where a recipe cannot be run on the devices that it names."""
    n = n_devices(config.device)
    if n > 1 and (config.batch % n or config.batch // n < 2):
        raise ConfigError(
            f"a batch of {config.batch} cannot be dealt to {n} devices",
            f"use a multiple of {n}, such as --batch {n * 64}",
        )
    if n > 1 and config.time is not None:
        raise ConfigError(
            "time: each of several processes would guess its own number of epochs", "use --epochs, or one device"
        )


def launch(folder: Path, n: int, threads: int, should_stop: Callable[[], bool], worker: Sequence[str] = WORKER) -> None:
    """Run `worker` on the run's folder in `n` processes and wait. A stop is passed on as a file, and they stop with
    their state saved.

    Raises what one of them raised, or TrainingError where one died without a word.
    """
    for name in (STOP, FAILURE):
        (folder / name).unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(n),
        *worker,
        str(folder),
    ]
    surroundings = os.environ | {"OMP_NUM_THREADS": str(threads), PARENT: str(os.getpid())}
    # In a session of their own: Ctrl-C reaches this process alone, which asks the others.
    process = subprocess.Popen(command, env=surroundings, start_new_session=True)
    try:
        while process.poll() is None:
            if should_stop():
                (folder / STOP).touch()
            time.sleep(POLL_S)
    finally:
        (folder / STOP).unlink(missing_ok=True)
    if (folder / FAILURE).is_file():
        raise read_failure(folder / FAILURE)
    if process.returncode:
        raise TrainingError(
            f"one of {n} training processes died (exit code {process.returncode})", f"deepfer train --resume {folder}"
        )


def is_asked_to_stop(folder: Path) -> bool:
    """Whether the process that began the run has asked for a stop, or is gone."""
    if (folder / STOP).exists():
        return True
    try:
        os.kill(int(os.environ[PARENT]), 0)
    except ProcessLookupError:
        return True
    return False


def write_failure(path: Path, error: DeepferError) -> None:
    """Leave an error where the process that began the run finds it."""
    write_atomic(path, json.dumps({"type": type(error).__name__, "fields": vars(error)}))


def read_failure(path: Path) -> DeepferError:
    """The error that a process left, as its own class."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    kind: type[DeepferError] = getattr(errors, content["type"])
    error = kind(content["fields"]["message"])
    vars(error).update(content["fields"])
    return error
