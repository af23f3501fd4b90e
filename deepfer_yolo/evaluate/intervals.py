"""How far chance reaches: bootstrap intervals, exact tests, and corrections for asking several questions at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import explained_imports
from deepfer_yolo.evaluate.metrics import (
    COVERAGES,
    brier_of,
    class_scores,
    coverage_key,
    macro,
    nll_of,
    rank_of_target,
    surest,
    weighted,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = tuple[float, float]

CONFIDENCE = 0.95
REPLICATES = 2000
NEAR_THRESHOLD = 0.05
"""Share of the pictures on each side of a confidence threshold that count as near it."""
CARD_METRICS = ("top1", "macro_f1", "balanced_accuracy", "nll")
_CELLS = 8_000_000
"""Weights held at once while resampling: 64 MB."""


def rows_of(probs: Floats, targets: Ints) -> Floats:
    """What every headline metric can be computed from, once summed over pictures: float64 (n, 3C + 5).

    Columns: is of class c, predicted as c, both (C each); one; in the top 2; in the top 5; NLL; Brier.
    """
    identity = np.eye(probs.shape[1])
    truth, guess = identity[targets], identity[probs.argmax(1)]
    rank = rank_of_target(probs, targets)
    rest = [np.ones(len(targets)), rank < 2, rank < 5, nll_of(probs, targets), brier_of(probs, targets)]
    return np.concatenate([truth, guess, truth * guess, np.stack(rest, 1).astype(np.float64)], axis=1)


def headline(sums: Floats) -> dict[str, Floats]:
    """The headline metrics of (..., 3C + 5) sums of `rows_of`; per-class ones are (..., C), NaN where a class does not
    occur.
    """
    n_classes = (sums.shape[-1] - 5) // 3
    support, guessed, right = (sums[..., i * n_classes : (i + 1) * n_classes] for i in range(3))
    n, top2, top5, nll, brier = (sums[..., 3 * n_classes + i] for i in range(5))
    scores = class_scores(support, guessed, right)
    result = {"top1": right.sum(-1) / n, "top2": top2 / n, "top5": top5 / n}
    for name, values in scores._asdict().items():
        result |= {f"macro_{name}": macro(values), f"weighted_{name}": weighted(values, support)}
    result |= {"balanced_accuracy": result["macro_recall"], "nll": nll / n, "brier": brier / n}
    return result | {f"class_{name}": values for name, values in scores._asdict().items()}


def replicate_sums(
    rows: Floats, strata: Ints, clusters: Ints | None = None, replicates: int = REPLICATES, seed: int = 0
) -> Floats:
    """Sums of `rows` (n, k) over `replicates` resamples, float64 (replicates, k).

    Pictures are drawn again within each stratum, which keeps the class counts of the split; with `clusters` (n,) whole
    clusters (subjects) are drawn instead, since pictures of one person are not independent (Davison & Hinkley 1997,
    3.8).
    """
    rng = np.random.default_rng(seed)
    if clusters is not None:
        _, place = np.unique(clusters, return_inverse=True)
        together = np.zeros((int(place.max()) + 1, rows.shape[1]))
        np.add.at(together, place, rows)
        return _resample(together, replicates, rng)
    total = np.zeros((replicates, rows.shape[1]))
    for stratum in np.unique(strata):
        total += _resample(rows[strata == stratum], replicates, rng)
    return total


def _resample(rows: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Sums over resamples of all rows.

    One row fewer than there are is drawn, and each counts n / (n - 1): plain resampling makes intervals of small
    classes too short by that factor in the variance (Rao & Wu 1988).
    """
    n = len(rows)
    m = max(1, n - 1)
    step = max(1, _CELLS // n)
    sums = []
    for start in range(0, replicates, step):
        count = min(step, replicates - start)
        drawn = rng.integers(0, n, (count, m), dtype=np.int64) + n * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        sums.append((n / m) * (weights.astype(np.float64) @ rows))
    return np.concatenate(sums)


def percentiles(replicates: Floats, confidence: float = CONFIDENCE) -> Floats:
    """The percentile interval along axis 0, (2, ...); NaN where every replicate is."""
    tail = 50 * (1 - confidence)
    empty = np.isnan(replicates).all(0)
    low_high = np.nanpercentile(np.where(empty, 0, replicates), [tail, 100 - tail], axis=0)
    return np.asarray(np.where(empty, np.nan, low_high), np.float64)


def intervals(
    probs: Floats, targets: Ints, subjects: Sequence[str] | None = None, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Any]:
    """95 % intervals of every headline metric: {name: [low, high]}, per-class ones {name: [[low, high], …]}, and
    `selective_accuracy` as {"90%": [low, high], …}.

    Where no resample differs (all right, all wrong) the bootstrap is blind, and the exact binomial interval stands in.
    """
    clusters = cluster_ids(subjects) if subjects is not None else None
    rows, kept = rows_of(probs, targets), selective_rows(probs, targets)
    width = rows.shape[1]
    sums = replicate_sums(np.concatenate([rows, kept], axis=1), targets, clusters, replicates, seed)
    support = np.bincount(targets, minlength=probs.shape[1])
    found: dict[str, Any] = {}
    for name, values in headline(sums[:, :width]).items():
        low, high = percentiles(values)
        if values.ndim == 1:
            found[name] = list(_widen(float(low), float(high), len(targets), name))
        else:
            found[name] = [
                list(_widen(float(a), float(b), int(n), name)) for a, b, n in zip(low, high, support, strict=True)
            ]
    low, high = percentiles(np.round(sums[:, width:] / len(targets), 12))
    spans = zip(COVERAGES, low, high, strict=True)
    found["selective_accuracy"] = {
        coverage_key(share): list(_widen(float(a), float(b), len(surest(probs, share)), "top1"))
        for share, a, b in spans
    }
    return found


def card_intervals(probs: Floats, targets: Ints, subjects: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Those of `intervals` that a model card has room for: [low, high] of each metric in CARD_METRICS."""
    found = intervals(probs, targets, subjects)
    return {name: found[name] for name in CARD_METRICS}


def selective_rows(probs: Floats, targets: Ints) -> Floats:
    """What the accuracy on the surest pictures is the mean of, for each of COVERAGES, float64 (n, 4).

    A resample has a threshold of its own. Its effect is linearised: a picture more above the old threshold pushes one
    out that is right as often as those near it (the influence function of a trimmed mean, Huber 1981, 3.3). Without
    that term 93 % are covered where 95 belong.
    """
    n = len(targets)
    right = (probs.argmax(1) == targets).astype(np.float64)
    order = surest(probs, 1.0)
    columns = []
    for share in COVERAGES:
        cut, reach = len(surest(probs, share)), max(1, round(NEAR_THRESHOLD * n))
        near = right[order[max(0, cut - reach) : cut + reach]].mean()
        kept = np.zeros(n)
        kept[order[:cut]] = 1
        columns.append(near + kept * (right - near) * n / cut)
    return np.stack(columns, axis=1)


def _widen(low: float, high: float, n: int, name: str) -> Interval:
    if low == high and low in (0.0, 1.0) and n > 0 and name not in {"nll", "brier"}:
        return clopper_pearson(round(low * n), n)
    return low, high


def cluster_ids(subjects: Sequence[str]) -> Ints | None:
    """Subjects as integers, each picture without one a subject of its own; None where no picture has one."""
    if not any(subjects):
        return None
    names = [subject or f"\0{i}" for i, subject in enumerate(subjects)]
    return np.asarray(np.unique(names, return_inverse=True)[1], np.int64)


def clopper_pearson(k: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The exact two-sided interval of a proportion (Clopper & Pearson 1934)."""
    found = _stats().binomtest(k, n).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def _stats() -> Any:
    with explained_imports():
        from scipy import stats
    return stats
