"""Which picture is in which fold, and what one fold learns, is judged by and is tested on.

Of `folds` parts, one tests, the next one picks the epoch and the temperature, and the others are learned. Picking the epoch on the part that is
tested, as is common for these sets, would report the luckiest epoch of each fold.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.data.duplicates import group, near_pairs, thumbnail
from deepfer_yolo.data.manifest import Row, fingerprint
from deepfer_yolo.data.splits import assign_folds
from deepfer_yolo.errors import ConfigError


def fold_of(dataset: Dataset, config: TrainConfig) -> Dataset:
    """`dataset` as fold `config.fold` of `config.folds` sees it: all its pictures dealt anew to train, val and test. Nothing is written.

    Raises ConfigError where the groups do not allow it.
    """
    folds, fold = config.folds or 0, config.fold or 0
    if not 1 <= fold <= folds:
        raise ConfigError(f"fold: there is no fold {fold} of {folds}", "name one from 1 to the number of folds")
    parts = deal(dataset, config)
    role = {fold: "test", fold % folds + 1: "val"}
    dealt = tuple(replace(row, split=role.get(part, "train")) for row, part in zip(dataset.all_rows, parts, strict=True))
    return replace(dataset, all_rows=dealt, fingerprint=fingerprint(dealt))


def deal(dataset: Dataset, config: TrainConfig) -> list[int]:
    """The fold of each picture, from 1: labels stratified, no group in two folds."""
    return assign_folds([row.label for row in dataset.all_rows], groups_of(dataset, config.group_by), config.folds or 0, config.seed)


def groups_of(dataset: Dataset, group_by: str) -> NDArray[np.int64]:
    """A group number for each picture, int64 (n,): what must stay in one fold. Raises ConfigError where `subject` is asked for and unknown.

    `auto` keeps subjects together where they are known, and copies for the others.
    """
    rows = dataset.all_rows
    if group_by == "none":
        return np.arange(len(rows))
    without = [index for index, row in enumerate(rows) if not row.subject]
    if group_by == "subject" and without:
        raise ConfigError(
            f"--group-by subject: {len(without):,} of {len(rows):,} pictures of {dataset.root} have no subject, such as {rows[without[0]].path}",
            "--group-by duplicate keeps copies together; auto keeps subjects together where they are known, and copies elsewhere",
        )
    if group_by == "duplicate":
        without = list(range(len(rows)))
    names = {} if group_by == "duplicate" else {name: number for number, name in enumerate(sorted({row.subject for row in rows if row.subject}))}
    result = np.array([names.get(row.subject, -1) for row in rows], np.int64)
    if without:
        result[without] = len(names) + _copies(dataset, [rows[index] for index in without])
    return result


def _copies(dataset: Dataset, rows: list[Row]) -> NDArray[np.int64]:
    """A number for each of `rows`, the same for exact and near copies."""
    first: dict[str, int] = {}
    same = [(first.setdefault(row.sha256, index), index) for index, row in enumerate(rows) if row.sha256]
    exact = np.array([pair for pair in same if pair[0] != pair[1]], np.int64).reshape(-1, 2)
    thumbs = np.stack([thumbnail(image) for image in load_images(dataset, rows)])
    return group(len(rows), np.concatenate([exact, near_pairs(thumbs)]))
