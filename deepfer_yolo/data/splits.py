"""New splits and folds: stratified by label, groups never torn apart (scikit-learn's StratifiedGroupKFold)."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import SPLITS, Row
from deepfer_yolo.data.duplicates import Thumbs, alike, group, near_pairs
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import ConfigError, explained_imports

DEFAULT = "train=0.8,val=0.1,test=0.1"
MAX_FOLDS = 50
MAX_DEVIATION = 0.05
"""By how much a split's share may differ from what was asked for without a word."""


def parse_shares(text: str) -> dict[str, float]:
    """`train=0.8,val=0.1,test=0.1` as shares. Raises ConfigError where they are none."""
    parts = [part.partition("=") for part in text.split(",")]
    try:
        shares = {split.strip(): float(share) for split, _, share in parts}
    except ValueError:
        shares = {}
    are_known = len(shares) == len(parts) and set(shares) <= set(SPLITS)
    if not are_known or min(shares.values()) <= 0 or len(shares) < 2 or abs(sum(shares.values()) - 1) > 1e-6:
        reason = f"--split: '{text}' must share out 1 among two or all of {', '.join(SPLITS)}, each named once"
        raise ConfigError(reason, f"such as {DEFAULT}, or official, or as-is")
    return shares


def groups_of(rows: Sequence[Row], group_by: str, thumbs: Callable[[], Thumbs]) -> NDArray[np.int64]:
    """A group number for each image, int64 (n,): what must stay in one split or fold. `thumbs` gives their thumbnails.

    All but `none` keep together the faces of one image; `auto` also the images of a subject, and copies, exact or near,
    whoever is on them. Raises ConfigError where `subject` is asked for and unknown.
    """
    without = [row for row in rows if not row.subject]
    if group_by == "subject" and without:
        name = printable(without[0].source_id or without[0].path)
        reason = f"--group-by subject: {len(without):,} of {len(rows):,} images have no subject, such as {name}"
        hint = (
            "--group-by duplicate keeps copies together; auto keeps subjects together where they are known, and copies"
        )
        raise ConfigError(reason, hint)
    pairs = [np.empty((0, 2), np.int64)] if group_by == "none" else [alike([row.image for row in rows])]
    if group_by in ("auto", "subject"):
        pairs.append(alike([row.subject for row in rows]))
    if group_by in ("auto", "duplicate"):
        pairs += [alike([row.sha256 for row in rows]), near_pairs(thumbs())]
    return group(len(rows), np.concatenate(pairs))


def assign_splits(labels: Sequence[str], groups: NDArray[np.int64], shares: dict[str, float], seed: int) -> list[str]:
    """A split for each image: shares as near as whole folds allow (2 % at worst, more where every label has few
    images), no group in two splits, and each label in train, if there is one.

    Raises ConfigError where there are too few groups or images of a label.
    """
    n_groups, largest = len(np.unique(groups)), _largest(labels)
    folds, per_split = _folds(shares, min(n_groups, largest))
    result: list[str] = []
    if folds >= len(shares):
        split_of_fold = [split for split in shares for _ in range(per_split[split])]
        result = [split_of_fold[fold] for fold in _stratified(labels, groups, folds, seed)]
        _fill_train(result, labels, groups)
    if set(result) != set(shares):
        hint = "more images, another --group-by, or fewer splits, such as --split train=0.5,val=0.5"
        raise ConfigError(f"{_most(n_groups, largest)} cannot be divided into {', '.join(shares)}", hint)
    return result


def coarse_note(splits: Sequence[str], shares: dict[str, float]) -> list[str]:
    """What there is to say where the shares came out otherwise than asked for."""
    got = {split: splits.count(split) / len(splits) for split in shares}
    if max(abs(got[split] - share) for split, share in shares.items()) <= MAX_DEVIATION:
        return []
    shown = ", ".join(f"{split} {share:.0%}" for split, share in got.items())
    return [f"so few images or groups do not divide as asked: {shown}"]


def assign_folds(labels: Sequence[str], groups: NDArray[np.int64], folds: int, seed: int) -> list[int]:
    """A fold from 1 to `folds` for each image, no group in two folds. Raises ConfigError where there are too few."""
    n_groups, largest = len(np.unique(groups)), _largest(labels)
    if min(n_groups, largest) < folds:
        most = min(n_groups, largest)
        hint = f"--folds {most} at most" if most > 2 else "cross-validation needs more images"
        raise ConfigError(f"{_most(n_groups, largest)} cannot be divided into {folds} folds", hint)
    return [fold + 1 for fold in _stratified(labels, groups, folds, seed)]


def _most(n_groups: int, largest: int) -> str:
    """What limits the number of folds, in words."""
    if n_groups < largest:
        return f"{n_groups:,} groups of images"
    return "one image a label" if largest == 1 else f"{largest:,} images of the largest label"


def _largest(labels: Sequence[str]) -> int:
    """Images of the label that has most: what StratifiedGroupKFold can make folds of."""
    return max(Counter(labels).values(), default=0)


def _fill_train(splits: list[str], labels: Sequence[str], groups: NDArray[np.int64]) -> None:
    """Give train one group of each label that it lacks: what is never learned cannot be held out."""
    if "train" not in splits:
        return
    for label in sorted(set(labels) - {label for label, split in zip(labels, splits, strict=True) if split == "train"}):
        group = groups[labels.index(label)]
        for index in np.flatnonzero(groups == group).tolist():
            splits[index] = "train"


def _stratified(labels: Sequence[str], groups: NDArray[np.int64], folds: int, seed: int) -> list[int]:
    """A fold from 0 for each image."""
    with explained_imports():
        from sklearn.model_selection import StratifiedGroupKFold
    result = np.zeros(len(labels), np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class smaller than the number of folds: absent labels are reported by convert, and checked by train.
        warnings.simplefilter("ignore", UserWarning)
        for fold, (_, members) in enumerate(splitter.split(np.zeros(len(labels)), np.asarray(labels), groups)):
            result[members] = fold
    return [int(fold) for fold in result]


def _folds(shares: dict[str, float], most: int) -> tuple[int, dict[str, int]]:
    """The fewest equal folds that make the shares within 1 %, or the best of `most`; and each split's."""
    best: tuple[float, int, dict[str, int]] = (9.0, 0, dict.fromkeys(shares, 0))
    for folds in range(2, min(MAX_FOLDS, most) + 1):
        parts = {split: max(1, round(share * folds)) for split, share in shares.items()}
        largest = max(parts, key=lambda split: parts[split])
        parts[largest] += folds - sum(parts.values())
        error = max(abs(parts[split] / folds - share) for split, share in shares.items())
        if min(parts.values()) >= 1 and error < best[0] - 1e-9:
            best = (error, folds, parts)
        if error <= 0.01:
            break
    return best[1], best[2]
