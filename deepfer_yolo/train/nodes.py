"""Several machines train as one: every process that torchrun starts is a `deepfer train`, and the first writes all.

Who they are stands in the environment that torchrun gives them (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR). What one of
them cannot do is an error of all, so that none waits for another.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch  # noqa: TID253  (this package exists to run torch)
from torch import distributed  # noqa: TID253

from deepfer_yolo.errors import ConfigError, DeepferError, TrainingError, listed
from deepfer_yolo.records import Json
from deepfer_yolo.runs import flatten
from deepfer_yolo.runtime.child_process import error_head, received_error
from deepfer_yolo.train.ranks import PARENT
from deepfer_yolo.yolo import RANK, WORLD_SIZE

PATIENCE = timedelta(hours=3)
"""How long a process waits for the others, which may read a large data set: as long as Ultralytics does."""
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")

Result = TypeVar("Result")


def is_part() -> bool:
    """Whether torchrun started this process as one of several, and `ranks.launch` did not."""
    return WORLD_SIZE > 1 and PARENT not in os.environ


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes. One that goes while others need it ends them with a TrainingError."""
    lacking = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if lacking:
        raise ConfigError(
            f"WORLD_SIZE is {WORLD_SIZE}, but {', '.join(lacking)} is not set: this is no process of torchrun's",
            "torchrun --nnodes 2 --node_rank 0 --master_addr HOST -m deepfer_yolo train …, or unset WORLD_SIZE",
        )
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and not any(words in str(error) for words in _GONE):
            raise
        raise TrainingError(
            "another process of this training has gone", "see what it said; then start all again with: --resume FOLDER"
        ) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def lead(action: Callable[[], Result]) -> Result:
    """What `action` returns or raises in the first process, in all of them."""
    box: list[Any] = [None, None]
    if RANK == 0:
        try:
            box[0] = action()
        except DeepferError as error:
            box[1] = error_head(error)
    distributed.broadcast_object_list(box, 0)
    if box[1] is not None:
        raise received_error(box[1])
    found: Result = box[0]
    return found


def together(action: Callable[[], Result]) -> Result:
    """What `action` returns here, once it has returned everywhere; what it raises in one of them, all raise."""
    try:
        result, failure = action(), None
    except DeepferError as error:
        failure = error
    here = None if failure is None else (platform.node(), error_head(failure))
    found: list[Any] = [None] * WORLD_SIZE
    distributed.all_gather_object(found, here)
    if failure is not None:
        raise failure
    for rank, there in enumerate(found):
        if there is not None:
            told = received_error(there[1])
            raise TrainingError(f"process {rank}, on {there[0]}: {told.message}", told.hint)
    return result


def require_same(settings: Json) -> None:
    """Raise ConfigError in all processes where one has other `settings` than the first."""
    first = flatten(lead(lambda: settings))

    def compare() -> None:
        mine = flatten(settings)
        apart = [key for key in dict.fromkeys([*first, *mine]) if first.get(key) != mine.get(key)]
        if apart:
            shown = listed([f"{key} ({mine.get(key)} here, {first.get(key)} there)" for key in apart])
            raise ConfigError(f"the first process trains otherwise: {shown}", "start all nodes with the same options")

    together(compare)


def wait_for_all() -> None:
    """Return when every process has come here."""
    distributed.barrier()
