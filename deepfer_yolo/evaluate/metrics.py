"""Point estimates from probabilities and labels: every figure is a field of a record, addressed by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepfer_yolo.errors import DatasetError, ModelError
from deepfer_yolo.records import SUM_TOLERANCE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
T = TypeVar("T")

N_BINS = 15
"""Bins of equal width over the confidence, as in Guo et al. 2017."""
NOT_SHARES = {"nll": "NLL (nats)", "brier": "Brier score (0–2)"}
"""The headline metrics that are no shares of 1, as the tables call them."""
COVERAGES = (0.9, 0.8, 0.7, 0.5)
"""Shares of the images, most confident first, on which accuracy is also given."""


@dataclass(frozen=True, slots=True)
class Headline(Generic[T]):
    """The headline metrics: of a split, numbers; over resamples, arrays; and their intervals.

    Macro averages and balanced accuracy are over the classes that occur; predicting one of the others still counts as a
    mistake. `brier` is the sum over classes, 0..2.
    """

    top1: T
    top2: T
    top5: T
    macro_precision: T
    macro_recall: T
    macro_f1: T
    weighted_precision: T
    weighted_recall: T
    weighted_f1: T
    balanced_accuracy: T
    nll: T
    brier: T

    def by_name(self) -> dict[str, T]:
        """The headline metrics alone."""
        return {field.name: getattr(self, field.name) for field in fields(Headline)}


@dataclass(frozen=True, slots=True)
class ClassScores(Generic[T]):
    """Precision, recall and F1: of one class, or arrays (…, C) with NaN where a class does not occur."""

    precision: T
    recall: T
    f1: T


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """One number a bin: images in it, their mean confidence, and the share that is right (0 where the bin is empty)."""

    n: Ints
    confidence: Floats
    accuracy: Floats


class Tally(NamedTuple):
    """What the headline metrics are computed from: by image (n, …), or summed over images or resamples of them.

    Counts of labels, answers and right answers have a last axis of classes; the others are one number each.
    """

    labels: Floats
    answers: Floats
    right: Floats
    n: Floats
    top2: Floats
    top5: Floats
    nll: Floats
    brier: Floats


def check_scores(
    probs: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    labels: Sequence[str],
    names: Sequence[str] | None = None,
) -> tuple[Floats, Ints]:
    """`probs` in float64 with rows that sum to 1 exactly, and `targets`.

    Raises DatasetError for no images, and ModelError for what is no probability; `names` are the images'.
    """
    if len(targets) == 0:
        raise DatasetError("there are no images to evaluate", "choose another --split, or convert the data set again")
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
            f"no probabilities for {len(bad)} of {len(y)} images{where}: {np.round(p[first], 3).tolist()}",
            "prove the model's file with: deepfer verify MODEL",
        )
    return p / sums[:, None], y


def tally(probs: Floats, targets: Ints) -> Tally:
    """What each image adds to the headline metrics."""
    identity = np.eye(probs.shape[1])
    labels, answers = identity[targets], identity[probs.argmax(1)]
    rank = rank_of_target(probs, targets)
    top2, top5 = ((rank < k).astype(np.float64) for k in (2, 5))
    one = np.ones(len(targets))
    return Tally(labels, answers, labels * answers, one, top2, top5, nll_of(probs, targets), brier_of(probs, targets))


def total(by_image: Tally) -> Tally:
    """The sum over images."""
    return Tally(*(part.sum(0) for part in by_image))


def headline(summed: Tally) -> Headline[Floats]:
    """The headline metrics of summed tallies; any axes before the classes are kept."""
    n = summed.n
    classes = class_scores(summed.labels, summed.answers, summed.right)
    share = summed.labels / n[..., None]
    macro = {name: np.nanmean(getattr(classes, name), -1) for name in ("precision", "recall", "f1")}
    weighted = {name: np.nansum(getattr(classes, name) * share, -1) for name in macro}
    return Headline(
        top1=summed.right.sum(-1) / n,
        top2=summed.top2 / n,
        top5=summed.top5 / n,
        **{f"macro_{name}": values for name, values in macro.items()},
        **{f"weighted_{name}": values for name, values in weighted.items()},
        balanced_accuracy=macro["recall"],  # by definition (Brodersen et al. 2010)
        nll=summed.nll / n,
        brier=summed.brier / n,
    )


def class_scores(labels: ArrayLike, answers: ArrayLike, right: ArrayLike) -> ClassScores[Floats]:
    """Precision, recall and F1 from counts of labels, answers and right answers by class, (…, C) each."""
    wanted, given, hits = (np.asarray(counts, np.float64) for counts in (labels, answers, right))
    occurs = np.where(wanted > 0, 1.0, np.nan)
    return ClassScores(
        precision=occurs * hits / np.maximum(given, 1),
        recall=occurs * hits / np.maximum(wanted, 1),
        f1=occurs * 2 * hits / np.maximum(wanted + given, 1),
    )


def macro_f1(confusion: ArrayLike) -> float:
    """Mean F1 over the classes that occur, from a confusion matrix (C, C) whose rows are the labels."""
    counts = np.asarray(confusion)
    return float(np.nanmean(class_scores(counts.sum(1), counts.sum(0), counts.diagonal()).f1))


def confusion_matrix(answers: Ints, targets: Ints, n_classes: int) -> Ints:
    """Counts (C, C): rows are the labels, columns the answers."""
    places = np.bincount(targets * n_classes + answers, minlength=n_classes**2)
    return np.asarray(places.reshape(n_classes, n_classes), np.int64)


def rank_of_target(probs: Floats, targets: Ints) -> Ints:
    """How many labels stand before the true one, int64 (n,); ties go to the lower index, as in `Prediction.top`."""
    order = np.argsort(-probs, axis=1, kind="stable")
    return np.asarray((order == targets[:, None]).argmax(1), np.int64)


def nll_of(probs: Floats, targets: Ints) -> Floats:
    """Negative log-likelihood of each image in nats, (n,); clipped as in scikit-learn, so that a zero stays finite."""
    chosen = probs[np.arange(len(targets)), targets]
    return np.asarray(-np.log(np.clip(chosen, np.finfo(np.float64).eps, 1)), np.float64)


def brier_of(probs: Floats, targets: Ints) -> Floats:
    """Brier score of each image, (n,): squared differences summed over the classes, 0..2 (Brier 1950)."""
    return np.asarray(((probs - np.eye(probs.shape[1])[targets]) ** 2).sum(1), np.float64)


def selective_accuracy(probs: Floats, targets: Ints, coverages: Sequence[float] = COVERAGES) -> dict[float, float]:
    """Accuracy on the most confident share of the images, for each coverage; what a threshold on confidence buys."""
    right = probs.argmax(1) == targets
    return {share: float(right[surest(probs, share)].mean()) for share in coverages}


def surest(probs: Floats, share: float) -> Ints:
    """The rows of the most confident `share` of the images, the surest first; one at least."""
    order = np.argsort(-probs.max(1), kind="stable")
    return np.asarray(order[: max(1, round(share * len(order)))], np.int64)


def coverage_key(share: float) -> str:
    """``80%`` for 0.8, as the metrics name a coverage."""
    return f"{share:.0%}"


def reliability(probs: Floats, targets: Ints) -> Reliability:
    """The reliability diagram of the top prediction; bin i holds confidences in (i/n, (i+1)/n]."""
    confidence = probs.max(1)
    right = (probs.argmax(1) == targets).astype(np.float64)
    place = _bin_of(confidence)
    count = np.bincount(place, minlength=N_BINS).astype(np.int64)
    some = np.maximum(count, 1)
    confidences, rights = (np.bincount(place, values, minlength=N_BINS) / some for values in (confidence, right))
    return Reliability(count, confidences, rights)


def most_confused(confusion: Ints, labels: Sequence[str], n: int = 20) -> list[tuple[str, str, int, float]]:
    """The `n` commonest mistakes: label, answer, images, and their share of the label's images."""
    mistakes = np.where(np.eye(len(labels), dtype=bool), 0, confusion)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:n]
    pairs = [divmod(place, len(labels)) for place in order.tolist() if mistakes.flat[place]]
    return [(labels[i], labels[j], int(mistakes[i, j]), float(mistakes[i, j] / confusion[i].sum())) for i, j in pairs]


def ece(bins: Reliability) -> float:
    """Expected calibration error: |accuracy - confidence| averaged over the images."""
    return float((bins.n * np.abs(bins.accuracy - bins.confidence)).sum() / bins.n.sum())


def noise_floor(probs: Floats) -> float:
    """The mean ECE that a perfectly calibrated model with these confidences would show on this many images.

    ECE is biased upwards at small n, so that it has no honest interval; this is what to compare it with.
    """
    confidence = probs.max(1)
    place = _bin_of(confidence)
    expected = np.bincount(place, confidence, minlength=N_BINS)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(500):
        right = rng.random(len(confidence)) < confidence
        values.append(np.abs(np.bincount(place, right, minlength=N_BINS) - expected).sum() / len(confidence))
    return float(np.mean(values))


def _bin_of(confidence: Floats) -> Ints:
    return np.asarray(np.clip(np.ceil(confidence * N_BINS) - 1, 0, N_BINS - 1), np.int64)
