"""What best.pt gives on the validation split, and the temperature that makes its confidence honest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)
from numpy.typing import NDArray

from deepfer_yolo.evaluate.calibration import ece, noise_floor, reliability
from deepfer_yolo.evaluate.statistics import CARD_METRICS, card_intervals, headline, rows_of
from deepfer_yolo.train.faces import Faces
from deepfer_yolo.train.loader import ValLoader
from deepfer_yolo.train.validator import macro_f1
from deepfer_yolo.yolo import load_checkpoint

Logits = NDArray[np.float64]
Labels = NDArray[np.int64]

FOLDS = 5
TEMPERATURES = (0.2, 10.0)
"""The range that is searched; a few dozen pictures that are all right would else ask for 0."""


def logits_of(checkpoint: Path, faces: Faces, batch: int) -> Logits:
    """Logits, float64 (n, C), of the checkpoint as it lies on the disk for a decoded split, on the CPU."""
    model = load_checkpoint(checkpoint).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        parts = [model(part["img"])[1].double().numpy() for part in ValLoader(faces, batch, torch.device("cpu"))]
    return np.concatenate(parts)


def score(logits: Logits, labels: Labels) -> dict[str, Any]:
    """n, top-1 and macro-F1 of logits (n, C) against class indices (n,)."""
    predicted = logits.argmax(1)
    return {"n": len(labels), "top1": float((predicted == labels).mean()), "macro_f1": macro_f1(predicted, labels)}


def confusion(logits: Logits, labels: Labels) -> list[list[int]]:
    """Counts (C, C): rows are the labels, columns the answers."""
    counts = np.zeros((logits.shape[1], logits.shape[1]), np.int64)
    np.add.at(counts, (labels, logits.argmax(1)), 1)
    return [[int(count) for count in row] for row in counts]


def card_metrics(logits: Logits, labels: Labels, calibration: dict[str, float], subjects: Sequence[str]) -> dict[str, Any]:
    """What a card says of the split that chose the epoch: metrics, their 95 % intervals, and the confusion matrix."""
    probs = softmax(logits, calibration["temperature"])
    values = headline(rows_of(probs, labels).sum(0))
    return {
        "split": "val",
        "n": len(labels),
        **{name: float(values[name]) for name in CARD_METRICS},
        "ece": calibration["ece_after"],
        "ece_uncalibrated": calibration["ece_before"],
        "ece_noise_floor": calibration["ece_floor"],
        "intervals": card_intervals(probs, labels, subjects),
        "confusion": confusion(logits, labels),
    }


def softmax(logits: Logits, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (n, C) of logits divided by `temperature`."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature with the smallest Brier score, by golden section over its logarithm.

    The log-likelihood of Guo et al. (2017) would sharpen every answer for the sake of what label smoothing and teachers leave on unlikely classes;
    the Brier score is proper too and looks at the likely ones, whose confidence is shown.
    """
    wanted = np.eye(logits.shape[1])[labels]

    def loss(log_t: float) -> float:
        return float(((softmax(logits, float(np.exp(log_t))) - wanted) ** 2).sum(1).mean())

    low, high = np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1])
    golden = (5**0.5 - 1) / 2
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def calibrate(logits: Logits, labels: Labels) -> dict[str, float]:
    """The temperature fitted on all, ECE-15 before, and after: each fold scaled by the temperature that the other four ask for.

    `ece_floor` is what a perfectly calibrated model would show on this many pictures.
    """
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    held_out = np.empty_like(logits)
    for number in range(FOLDS):
        inside = fold == number
        if inside.any():
            held_out[inside] = softmax(logits[inside], fit_temperature(logits[~inside], labels[~inside]))
    return {
        "temperature": fit_temperature(logits, labels),
        "ece_before": ece(reliability(softmax(logits), labels)),
        "ece_after": ece(reliability(held_out, labels)),
        "ece_floor": noise_floor(held_out),
    }
