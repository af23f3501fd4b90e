"""From a data set folder to the two decoded splits that a training needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.data.dataset import Dataset, load_images, open_dataset
from deepfer_yolo.data.leaks import hashed
from deepfer_yolo.data.quarantine import read_quarantine, refuse_strangers
from deepfer_yolo.errors import TrainingError
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.train.folds import fold_of
from deepfer_yolo.train.loader import Faces, read_train, read_val
from deepfer_yolo.train.votes import voted_targets


def open_for_training(config: TrainConfig) -> Dataset:
    """The data set that `config` names, without the training pictures that `exclude` lists; validation is never thinned.

    Raises DatasetError for a folder or list that cannot be used, and TrainingError where there is no val split or a class of it was never
    seen in train.
    """
    dataset = open_dataset(Path(str(config.data)))
    if config.fold is not None:
        dataset = fold_of(dataset, config)
    if "val" not in dataset.splits:
        raise TrainingError(
            f"{dataset.root} has no val split: without one, nothing says which epoch is best",
            "convert the source again with a val part; the test split is never used for choosing",
        )
    if config.exclude is not None:
        listed = read_quarantine(Path(config.exclude))
        refuse_strangers(Path(config.exclude), listed, {row.path for row in dataset.all_rows})
        kept = tuple(row for row in dataset.all_rows if row.split != "train" or row.path not in listed)
        dataset = replace(dataset, all_rows=kept)
    dataset.rows("train")
    absent = [label for label, n in dataset.counts("train").items() if n == 0]
    if absent:
        raise TrainingError(f"{dataset.root} has no training picture of: {', '.join(absent)}", "add some, or convert without these classes")
    return dataset


def read_splits(dataset: Dataset, config: TrainConfig) -> tuple[Faces, Faces, InputSpec]:
    """The training and validation split, decoded, and what the model will be fed. Raises DatasetError for a picture that is broken."""
    index = {label: number for number, label in enumerate(dataset.labels)}
    train_rows, val_rows = dataset.rows("train"), dataset.rows("val")
    labels, paths = [index[row.label] for row in train_rows], [row.path for row in train_rows]
    learned: list[int] = []
    held_out: list[int] = []
    faces, spec = read_train(hashed(load_images(dataset, train_rows), learned), labels, paths, config.imgsz)
    soft = voted_targets(config, train_rows, dataset)
    val_labels, val_paths = [index[row.label] for row in val_rows], [row.path for row in val_rows]
    val = read_val(hashed(load_images(dataset, val_rows), held_out), val_labels, val_paths, spec)
    return replace(faces, soft=soft, hashes=np.array(learned, np.uint64)), replace(val, hashes=np.array(held_out, np.uint64)), spec


def read_test(dataset: Dataset, spec: InputSpec) -> Faces:
    """The test split, decoded as the model is fed."""
    index = {label: number for number, label in enumerate(dataset.labels)}
    rows = dataset.rows("test")
    return read_val(load_images(dataset, rows), [index[row.label] for row in rows], [row.path for row in rows], spec)
