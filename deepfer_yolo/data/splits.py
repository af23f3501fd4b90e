"""New splits and folds: stratified by label, groups never torn apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import SPLITS, Row
from deepfer_yolo.data.duplicates import alike, group, near_pairs
from deepfer_yolo.data.near_candidates import Thumbs
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import ConfigError

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


def groups_of(rows: Sequence[Row], group_by: str, thumbs: Callable[[], Thumbs] | None) -> NDArray[np.int64]:
    """A group number for each image, int64 (n,): what must stay in one split or fold. `thumbs` gives their thumbnails;
    without it near copies count as other images.

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
        pairs += [alike([row.sha256 for row in rows]), *([near_pairs(thumbs())] if thumbs else [])]
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
    """Images of the label that has most: with more folds than that, some would lack each label."""
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
    """A fold from 0 for each image. Groups of several images go, the most lopsided first, where they leave the labels
    most evenly spread (as scikit-learn's StratifiedGroupKFold does); single images then level each label.
    """
    random = np.random.default_rng(seed)
    label_of = np.unique(labels, return_inverse=True)[1]
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n_labels = int(label_of.max()) + 1
    place = np.cumsum(sizes > 1) - 1
    in_group = np.flatnonzero(sizes[group_of] > 1)
    content = np.zeros((int((sizes > 1).sum()), n_labels), np.int64)
    np.add.at(content, (place[group_of[in_group]], label_of[in_group]), 1)
    fold_of_group, filled = _spread(content, np.bincount(label_of, minlength=n_labels), folds, random)
    result = np.empty(len(labels), np.int64)
    result[in_group] = fold_of_group[place[group_of[in_group]]]
    for label in range(n_labels):
        single = random.permutation(np.flatnonzero((label_of == label) & (sizes[group_of] == 1)))
        more = _levelling(filled[:, label], filled.sum(axis=1), len(single))
        result[single] = np.repeat(np.arange(folds), more)
        filled[:, label] += more
    return [int(fold) for fold in result]


def _spread(
    content: NDArray[np.int64], totals: NDArray[np.int64], folds: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A fold for each group, whose images by label are `content` (m, labels); and what is then in each (folds, labels).

    Of the folds that spread the labels equally well, the one with the fewest images takes a group.
    """
    result, filled = np.zeros(len(content), np.int64), np.zeros((folds, len(totals)), np.int64)
    order = random.permutation(len(content))
    own = np.eye(folds)[:, :, None]
    for number in order[np.argsort(-content.std(axis=1)[order], kind="stable")]:
        has = np.flatnonzero(content[number])
        shares = (filled[:, has] + own * content[number, has]) / totals[has]
        before = (filled[:, has] / totals[has]).std(axis=0).sum()
        uneven = np.round(shares.std(axis=1).sum(axis=1) - before, 12)
        fold = np.lexsort((filled.sum(axis=1), uneven))[0]
        result[number] = fold
        filled[fold] += content[number]
    return result, filled


def _levelling(filled: NDArray[np.int64], sizes: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How many of `n` images of a label each fold takes, so that all have equally many of it where that can be; the odd
    ones go to the smallest folds.
    """
    order = np.lexsort((sizes, filled))
    lowest = filled[order]
    n_taking = int((lowest * np.arange(1, len(order) + 1) - np.cumsum(lowest) <= n).sum())
    taking = order[:n_taking]
    level, rest = divmod(n + int(filled[taking].sum()), n_taking)
    more = np.zeros_like(filled)
    more[taking] = level - filled[taking]
    more[taking[np.argsort(sizes[taking] + more[taking], kind="stable")[:rest]]] += 1
    return more


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
