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

from deepfer_yolo.errors import DeepferError, TrainingError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.runtime.child_process import error_head, received_error

STOP, FAILURE = ".stop", ".failure.json"
PARENT = "DEEPFER_PARENT"
WORKER = ("-m", "deepfer_yolo.train.rank_worker")
POLL_S = 0.1


def launch(folder: Path, n: int, threads: int, should_stop: Callable[[], bool], worker: Sequence[str] = WORKER) -> None:
    """Run `worker` on the run's folder in `n` processes and wait. A stop is passed on as a file, and they stop with
    their state saved.

    Raises what one of them raised, or TrainingError where one died without a word.
    """
    stop, failure = folder / STOP, folder / FAILURE
    for path in (stop, failure):
        path.unlink(missing_ok=True)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n))
    surroundings = os.environ | {"OMP_NUM_THREADS": str(threads), PARENT: str(os.getpid())}
    # In a session of their own: Ctrl-C reaches this process alone, which asks the others.
    process = subprocess.Popen([*torchrun, *worker, str(folder)], env=surroundings, start_new_session=True)
    try:
        while process.poll() is None:
            if should_stop():
                stop.touch()
            time.sleep(POLL_S)
    finally:
        stop.unlink(missing_ok=True)
    if failure.is_file():
        left = json.loads(failure.read_text(encoding="utf-8"))
        failure.unlink()
        raise received_error(left)
    if process.returncode:
        raise TrainingError(
            f"one of {n} training processes died (exit code {process.returncode})", f"deepfer train --resume {folder}"
        )


def is_asked_to_stop(folder: Path) -> bool:
    """Whether the process that began the run has asked for a stop, or is gone."""
    import psutil

    return (folder / STOP).exists() or not psutil.pid_exists(int(os.environ[PARENT]))


def leave_failure(folder: Path, error: DeepferError) -> None:
    """Leave an error where the process that began the run finds it."""
    write_atomic(folder / FAILURE, json.dumps(error_head(error)))
