"""From a data set folder to the two decoded splits that a training needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.data.dataset import Dataset, Row, fingerprint, load_images, open_dataset
from deepfer_yolo.data.duplicates import thumbnails
from deepfer_yolo.data.splits import assign_folds, groups_of
from deepfer_yolo.errors import ConfigError, TrainingError
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.train.decoded_split import Faces, Read, read_train, read_val
from deepfer_yolo.train.device import free_memory
from deepfer_yolo.train.losses import voted_targets


def fold_of(dataset: Dataset, config: TrainConfig) -> Dataset:
    """`dataset` as fold `config.fold` of `config.folds` sees it: all its pictures dealt anew to train, val and test.
    Nothing is written.

    Raises ConfigError where the groups do not allow it.
    """
    folds, fold = config.folds or 0, config.fold or 0
    if not 1 <= fold <= folds:
        raise ConfigError(f"fold: there is no fold {fold} of {folds}", "name one from 1 to the number of folds")
    parts = deal(dataset, config)
    role = {fold: "test", fold % folds + 1: "val"}
    dealt = tuple(
        replace(row, split=role.get(part, "train")) for row, part in zip(dataset.all_rows, parts, strict=True)
    )
    return replace(dataset, all_rows=dealt, fingerprint=fingerprint(dealt))


def deal(dataset: Dataset, config: TrainConfig) -> list[int]:
    """The fold of each picture, from 1: labels stratified, no group in two folds."""
    rows = dataset.all_rows
    groups = groups_of(rows, config.group_by, lambda: thumbnails(dataset, rows))
    return assign_folds([row.label for row in rows], groups, config.folds or 0, config.seed)


def open_for_training(config: TrainConfig) -> Dataset:
    """The data set that `config` names, without the training pictures that `exclude` lists; validation is never
    thinned.

    Raises DatasetError for a folder or list that cannot be used, and TrainingError where there is no val split or a
    class of it was never seen in train.
    """
    dataset = open_dataset(Path(str(config.data)))
    if config.fold is not None:
        dataset = fold_of(dataset, config)
    if "val" not in dataset.splits:
        raise TrainingError(
            f"{dataset.root} has no val split: without one, nothing says which epoch is best",
            "convert the source again with a val part; the test split is never used for choosing",
        )
    dataset = dataset.without(config.exclude, splits=["train"])
    dataset.rows("train")
    absent = [label for label, n in dataset.counts("train").items() if n == 0]
    if absent:
        raise TrainingError(
            f"{dataset.root} has no training picture of: {', '.join(absent)}",
            "add some, or convert without these classes",
        )
    return dataset


def read_splits(dataset: Dataset, config: TrainConfig) -> tuple[Faces, Faces, InputSpec]:
    """The training and validation split, decoded, and what the model will be fed.

    Raises DatasetError for a picture that is broken.
    """
    index = {label: number for number, label in enumerate(dataset.labels)}
    train_rows, val_rows = dataset.rows("train"), dataset.rows("val")
    labels, paths = [index[row.label] for row in train_rows], [row.path for row in train_rows]
    from_files = reads_files(config, len(train_rows) + len(val_rows))
    faces, spec = read_train(
        load_images(dataset, train_rows),
        labels,
        paths,
        config.imgsz,
        reader(dataset, train_rows) if from_files else None,
    )
    soft = voted_targets(config, train_rows, dataset)
    val_labels, val_paths = [index[row.label] for row in val_rows], [row.path for row in val_rows]
    val = read_val(
        load_images(dataset, val_rows), val_labels, val_paths, spec, reader(dataset, val_rows) if from_files else None
    )
    return replace(faces, soft=soft), val, spec


def reads_files(config: TrainConfig, n: int) -> bool:
    """Whether `n` pictures are decoded anew for every batch: asked for, or because they do not fit the memory, with as
    much again to stack them.
    """
    return config.cache == "files" or (config.cache == "auto" and 2 * 3 * n * config.imgsz**2 > free_memory())


def reader(dataset: Dataset, rows: Sequence[Row]) -> Read:
    """Reads pictures of `rows` by their places."""
    return lambda places: load_images(dataset, [rows[place] for place in places])


def read_test(dataset: Dataset, spec: InputSpec) -> Faces:
    """The test split, decoded as the model is fed."""
    index = {label: number for number, label in enumerate(dataset.labels)}
    rows = dataset.rows("test")
    return read_val(load_images(dataset, rows), [index[row.label] for row in rows], [row.path for row in rows], spec)
