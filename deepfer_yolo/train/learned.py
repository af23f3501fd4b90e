"""What the networks behind a run have learned before, checked against the pictures that are to judge it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.leaks import Hashes, LeakGuard
from deepfer_yolo.train.faces import Faces
from deepfer_yolo.train.splits import open_for_training
from deepfer_yolo.train.start import named_model
from deepfer_yolo.yolo import TRAINED_HASHES, ClassificationModel, remember, trained_hashes


def check_start(
    config: TrainConfig, dataset: Dataset, val: Faces, model: ClassificationModel, teachers: tuple[ClassificationModel, ...]
) -> tuple[dict[str, Any], list[str]]:
    """What the start and the teachers have learned of val and test: the record of the run, and lines to show; see `LeakGuard.check`.

    A start from scratch is not in the record. Raises LeakError for a leak, unless the recipe allows it.
    """
    models: dict[str, Hashes | None] = {}
    start = config.pretrained or named_model(config)
    if start.endswith(".pt"):
        models[f"the start {Path(start).name}"] = trained_hashes(model)
    models |= {f"the teacher {Path(path).name}": trained_hashes(teacher) for path, teacher in zip(config.teacher, teachers, strict=True)}
    whole = dataset if config.exclude is None else open_for_training(config.model_copy(update={"exclude": None}))
    guard = LeakGuard(dataset, whole, {} if val.hashes is None else {"val": val.hashes})
    record, lines = guard.check(models, [split for split in dataset.splits if split != "train"], allow=config.allow_leak)
    lines += [
        f"{name} does not say which pictures it has learned, so leaks from it cannot be seen" for name, known in models.items() if known is None
    ]
    return record, lines


def remember_all(model: ClassificationModel, teachers: tuple[ClassificationModel, ...], train: Faces) -> None:
    """Let `model`, and so every checkpoint of it, carry the pictures it learns now, those its start has learned and those of its teachers."""
    remember(model, trained_hashes(model), *map(trained_hashes, teachers), train.hashes)


def recall(model: ClassificationModel, state: dict[str, Any]) -> dict[str, Any]:
    """Give `model`, built anew for a run that goes on from `state`, what it had learned; returns the run's record of `check_start`."""
    held = state.get(TRAINED_HASHES)
    remember(model, None if held is None else held.numpy().view(np.uint64))
    return dict(state.get("leaks", {}))
