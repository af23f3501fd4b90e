"""Parts of a split, and other opinions about its labels: groups, images without a copy in train, and FER+ votes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import COLUMNS, Dataset
from deepfer_yolo.data.ferplus import clear_winner, parse_votes
from deepfer_yolo.errors import ConfigError, DatasetError, did_you_mean
from deepfer_yolo.evaluate.intervals import Interval, clopper_pearson
from deepfer_yolo.evaluate.metrics import headline
from deepfer_yolo.evaluate.predictions import Scores

MAX_GROUPS = 1000


@dataclass(frozen=True, slots=True)
class Group:
    """The images that share a value of a manifest column: top-1 with its exact interval, and macro F1."""

    value: str
    n: int
    top1: float
    interval: Interval
    macro_f1: float


@dataclass(frozen=True, slots=True)
class Votes:
    """How a model agrees with the ten FER+ votes per image (Barsoum et al. 2016), over the `n` images with votes for a
    known label.

    `majority_top1` is over the `n_clear` images with one clear majority (NaN without any), `vote_share` the mean share
    of votes for the answer, `cross_entropy` against the distribution of votes; `label_…` are of the data set's own
    label.
    """

    n: int
    n_clear: int
    majority_top1: float
    majority_interval: Interval
    vote_share: float
    cross_entropy: float
    label_majority_top1: float
    label_vote_share: float


def take(scores: Scores, keep: Sequence[int] | NDArray[np.int64]) -> Scores:
    """The rows `keep` of `scores`."""
    indices = np.asarray(keep, np.int64)
    rows = tuple(scores.rows[i] for i in indices)
    return replace(scores, rows=rows, targets=scores.targets[indices], probs=scores.probs[indices])


def without(scores: Scores, paths: Collection[str]) -> Scores:
    """`scores` without the images at `paths`. Raises DatasetError where nothing is left."""
    keep = [i for i, row in enumerate(scores.rows) if row.path not in paths]
    if not keep:
        raise DatasetError(
            "every image of this split has a copy in train: nothing is left to measure on",
            "convert the data with another split",
        )
    return take(scores, keep)


def relabelled(scores: Scores, dataset: Dataset) -> Scores:
    """`scores` under the labels that the same images have in `dataset`, without those that it left out, and those whose
    label is none that is scored.
    """
    now = {row.path: row for row in dataset.all_rows}
    rows = [now.get(row.path) for row in scores.rows]
    keep = [i for i, row in enumerate(rows) if row is not None and row.label in scores.labels]
    if not keep:
        raise DatasetError(f"{dataset.root}: every image of this split was left out", "review it again")
    there = tuple(row for row in (rows[i] for i in keep) if row is not None)
    targets = np.array([scores.labels.index(row.label) for row in there], np.int64)
    return replace(take(scores, keep), rows=there, targets=targets)


def by_column(scores: Scores, column: str) -> list[Group]:
    """One group per value of a manifest column, the largest first.

    Raises ConfigError for a column that the manifest does not have, or that tells nearly every image apart.
    """
    check_column(column)
    members: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(scores.rows):
        members[getattr(row, column)].append(i)
    if len(members) > MAX_GROUPS:
        raise ConfigError(
            f"column '{column}' has {len(members):,} different values: too many groups",
            "choose a column such as subject or label",
        )
    groups = []
    for value, rows in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        summed = take(scores, rows).summed()
        right, n = int(summed.right.sum()), len(rows)
        groups.append(Group(value, n, right / n, clopper_pearson(right, n), float(headline(summed).macro_f1)))
    return groups


def check_column(column: str) -> None:
    """Raise ConfigError for a column that no manifest has."""
    if column not in COLUMNS:
        hint = f"columns: {', '.join(COLUMNS)}"
        raise ConfigError(f"the manifest has no column '{column}'{did_you_mean(column, COLUMNS)}", hint)


def vote_counts(scores: Scores) -> NDArray[np.float64]:
    """FER+ votes for each of the labels, (n, C); zeros where the manifest has none."""
    votes = np.zeros((len(scores.rows), len(scores.labels)))
    for i, row in enumerate(scores.rows):
        for label, count in parse_votes(row.votes).items():
            if label in scores.labels:
                votes[i, scores.labels.index(label)] = count
    return votes


def clear_majorities(scores: Scores) -> NDArray[np.int64]:
    """The index of the clear winner of each image's votes, (n,); -1 where there is none, or none among the labels."""
    winners = [clear_winner(parse_votes(row.votes)) if row.votes else None for row in scores.rows]
    index = {label: number for number, label in enumerate(scores.labels)}
    return np.array([index.get(str(winner), -1) for winner in winners], np.int64)


def vote_scores(scores: Scores) -> Votes | None:
    """The agreement with the votes; None where the manifest has no votes."""
    votes, majorities = vote_counts(scores), clear_majorities(scores)
    some = np.flatnonzero(votes.sum(1) > 0)
    if len(some) == 0:
        return None
    shares, most = votes[some] / votes[some].sum(1, keepdims=True), majorities[some]
    probs, targets = take(scores, some).checked()
    answers, each = probs.argmax(1), np.arange(len(some))
    clear = most >= 0
    n_clear = int(clear.sum())
    as_most, label_as_most = (answers == most)[clear], (targets == most)[clear]
    return Votes(
        n=len(some),
        n_clear=n_clear,
        majority_top1=float(as_most.mean()) if n_clear else np.nan,
        majority_interval=clopper_pearson(int(as_most.sum()), n_clear) if n_clear else Interval(np.nan, np.nan),
        vote_share=float(shares[each, answers].mean()),
        cross_entropy=float(-(shares * np.log(np.clip(probs, np.finfo(np.float64).eps, 1))).sum(1).mean()),
        label_majority_top1=float(label_as_most.mean()) if n_clear else np.nan,
        label_vote_share=float(shares[each, targets].mean()),
    )
