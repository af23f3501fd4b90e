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
from deepfer_yolo.data.duplicates import alike, group, near_pairs, thumbnail
from deepfer_yolo.data.manifest import fingerprint
from deepfer_yolo.data.problems import printable
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

    `auto` keeps together the pictures of a subject, and copies, exact or near, whoever is on them.
    """
    rows = dataset.all_rows
    without = [row.path for row in rows if not row.subject]
    if group_by == "subject" and without:
        raise ConfigError(
            f"--group-by subject: {len(without):,} of {len(rows):,} pictures of {dataset.root} have no subject, such as {printable(without[0])}",
            "--group-by duplicate keeps copies together; auto keeps subjects together where they are known, and copies",
        )
    pairs = [np.empty((0, 2), np.int64)]
    if group_by in {"auto", "subject"}:
        pairs.append(alike([row.subject for row in rows]))
    if group_by in {"auto", "duplicate"}:
        thumbs = np.stack([thumbnail(image) for image in load_images(dataset, rows)])
        pairs += [alike([row.sha256 for row in rows]), near_pairs(thumbs)]
    return group(len(rows), np.concatenate(pairs))
