"""What training measures: every epoch on val, a checkpoint's scores, and the temperature for honest confidence."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)
from numpy.typing import NDArray

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.evaluate.intervals import CARD_METRICS, intervals
from deepfer_yolo.evaluate.metrics import (
    brier_of,
    confusion_matrix,
    ece,
    headline,
    macro_f1,
    noise_floor,
    reliability,
    tally,
    total,
)
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Json
from deepfer_yolo.train.decoded_split import DecodedSplit
from deepfer_yolo.train.loader import ValLoader
from deepfer_yolo.yolo import ClassificationValidator, ClassifyMetrics, load_checkpoint

TOP1, TOP5, MACRO_F1 = "metrics/accuracy_top1", "metrics/accuracy_top5", "metrics/macro_f1"
"""Column names in Ultralytics' results.csv; the first two are its own."""
FOLDS = 5
TEMPERATURES = (0.2, 10.0)
"""The range that is searched; a few dozen images that are all right would else ask for 0."""

NEAR_END = 1.01
"""How near to an end of that range the search has ended there."""

Logits = NDArray[np.float64]
Labels = NDArray[np.int64]


class FaceMetrics(ClassifyMetrics):  # type: ignore[misc]
    """Top-1, top-5 and macro-F1; `fitness`, which picks best.pt and stops early, is the one that was chosen."""

    def __init__(self, chosen: str) -> None:
        super().__init__()
        self.chosen = chosen
        self.macro_f1 = 0.0

    def process(self, targets: list[torch.Tensor], pred: list[torch.Tensor]) -> None:
        """Compute all figures from ranked classes, (n, k) each, and targets (n,)."""
        super().process(targets, pred)
        predicted, labels = torch.cat(pred)[:, 0].long().numpy(), torch.cat(targets).long().numpy()
        self.macro_f1 = macro_f1(confusion_matrix(predicted, labels, 1 + int(max(predicted.max(), labels.max()))))

    @property
    def fitness(self) -> float:
        """Top-1 or macro-F1; Ultralytics takes the mean of top-1 and top-5, and top-5 of seven is always near 1."""
        return self.macro_f1 if self.chosen == "macro_f1" else self.top1

    @property
    def keys(self) -> list[str]:
        """Column names in results.csv."""
        return [TOP1, TOP5, MACRO_F1]

    @property
    def results_dict(self) -> dict[str, float]:
        """All figures by column name, and the fitness."""
        return {TOP1: self.top1, TOP5: self.top5, MACRO_F1: self.macro_f1, "fitness": self.fitness}


class FaceValidator(ClassificationValidator):  # type: ignore[misc]
    """Ultralytics' validator on our ordered loader."""

    def __init__(self, dataloader: Any, save_dir: Any, args: Any, callbacks: Any, fitness: str) -> None:
        super().__init__(dataloader, save_dir, args, callbacks)
        self.metrics = FaceMetrics(fitness)

    def preprocess(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Leave the batch as the loader made it: float32, on the device."""
        return batch

    def finalize_metrics(self) -> None:
        """Keep the timing; `deepfer evaluate` draws the confusion matrix."""
        self.metrics.speed = self.speed

    def print_results(self) -> None:
        """Print nothing: the progress display does."""


def read_results(path: Path) -> dict[str, list[float]]:
    """results.csv by column, one value an epoch."""
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    return {key: [float(row[key]) for row in rows] for key in rows[0]}


def trim_results(path: Path, epochs: int) -> None:
    """Drop the rows of results.csv after `epochs`: a run that was killed before the checkpoint repeats that epoch."""
    if path.is_file():
        header, *rows = path.read_text(encoding="utf-8").splitlines() or [""]
        numbers = [row.partition(",")[0].strip() for row in rows]
        kept = [row for row, number in zip(rows, numbers, strict=True) if number.isdigit() and int(number) <= epochs]
        write_atomic(path, "".join(f"{row}\n" for row in (header, *kept)))


@dataclass(frozen=True, slots=True)
class Score:
    """How well a checkpoint names the `n` images of a split; `confusion` counts labels (rows) by predictions."""

    n: int
    top1: float
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperature fitted on all images, and the ECE in 15 bins before and after it.

    After: each fifth scaled by the temperature that the other four ask for. `ece_floor` is what a perfectly calibrated
    model would show on this many images. Where the fit is `refused`, for the reason that stands there, the temperature
    is 1 and nothing changes.
    """

    temperature: float
    ece_before: float
    ece_after: float
    ece_floor: float
    refused: str | None = None

    def __str__(self) -> str:
        floor = f"{self.ece_floor:.1%} would be perfect at this n"
        if self.refused is not None:
            return f"temperature left at 1, {self.refused}: ECE {self.ece_before:.1%} ({floor})"
        change = f"ECE {self.ece_before:.1%} before, {self.ece_after:.1%} after"
        return f"temperature {self.temperature:.3f}: {change} (cross-fitted; {floor})"


def logits_of(checkpoint: Path, split: DecodedSplit, batch: int, *, mirrored: bool = False) -> Logits:
    """Logits, float64 (n, C), of the checkpoint as it lies on the disk for a decoded split, on the CPU."""
    model = load_checkpoint(checkpoint).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        images = (part["img"] for part in ValLoader(split, batch, torch.device("cpu")))
        parts = [model(image.flip(-1) if mirrored else image)[1].double().numpy() for image in images]
    return np.concatenate(parts)


def score(logits: Logits, labels: Labels) -> Score:
    """The score of logits (n, C) against class indices (n,)."""
    return score_of(confusion_matrix(logits.argmax(1), labels, logits.shape[1]))


def score_of(confusion: Labels) -> Score:
    """The score behind a confusion matrix (C, C)."""
    n = int(confusion.sum())
    return Score(n, float(confusion.trace() / n), macro_f1(confusion), tuple(map(tuple, confusion.tolist())))


def card_metrics(logits: Logits, labels: Labels, calibration: Calibration, subjects: Sequence[str]) -> Json:
    """What a card says of the split that chose the epoch: metrics, their 95 % intervals, and the confusion matrix."""
    probs = softmax(logits, calibration.temperature)
    values = headline(total(tally(probs, labels)))
    return {
        "split": "val",
        "n": len(labels),
        **{name: float(getattr(values, name)) for name in CARD_METRICS},
        "ece": calibration.ece_after,
        "ece_uncalibrated": calibration.ece_before,
        "ece_noise_floor": calibration.ece_floor,
        "intervals": intervals(probs, labels, ScoringConfig(), subjects).of_card(),
        "confusion": score(logits, labels).confusion,
    }


def softmax(logits: Logits, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (n, C) of logits divided by `temperature`."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature with the smallest Brier score, by golden section over its logarithm.

    The log-likelihood of Guo et al. (2017) would sharpen every answer for the sake of what label smoothing and teachers
    leave on unlikely classes; the Brier score is proper too and looks at the likely ones, whose confidence is shown.
    """

    def loss(log_t: float) -> float:
        return float(brier_of(softmax(logits, float(np.exp(log_t))), labels).mean())

    low, high = np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1])
    golden = (5**0.5 - 1) / 2
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def calibrate(logits: Logits, labels: Labels) -> Calibration:
    """The calibration of logits (n, C) by the class indices (n,).

    A temperature that is the end of what was searched, or that makes images worse which it was not fitted on, says
    more of the few images behind it than of the model: it is refused.
    """
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    held_out = np.empty_like(logits)
    for number in range(FOLDS):
        inside = fold == number
        if inside.any():
            held_out[inside] = softmax(logits[inside], fit_temperature(logits[~inside], labels[~inside]))
    before, after = ece(reliability(softmax(logits), labels)), ece(reliability(held_out, labels))
    temperature = fit_temperature(logits, labels)
    refused = None
    if not TEMPERATURES[0] * NEAR_END < temperature < TEMPERATURES[1] / NEAR_END:
        refused = f"since {temperature:.3f} is the end of what is searched"
    elif after > before:
        refused = f"since {temperature:.3f} would make the ECE {after:.1%} (cross-fitted)"
    if refused is not None:
        return Calibration(1.0, before, before, noise_floor(softmax(logits)), refused)
    return Calibration(temperature, before, after, noise_floor(held_out))
