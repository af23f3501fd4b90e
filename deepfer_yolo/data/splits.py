"""New splits and folds: stratified by label, groups never torn apart (scikit-learn's StratifiedGroupKFold)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import SPLITS, Row
from deepfer_yolo.data.duplicates import Thumbs, alike, group, near_pairs
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import ConfigError, explained_imports

DEFAULT = "train=0.8,val=0.1,test=0.1"
MAX_FOLDS = 50


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

    `auto` keeps together the images of a subject, and copies, exact or near, whoever is on them. Raises ConfigError
    where `subject` is asked for and unknown.
    """
    without = [row for row in rows if not row.subject]
    if group_by == "subject" and without:
        name = printable(without[0].source_id or without[0].path)
        reason = f"--group-by subject: {len(without):,} of {len(rows):,} images have no subject, such as {name}"
        hint = (
            "--group-by duplicate keeps copies together; auto keeps subjects together where they are known, and copies"
        )
        raise ConfigError(reason, hint)
    pairs = [np.empty((0, 2), np.int64)]
    if group_by in ("auto", "subject"):
        pairs.append(alike([row.subject for row in rows]))
    if group_by in ("auto", "duplicate"):
        pairs += [alike([row.sha256 for row in rows]), near_pairs(thumbs())]
    return group(len(rows), np.concatenate(pairs))


def assign_splits(labels: Sequence[str], groups: NDArray[np.int64], shares: dict[str, float], seed: int) -> list[str]:
    """A split for each image: shares as near as whole folds allow (2 % at worst), no group in two splits.

    Raises ConfigError where there are too few groups.
    """
    n_groups = len(np.unique(groups))
    folds, per_split = _folds(shares, n_groups)
    if folds < 2 or min(per_split.values()) < 1:
        reason = f"{n_groups} groups of images cannot be divided into {', '.join(shares)}"
        raise ConfigError(reason, "fewer splits, or another --group-by")
    split_of_fold = [split for split in shares for _ in range(per_split[split])]
    return [split_of_fold[fold] for fold in _stratified(labels, groups, folds, seed)]


def assign_folds(labels: Sequence[str], groups: NDArray[np.int64], folds: int, seed: int) -> list[int]:
    """A fold from 1 to `folds` for each image, no group in two folds. Raises ConfigError where there are too few."""
    n_groups = len(np.unique(groups))
    if n_groups < folds:
        reason = f"{n_groups} groups of images cannot be divided into {folds} folds"
        raise ConfigError(reason, "fewer folds, or another --group-by")
    return [fold + 1 for fold in _stratified(labels, groups, folds, seed)]


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


def _folds(shares: dict[str, float], n_groups: int) -> tuple[int, dict[str, int]]:
    """The fewest equal folds that make the shares within 1 %, or the best there are groups for; and each split's."""
    best: tuple[float, int, dict[str, int]] = (9.0, 0, dict.fromkeys(shares, 0))
    for folds in range(2, min(MAX_FOLDS, n_groups) + 1):
        parts = {split: max(1, round(share * folds)) for split, share in shares.items()}
        largest = max(parts, key=lambda split: parts[split])
        parts[largest] += folds - sum(parts.values())
        error = max(abs(parts[split] / folds - share) for split, share in shares.items())
        if min(parts.values()) >= 1 and error < best[0] - 1e-9:
            best = (error, folds, parts)
        if error <= 0.01:
            break
    return best[1], best[2]
