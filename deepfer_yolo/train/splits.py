"""From a data set folder to the decoded splits of a run, as the manifest deals them or dealt anew to folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deepfer_yolo.data.corrected import with_corrections
from deepfer_yolo.data.corrections import read_corrections
from deepfer_yolo.data.dataset import Dataset, Row, fingerprint, load_images, open_dataset
from deepfer_yolo.data.duplicates import thumbnails
from deepfer_yolo.data.splits import assign_folds, groups_of
from deepfer_yolo.errors import ConfigError, TrainingError, listed
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.train.decoded_split import DecodedSplit, Read, read_train, read_val
from deepfer_yolo.train.device import free_memory
from deepfer_yolo.train.losses import hard_labels, judged_labels, voted_targets


def fold_of(dataset: Dataset, config: TrainConfig) -> Dataset:
    """`dataset` as fold `config.fold` of `config.folds` sees it: all its images dealt anew to train, val and test.
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
    """The fold of each image, from 1: labels stratified, no group in two folds."""
    rows = dataset.all_rows
    groups = groups_of(rows, config.group_by, lambda: thumbnails(dataset, rows))
    return assign_folds([row.label for row in rows], groups, config.folds or 0, config.seed)


def open_for_training(config: TrainConfig) -> Dataset:
    """The data set that `config` names, with its training images corrected, and without those that `exclude` lists;
    validation is never thinned.

    Raises DatasetError for a folder or list that cannot be used, and TrainingError where there is no val split or a
    class of it was never seen in train.
    """
    dataset = open_corrected(config)
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
        part = "" if config.fold is None else f"fold {config.fold} of "
        raise TrainingError(
            f"{part}{dataset.root} has no training image of: {listed(absent)}",
            "add some, or leave the label out: deepfer convert DATASET OTHER --drop LABEL",
        )
    return dataset


def open_corrected(config: TrainConfig) -> Dataset:
    """The data set that `config` names, its training images corrected. Raises ConfigError for held-out corrections."""
    dataset = open_dataset(Path(str(config.data)))
    if config.corrections is None:
        return dataset
    found = read_corrections(Path(config.corrections))
    if found.is_held_out:
        reason = f"{config.corrections} corrects val and test, which training must not touch"
        raise ConfigError(reason, "name corrections.csv; deepfer evaluate and gate take the other")
    return with_corrections(dataset, found)


def read_splits(dataset: Dataset, config: TrainConfig) -> tuple[DecodedSplit, DecodedSplit, InputSpec]:
    """The training and validation split, decoded, and what the model will be fed.

    Raises DatasetError for an image that is broken.
    """
    rows = dataset.rows("train")
    from_files = reads_files(config, len(rows) + len(dataset.rows("val")))
    read = reader(dataset, rows) if from_files else None
    train, spec = read_train(load_images(dataset, rows), hard_labels(rows, dataset), config.imgsz, read)
    train = replace(train, soft=voted_targets(config, rows, dataset))
    return train, read_held_out(dataset, "val", spec, config.judge, from_files=from_files), spec


def read_held_out(
    dataset: Dataset, split: str, spec: InputSpec, judge: str = "label", *, from_files: bool = False
) -> DecodedSplit:
    """A split that is not learned from, decoded as the model is fed."""
    rows, labels = judged_labels(dataset.rows(split), dataset, judge)
    read = reader(dataset, rows) if from_files else None
    return read_val(load_images(dataset, rows), labels, spec, read)


def reads_files(config: TrainConfig, n: int) -> bool:
    """Whether `n` images are decoded anew for every batch: as asked for, or where they do not fit the memory twice."""
    return config.cache == "files" or (config.cache == "auto" and 2 * 3 * n * config.imgsz**2 > free_memory())


def reader(dataset: Dataset, rows: Sequence[Row]) -> Read:
    """Reads images of `rows` by their places."""
    return lambda places: load_images(dataset, [rows[place] for place in places])
