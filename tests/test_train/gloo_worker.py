"""A training process on the CPU: `FaceTrainer` with gloo where GPUs have NCCL, which leaves what it drew and what it
became as JSON.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from deepfer_yolo.train.loader import TrainLoader
from deepfer_yolo.train.rank_worker import main
from deepfer_yolo.train.trainer import FaceTrainer

FOLDER = Path(sys.argv[1])
RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
drawn: list[int] = []


class GlooTrainer(FaceTrainer):
    """Ultralytics spreads over GPUs only; what differs on the CPU is here, the loop, the DDP wrapper and all of ours
    are the real ones.
    """

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.add_callback("on_train_epoch_start", lambda _: drawn.clear())
        self.add_callback("on_train_epoch_end", GlooTrainer.leave)
        if RANK == 0:
            self.add_callback("on_fit_epoch_end", GlooTrainer.leave_val)

    def _setup_ddp(self) -> None:
        distributed.init_process_group("gloo", rank=RANK, world_size=WORLD)

    def leave(self) -> None:
        """What this process drew and the parameters that it has; buffers are each process's own in DDP."""
        weights = b"".join(value.detach().numpy().tobytes() for value in self.network.parameters())
        left = {
            "drawn": drawn,
            "batches": len(self.train_loader),
            "weights": hashlib.sha256(weights).hexdigest(),
            "ddp": type(self.model).__name__,
        }
        left["val"] = [self.test_loader.first, self.test_loader.end]
        (FOLDER / f"rank{RANK}-{self.epoch}.json").write_text(json.dumps(left))

    def leave_val(self) -> None:
        """The labels of val as all processes gathered them, of an epoch that was judged."""
        if self.fitness is None:
            return
        (FOLDER / f"val-{self.epoch}.json").write_text(json.dumps(torch.cat(self.validator.targets).tolist()))


def record(batch: Any) -> Any:
    """`TrainLoader.batch` that notes which images it was asked for."""

    @functools.wraps(batch)
    def noting(self: TrainLoader, index: torch.Tensor, *words: Any) -> Any:
        drawn.extend(index.tolist())
        return batch(self, index, *words)

    return noting


if __name__ == "__main__":
    TrainLoader.batch = record(TrainLoader.batch)  # type: ignore[method-assign]
    main(FOLDER, GlooTrainer)
