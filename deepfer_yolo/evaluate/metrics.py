"""Point estimates, every number a plain float with a key of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import DatasetError, ModelError
from deepfer_yolo.records import SUM_TOLERANCE

N_BINS = 15
"""Bins of equal width over the confidence, as in Guo et al. 2017."""


class Reliability(NamedTuple):
    """One number a bin: pictures in it, their mean confidence, and the share that is right (0 where the bin is empty)."""

    n: Ints
    confidence: Floats
    accuracy: Floats


def reliability(probs: Floats, targets: Ints, n_bins: int = N_BINS) -> Reliability:
    """The reliability diagram of the top prediction; bin i holds confidences in (i/n, (i+1)/n]."""
    confidence = probs.max(1)
    right = (probs.argmax(1) == targets).astype(np.float64)
    place = _bin_of(confidence, n_bins)
    count = np.bincount(place, minlength=n_bins)
    some = np.maximum(count, 1)
    return Reliability(
        count.astype(np.int64),
        np.bincount(place, confidence, minlength=n_bins) / some,
        np.bincount(place, right, minlength=n_bins) / some,
    )


def ece(bins: Reliability) -> float:
    """Expected calibration error: |accuracy - confidence| averaged over the pictures."""
    return float((bins.n * np.abs(bins.accuracy - bins.confidence)).sum() / bins.n.sum())


def noise_floor(probs: Floats, n_bins: int = N_BINS, replicates: int = 500, seed: int = 0) -> float:
    """The mean ECE that a perfectly calibrated model with these confidences would show on this many pictures.

    ECE is biased upwards at small n, so that it has no honest interval; this is what to compare it with.
    """
    confidence = probs.max(1)
    place = _bin_of(confidence, n_bins)
    total = np.bincount(place, confidence, minlength=n_bins)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        right = rng.random(len(confidence)) < confidence
        values.append(np.abs(np.bincount(place, right, minlength=n_bins) - total).sum() / len(confidence))
    return float(np.mean(values))


def _bin_of(confidence: Floats, n_bins: int) -> Ints:
    return np.asarray(np.clip(np.ceil(confidence * n_bins) - 1, 0, n_bins - 1), np.int64)


Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = Ints | Floats
"""Whole numbers of pictures, or sums of their weights in a resample."""

COVERAGES = (0.9, 0.8, 0.7, 0.5)
"""Shares of the pictures, most confident first, on which accuracy is also given."""


def evaluate(
    probs: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], labels: Sequence[str]
) -> dict[str, Any]:
    """Every metric of `probs` (n, C) against `targets` (n,), indices into `labels` (C); all values are JSON-ready,
    shares lie in 0..1.

    Macro averages and balanced accuracy are over the classes that occur in `targets`; the others are listed under
    `absent`, and predicting them still counts as a mistake. `brier` is the sum over classes, 0..2. Raises ModelError
    for NaN or rows that do not sum to 1, and DatasetError for no pictures.
    """
    p, y = check_scores(probs, targets, labels)
    predicted = p.argmax(1)
    confusion = confusion_matrix(predicted, y, len(labels))
    support = confusion.sum(1)
    scores = class_scores(support, confusion.sum(0), confusion.diagonal())
    result: dict[str, Any] = {"n": len(y), **{f"top{k}": top_k(p, y, k) for k in (1, 2, 5)}}
    result |= {f"macro_{name}": float(macro(values)) for name, values in scores._asdict().items()}
    result |= {f"weighted_{name}": float(weighted(values, support)) for name, values in scores._asdict().items()}
    # Balanced accuracy is macro recall by definition (Brodersen et al. 2010).
    result["balanced_accuracy"] = result["macro_recall"]
    result["nll"] = float(nll_of(p, y).mean())
    result["brier"] = float(brier_of(p, y).mean())
    bins = reliability(p, y)
    result["ece"] = ece(bins)
    result["ece_noise_floor"] = noise_floor(p)
    result["ece_bins"] = N_BINS
    result["selective_accuracy"] = {coverage_key(share): value for share, value in selective_accuracy(p, y).items()}
    result["per_class"] = {
        label: {
            "precision": float(np.nan_to_num(scores.precision[c])),
            "recall": float(scores.recall[c]) if support[c] else None,
            "f1": float(scores.f1[c]) if support[c] else None,
            "support": int(support[c]),
        }
        for c, label in enumerate(labels)
    }
    result["confusion"] = confusion.tolist()
    result["confusion_normalised"] = (confusion / np.maximum(support, 1)[:, None]).tolist()
    result["labels"] = list(labels)
    result["absent"] = [label for c, label in enumerate(labels) if not support[c]]
    result["reliability"] = {key: values.tolist() for key, values in bins._asdict().items()}
    return result


class ClassScores(NamedTuple):
    """Precision, recall and F1 of each class, (..., C); NaN where a class does not occur."""

    precision: Floats
    recall: Floats
    f1: Floats


def class_scores(support: Counts, predicted: Counts, right: Counts) -> ClassScores:
    """The scores of each class from how many pictures are of it, were predicted as it, and both, (..., C) each.

    A class that occurs and is never predicted has a precision and an F1 of 0.
    """
    there = support > 0
    precision, recall = right / np.maximum(predicted, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + predicted, 1)
    return ClassScores(*(np.where(there, score, np.nan) for score in (precision, recall, f1)))


def macro(scores: Floats) -> Floats:
    """The mean over the classes that occur, (...)."""
    return np.asarray(np.nanmean(scores, -1))


def weighted(scores: Floats, support: Counts) -> Floats:
    """The mean over the classes, each counting by how often it occurs, (...)."""
    return np.asarray(np.nansum(scores * support, -1) / support.sum(-1))


def macro_f1(confusion: Ints) -> float:
    """Macro-F1 of a confusion matrix (C, C)."""
    return float(macro(class_scores(confusion.sum(1), confusion.sum(0), confusion.diagonal()).f1))


def confusion_matrix(predicted: Ints, targets: Ints, n_classes: int) -> Ints:
    """Counts, int64 (C, C): rows are the labels, columns the predictions."""
    counts = np.bincount(targets * n_classes + predicted, minlength=n_classes * n_classes)
    return np.asarray(counts.reshape(n_classes, n_classes), np.int64)


def coverage_key(share: float) -> str:
    """``80%`` for 0.8, as the metrics name a coverage."""
    return f"{share:.0%}"


def check_scores(
    probs: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    labels: Sequence[str],
    names: Sequence[str] | None = None,
) -> tuple[Floats, Ints]:
    """`probs` in float64 with rows that sum to 1 exactly, and `targets`; see `evaluate` for what is refused.

    `names` are the pictures'.
    """
    if len(targets) == 0:
        raise DatasetError("there are no pictures to evaluate", "choose another --split, or convert the data set again")
    if probs.shape != (len(targets), len(labels)):
        raise ValueError(f"probs must have shape ({len(targets)}, {len(labels)}), not {probs.shape}")
    y = np.asarray(targets, np.int64)
    if y.min() < 0 or y.max() >= len(labels):
        raise ValueError(f"targets must lie in 0..{len(labels) - 1}")
    p = np.asarray(probs, np.float64)
    sums = p.sum(1)
    # `not <=` and not `>`: a NaN must end here.
    bad = np.flatnonzero(~(np.abs(sums - 1) <= SUM_TOLERANCE) | (p.min(1) < 0))
    if len(bad):
        first = int(bad[0])
        where = f" (first: {names[first]})" if names is not None else f" (first: row {first})"
        raise ModelError(
            f"no probabilities for {len(bad)} of {len(y)} pictures{where}: {np.round(p[first], 3).tolist()}",
            "prove the model's file with: deepfer verify MODEL",
        )
    return p / sums[:, None], y


def top_k(probs: Floats, targets: Ints, k: int) -> float:
    """The share of pictures whose label is among the `k` most probable; ties go to the lower index, as in
    `Prediction.top`.
    """
    return float((rank_of_target(probs, targets) < k).mean())


def rank_of_target(probs: Floats, targets: Ints) -> Ints:
    """How many labels stand before the true one, int64 (n,): 0 where the prediction is right."""
    order = np.argsort(-probs, axis=1, kind="stable")
    return np.asarray((order == targets[:, None]).argmax(1), np.int64)


def nll_of(probs: Floats, targets: Ints) -> Floats:
    """Negative log-likelihood of each picture in nats, (n,); clipped as scikit-learn does, so that a zero stays finite."""
    chosen = probs[np.arange(len(targets)), targets]
    return np.asarray(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1)), np.float64)


def brier_of(probs: Floats, targets: Ints) -> Floats:
    """Brier score of each picture, (n,): squared differences summed over the classes, 0..2 (Brier 1950)."""
    truth = np.zeros_like(probs)
    truth[np.arange(len(targets)), targets] = 1
    return np.asarray(((probs - truth) ** 2).sum(1), np.float64)


def selective_accuracy(probs: Floats, targets: Ints, coverages: Sequence[float] = COVERAGES) -> dict[float, float]:
    """Accuracy on the most confident share of the pictures, for each coverage; what a threshold on confidence buys."""
    right = probs.argmax(1) == targets
    return {share: float(right[surest(probs, share)].mean()) for share in coverages}


def surest(probs: Floats, share: float) -> Ints:
    """The rows of the most confident `share` of the pictures, the surest first; one at least."""
    order = np.argsort(-probs.max(1), kind="stable")
    return np.asarray(order[: max(1, round(share * len(order)))], np.int64)
