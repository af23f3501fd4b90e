"""Parts of a split, and other opinions about its labels: groups, pictures without a copy in train, and FER+ votes."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import COLUMNS
from deepfer_yolo.data.ferplus import parse_votes
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.evaluate.intervals import clopper_pearson, headline, rows_of
from deepfer_yolo.evaluate.metrics import check_scores
from deepfer_yolo.evaluate.predictions import Scores

MAX_GROUPS = 1000


def take(scores: Scores, keep: Sequence[int] | NDArray[np.int64]) -> Scores:
    """The rows `keep` of `scores`."""
    indices = np.asarray(keep, np.int64)
    rows = tuple(scores.rows[i] for i in indices)
    return replace(scores, rows=rows, targets=scores.targets[indices], probs=scores.probs[indices])


def without(scores: Scores, paths: Collection[str]) -> Scores:
    """`scores` without the pictures at `paths`. Raises DatasetError where nothing is left."""
    keep = [i for i, row in enumerate(scores.rows) if row.path not in paths]
    if not keep:
        raise DatasetError(
            "every picture of this split has a copy in train: nothing is left to measure on",
            "convert the data with another split",
        )
    return take(scores, keep)


def by_column(scores: Scores, column: str) -> list[dict[str, Any]]:
    """One entry a value of a manifest column, largest group first: n, top-1 with its exact interval, macro F1.

    Raises ConfigError for a column that the manifest does not have, or that tells nearly every picture apart.
    """
    if column not in COLUMNS:
        near = difflib.get_close_matches(column, COLUMNS, n=1)
        raise ConfigError(
            f"the manifest has no column '{column}'" + (f" (did you mean '{near[0]}'?)" if near else ""),
            f"columns: {', '.join(COLUMNS)}",
        )
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(scores.rows):
        groups[getattr(row, column)].append(i)
    if len(groups) > MAX_GROUPS:
        raise ConfigError(
            f"column '{column}' has {len(groups):,} different values: too many groups",
            "choose a column such as subject or label",
        )
    table = []
    for value, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        part = take(scores, members)
        probs, targets = check_scores(part.probs, part.targets, part.labels)
        found = headline(rows_of(probs, targets).sum(0))
        right = round(float(found["top1"]) * len(members))
        interval = list(clopper_pearson(right, len(members)))
        table.append(
            {
                "value": value,
                "n": len(members),
                "top1": right / len(members),
                "interval": interval,
                "macro_f1": float(found["macro_f1"]),
            }
        )
    return table


def vote_scores(scores: Scores) -> dict[str, Any] | None:
    """How the model agrees with the ten FER+ votes a picture (Barsoum et al. 2016); None where the manifest has no
    votes.

    Over the pictures with votes for a known label: `majority_top1` on those with one clear majority, `vote_share` (mean
    share of votes for the predicted label), `cross_entropy` against the distribution of votes, and the same figures for
    the data set's own label.
    """
    votes = np.zeros((len(scores.rows), len(scores.labels)))
    for i, row in enumerate(scores.rows):
        for label, count in parse_votes(row.votes).items():
            if label in scores.labels:
                votes[i, scores.labels.index(label)] = count
    some = np.flatnonzero(votes.sum(1) > 0)
    if len(some) == 0:
        return None
    shares = votes[some] / votes[some].sum(1, keepdims=True)
    probs, targets = check_scores(scores.probs[some], scores.targets[some], scores.labels)
    guesses, place = probs.argmax(1), np.arange(len(some))
    ordered = np.sort(shares, axis=1)
    clear = ordered[:, -1] > ordered[:, -2]
    majority = shares.argmax(1)
    entropy = -(shares * np.log(np.clip(probs, np.finfo(np.float64).eps, 1))).sum(1)
    return {
        "n": len(some),
        "n_clear": int(clear.sum()),
        "majority_top1": float((guesses == majority)[clear].mean()) if clear.any() else None,
        "majority_interval": list(clopper_pearson(int((guesses == majority)[clear].sum()), int(clear.sum())))
        if clear.any()
        else [None, None],
        "vote_share": float(shares[place, guesses].mean()),
        "cross_entropy": float(entropy.mean()),
        "label_majority_top1": float((targets == majority)[clear].mean()) if clear.any() else None,
        "label_vote_share": float(shares[place, targets].mean()),
    }
