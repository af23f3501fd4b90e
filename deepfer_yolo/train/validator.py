"""Validation whose figures mean something for a few classes: top-1 and macro-F1, each prediction in the order of the files."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)
from numpy.typing import NDArray

from deepfer_yolo.yolo import ClassificationValidator, ClassifyMetrics

TOP1, TOP5, MACRO_F1 = "metrics/accuracy_top1", "metrics/accuracy_top5", "metrics/macro_f1"
"""Column names in Ultralytics' results.csv; the first two are its own."""


def macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur in `labels` (n,); a class that is never predicted counts as 0."""
    scores = []
    for label in np.unique(labels):
        hits = int(((predicted == label) & (labels == label)).sum())
        scores.append(2 * hits / max(1, int((predicted == label).sum()) + int((labels == label).sum())))
    return float(np.mean(scores))


class FaceMetrics(ClassifyMetrics):  # type: ignore[misc]
    """Top-1, top-5 and macro-F1; `fitness`, which picks best.pt and stops early, is the one that was chosen."""

    def __init__(self, chosen: str) -> None:
        super().__init__()
        self.chosen = chosen
        self.macro_f1 = 0.0

    def process(self, targets: list[torch.Tensor], pred: list[torch.Tensor]) -> None:
        """Compute all figures from ranked classes, (n, k) each, and targets (n,)."""
        super().process(targets, pred)
        ranked, labels = torch.cat(pred).numpy().astype(np.int64), torch.cat(targets).numpy().astype(np.int64)
        self.macro_f1 = macro_f1(ranked[:, 0], labels)

    @property
    def fitness(self) -> float:
        """Top-1 or macro-F1; Ultralytics' mean of top-1 and top-5 would halve the signal, since top-5 of seven is always near 1."""
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
    """Ultralytics' validator on our ordered loader; keeps the probabilities of the last pass."""

    def __init__(self, dataloader: Any, save_dir: Any, args: Any, callbacks: Any, fitness: str) -> None:
        super().__init__(dataloader, save_dir, args, callbacks)
        self.metrics = FaceMetrics(fitness)
        self.probs: list[torch.Tensor] = []

    def init_metrics(self, model: Any) -> None:
        """Empty all that was collected."""
        super().init_metrics(model)
        self.probs = []

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Leave the batch as the loader made it: float32, on the device."""
        return batch

    def update_metrics(self, preds: torch.Tensor, batch: dict[str, Any]) -> None:
        """Collect one batch's ranked classes and probabilities (b, C)."""
        super().update_metrics(preds, batch)
        self.probs.append(preds.float().cpu())

    def finalize_metrics(self) -> None:
        """Keep the timing; the stock confusion pictures are replaced by `deepfer evaluate`."""
        self.metrics.speed = self.speed

    def print_results(self) -> None:
        """Print nothing: the progress display does."""
