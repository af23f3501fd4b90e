"""One of the processes of a run on several GPUs; `ranks.launch` starts it on the folder of a run."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.train.progress import Callbacks
from deepfer_yolo.train.ranks import is_asked_to_stop, leave_failure
from deepfer_yolo.train.run import continue_here, recipe_of
from deepfer_yolo.train.trainer import FaceTrainer


def main(folder: Path, trainer: type[FaceTrainer] = FaceTrainer) -> None:
    """Take part in the run in `folder`; an error is left there for the process that began it."""
    show = functools.partial(print, file=sys.stderr, flush=True)
    try:
        continue_here(recipe_of(folder), folder, Callbacks(show, lambda: is_asked_to_stop(folder)), trainer)
    except DeepferError as error:
        leave_failure(folder, error)
        sys.exit(1)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
