"""`deepfer train` as torchrun starts it, which also leaves what each process drew and lost as JSON in NOTES.

Batch normalisation rests: it looks at the part of the batch that a process has, and is the one thing in which several
processes differ from one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from deepfer_yolo.__main__ import main
from deepfer_yolo.train import run
from deepfer_yolo.train.loader import TrainLoader
from deepfer_yolo.train.trainer import FaceTrainer

RANK = os.environ.get("RANK", "0")
drawn: list[list[int]] = []
losses: list[float] = []


class NotingTrainer(FaceTrainer):
    """Notes each batch and its loss, and leaves them at the end of an epoch."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.add_callback("on_train_epoch_start", lambda _: (drawn.clear(), losses.clear()))
        self.add_callback("on_train_epoch_end", NotingTrainer.leave)

    def _loss(self, *words: Any) -> Any:
        loss, parts = super()._loss(*words)
        if torch.is_grad_enabled():
            losses.append(float(parts["loss"]))
        return loss, parts

    def leave(self) -> None:
        note = {"drawn": drawn, "losses": losses, "ranks": self.n_ranks}
        Path(os.environ["NOTES"], f"rank{RANK}-{self.epoch}.json").write_text(json.dumps(note))


def noted(self: TrainLoader, index: torch.Tensor, *words: Any) -> Any:
    if torch.is_grad_enabled():
        drawn.append(index.tolist())
    return batch(self, index, *words)


def resting(self: torch.nn.BatchNorm2d, mode: bool = True) -> torch.nn.Module:
    return torch.nn.Module.train(self, False)


if __name__ == "__main__":
    if "DIE_BEFORE_THE_MEASUREMENT" in os.environ:
        run.finish = lambda *_: os._exit(9)  # type: ignore[assignment]
    batch, TrainLoader.batch = TrainLoader.batch, noted  # type: ignore[method-assign]
    torch.nn.BatchNorm2d.train = resting  # type: ignore[method-assign, assignment]
    run._execute.__defaults__ = (NotingTrainer,)
    main()
