"""Does a confidence of 70 % come true seven times in ten? Reliability, expected calibration error and its noise floor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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
