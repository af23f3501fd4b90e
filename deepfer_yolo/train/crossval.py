"""Cross-validation, as the small laboratory sets ask for it: who is tested in which fold, and what all folds give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepfer_yolo.data.dataset import csv_bytes
from deepfer_yolo.data.untrusted import csv_rows, open_list
from deepfer_yolo.errors import TrainingError
from deepfer_yolo.evaluate.predictions import PREDICTIONS
from deepfer_yolo.files import write_atomic
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.records import Json, plain
from deepfer_yolo.report.page import percent
from deepfer_yolo.train.measure import Score, score_of
from deepfer_yolo.train.splits import deal, open_corrected

FOLDS = "folds.csv"


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the folds: mean, standard deviation (n − 1), and each."""

    mean: float
    sd: float
    folds: tuple[float, ...]

    def __str__(self) -> str:
        return f"{percent(self.mean)} ± {percent(self.sd)} %"


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """A finished cross-validation: its folder, and how each fold's checkpoint names the images of that fold."""

    folder: Path
    tests: tuple[Score, ...]
    group_by: str
    seed: int

    @property
    def pooled(self) -> Score:
        """The score over all images at once, each tested once."""
        return score_of(np.sum([test.confusion for test in self.tests], axis=0))

    @property
    def top1(self) -> Spread:
        """Top-1 over the folds."""
        return _spread([test.top1 for test in self.tests])

    @property
    def macro_f1(self) -> Spread:
        """Macro-F1 over the folds."""
        return _spread([test.macro_f1 for test in self.tests])

    def metrics(self) -> Json:
        """The figures of metrics.json."""
        pooled = plain(self.pooled)
        confusion = pooled.pop("confusion")
        spread = plain({"top1": self.top1, "macro_f1": self.macro_f1})
        return dict(pooled) | {
            "over_folds": spread,
            "n_folds": len(self.tests),
            "confusion": confusion,
            "group_by": self.group_by,
            "seed": self.seed,
        }

    def to_json(self) -> Json:
        """The figures, and where the folds are."""
        return {"run": str(self.folder), "checkpoint": None, **self.metrics()}

    def lines(self) -> list[str]:
        """What a person reads: each fold, mean and spread, and all images at once."""
        both = (
            f"top-1 {percent(test.top1)} %, macro-F1 {percent(test.macro_f1)} %" for test in (*self.tests, self.pooled)
        )
        *folds, pooled = both
        spread = f"top-1 {self.top1}, macro-F1 {self.macro_f1} (mean ± standard deviation over folds)"
        return [
            *(f"fold {number}: {figures}" for number, figures in enumerate(folds, 1)),
            f"{len(folds)} folds by {self.group_by}: {spread}",
            f"all {self.pooled.n:,} images, each tested once: {pooled}",
        ]


def _spread(values: list[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)), tuple(values))


def write_folds(config: TrainConfig, folder: Path) -> None:
    """`folds.csv`, which image is tested in which fold.

    Raises TrainingError where the one that is there was written for other data.
    """
    dataset = open_corrected(config)
    rows = zip(dataset.all_rows, deal(dataset, config), strict=True)
    content = csv_bytes(
        ("path", "label", "subject", "sha256", "fold"),
        ((row.path, row.label, row.subject, row.sha256, str(fold)) for row, fold in rows),
    )
    path = folder / FOLDS
    if path.is_file() and path.read_bytes() != content:
        raise TrainingError(
            f"the data set {dataset.root} has changed since the cross-validation began", "start a new one"
        )
    write_atomic(path, content)


def write_predictions(config: TrainConfig, folder: Path) -> None:
    """`predictions.csv`: what the fold that has not seen it says of each image, in the manifest's order.

    None where a fold was trained by a version that left no such file.
    """
    files = [folder / f"fold-{number}" / PREDICTIONS for number in range(1, config.n_runs + 1)]
    if not all(file.is_file() for file in files):
        return
    header: list[str] = []
    said: dict[str, list[str]] = {}
    for file in files:
        with open_list(file) as text:
            (_, header), *lines = csv_rows(text, file)
        said |= {cells[0]: cells for _, cells in lines}
    rows = open_corrected(config).all_rows
    write_atomic(folder / PREDICTIONS, csv_bytes(header, (said[row.path] for row in rows)))
