"""Splits for sources that have none: shares, stratified by label, and groups never torn apart (scikit-learn's
StratifiedGroupKFold).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import SPLITS
from deepfer_yolo.errors import ConfigError, MissingDependencyError

DEFAULT = "train=0.8,val=0.1,test=0.1"
MOST_FOLDS = 50


def parse_shares(text: str) -> dict[str, float]:
    """`train=0.8,val=0.1,test=0.1` as shares that sum to 1. Raises ConfigError that says what is wrong."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        split, _, share = part.strip().partition("=")
        if split not in SPLITS or split in shares:
            raise ConfigError(
                f"--split: '{part.strip()}' is not a split and its share", f"such as {DEFAULT}, or official, or as-is"
            )
        try:
            shares[split] = float(share)
        except ValueError:
            raise ConfigError(
                f"--split: the share of {split} is '{share}', not a number", f"such as {DEFAULT}"
            ) from None
        if not 0 < shares[split] < 1:
            raise ConfigError(f"--split: the share of {split} is {share}, not between 0 and 1", f"such as {DEFAULT}")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"--split: the shares of {text} sum to {sum(shares.values()):g}, not 1", f"such as {DEFAULT}")
    return shares


def assign_splits(labels: Sequence[str], groups: NDArray[np.int64], shares: dict[str, float], seed: int) -> list[str]:
    """A split for each picture: shares as near as whole folds allow (2 % at worst), labels stratified, no group in two
    splits.

    Raises ConfigError where there are too few groups.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ModuleNotFoundError:
        raise MissingDependencyError.for_extra("eval", "sklearn") from None
    n_groups = len(np.unique(groups))
    folds, per_split = _folds(shares, n_groups)
    if folds < 2 or min(per_split.values()) < 1:
        raise ConfigError(
            f"{n_groups} groups of pictures cannot be divided into {', '.join(shares)}",
            "fewer splits, or another --group-by",
        )
    result = np.array([max(shares, key=lambda split: shares[split])] * len(labels), dtype=object)
    order = [split for split in shares for _ in range(per_split[split])]
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a class smaller than the number of folds; absent labels are reported by convert
        for split, (_, members) in zip(
            order, splitter.split(np.zeros(len(labels)), np.asarray(labels), groups), strict=True
        ):
            result[members] = split
    return [str(split) for split in result]


def assign_folds(labels: Sequence[str], groups: NDArray[np.int64], folds: int, seed: int) -> list[int]:
    """A fold from 1 to `folds` for each picture, labels stratified, no group in two folds.

    Raises ConfigError where there are too few groups.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ModuleNotFoundError:
        raise MissingDependencyError.for_extra("eval", "sklearn") from None
    n_groups = len(np.unique(groups))
    if n_groups < folds:
        raise ConfigError(
            f"{n_groups} groups of pictures cannot be divided into {folds} folds", "fewer folds, or another --group-by"
        )
    result = np.zeros(len(labels), np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a class smaller than the number of folds: train is checked for it later
        for number, (_, members) in enumerate(splitter.split(np.zeros(len(labels)), np.asarray(labels), groups), 1):
            result[members] = number
    return [int(number) for number in result]


def _folds(shares: dict[str, float], n_groups: int) -> tuple[int, dict[str, int]]:
    """The fewest equal folds that make the shares within 1 %, or the best that there are groups for, and how many each
    split gets.
    """
    best: tuple[float, int, dict[str, int]] = (9.0, 0, dict.fromkeys(shares, 0))
    for folds in range(2, min(MOST_FOLDS, n_groups) + 1):
        parts = {split: max(1, round(share * folds)) for split, share in shares.items()}
        largest = max(parts, key=lambda split: parts[split])
        parts[largest] += folds - sum(parts.values())
        error = max(abs(parts[split] / folds - share) for split, share in shares.items())
        if min(parts.values()) >= 1 and error < best[0] - 1e-9:
            best = (error, folds, parts)
        if error <= 0.01:
            break
    return best[1], best[2]
