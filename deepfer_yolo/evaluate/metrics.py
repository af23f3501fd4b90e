"""Point estimates: what scikit-learn knows is computed there, and every number is a plain float with a key of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import DatasetError, MissingDependencyError, ModelError
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
    try:
        from sklearn import metrics as sk
    except ModuleNotFoundError:
        raise MissingDependencyError.for_extra("eval", "sklearn") from None
    predicted = p.argmax(1)
    classes = list(range(len(labels)))
    present = sorted(set(y.tolist()))
    result: dict[str, Any] = {"n": len(y), **{f"top{k}": top_k(p, y, k) for k in (1, 2, 5)}}
    for average in ("macro", "weighted"):
        scores = sk.precision_recall_fscore_support(y, predicted, labels=present, average=average, zero_division=0)
        result |= {
            f"{average}_{name}": float(score)
            for name, score in zip(("precision", "recall", "f1"), scores[:3], strict=True)
        }
    # Balanced accuracy is macro recall by definition (Brodersen et al. 2010); scikit-learn's own function warns about
    # unseen predictions.
    result["balanced_accuracy"] = result["macro_recall"]
    result["nll"] = float(sk.log_loss(y, p, labels=classes))
    result["brier"] = float(brier_of(p, y).mean())
    bins = reliability(p, y)
    result["ece"] = ece(bins)
    result["ece_noise_floor"] = noise_floor(p)
    result["ece_bins"] = N_BINS
    result["selective_accuracy"] = {coverage_key(share): value for share, value in selective_accuracy(p, y).items()}
    columns = sk.precision_recall_fscore_support(y, predicted, labels=classes, zero_division=0)
    result["per_class"] = {
        label: _class_row([float(column[c]) for column in columns]) for c, label in enumerate(labels)
    }
    result["confusion"] = sk.confusion_matrix(y, predicted, labels=classes).tolist()
    result["confusion_normalised"] = sk.confusion_matrix(y, predicted, labels=classes, normalize="true").tolist()
    result["labels"] = list(labels)
    result["absent"] = [label for c, label in enumerate(labels) if c not in present]
    result["reliability"] = {key: values.tolist() for key, values in bins._asdict().items()}
    return result


def coverage_key(share: float) -> str:
    """``80%`` for 0.8, as the metrics name a coverage."""
    return f"{share:.0%}"


def _class_row(values: Sequence[float]) -> dict[str, Any]:
    precision, recall, f1, support = values
    shown = recall if support else None
    return {"precision": precision, "recall": shown, "f1": f1 if support else None, "support": int(support)}


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
