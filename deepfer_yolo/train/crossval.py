"""Cross-validation, the protocol of the small laboratory sets: which image is tested in which fold, and the mean and
spread over the folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from deepfer_yolo.data.dataset import csv_bytes, open_dataset
from deepfer_yolo.errors import TrainingError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.records import Json, plain
from deepfer_yolo.report.page import percent
from deepfer_yolo.train.measure import score
from deepfer_yolo.train.results import FoldScore
from deepfer_yolo.train.splits import deal

FOLDS = "folds.csv"


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the folds: mean, standard deviation (n − 1), and each."""

    mean: float
    sd: float
    folds: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of one value a fold."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)), tuple(values))

    def __str__(self) -> str:
        return f"{percent(self.mean)} ± {percent(self.sd)} %"


@dataclass(frozen=True, slots=True)
class FoldSpread:
    """The spread of both figures."""

    top1: Spread
    macro_f1: Spread


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """A finished cross-validation: its folder, and the figures of its metrics.json.

    `n`, `top1`, `macro_f1` and `confusion` (rows are the labels, columns the predictions) are over all images at once,
    each tested once.
    """

    folder: Path
    n: int
    top1: float
    macro_f1: float
    over_folds: FoldSpread
    n_folds: int
    confusion: tuple[tuple[int, ...], ...]
    group_by: str
    seed: int

    @classmethod
    def of(cls, folder: Path, tests: Sequence[FoldScore], config: TrainConfig) -> Self:
        """The folds' scores summed up."""
        total = np.sum([test.confusion for test in tests], axis=0)
        pooled = score(total)
        spread = FoldSpread(Spread.of([test.top1 for test in tests]), Spread.of([test.macro_f1 for test in tests]))
        confusion = tuple(map(tuple, total.tolist()))
        return cls(
            folder, pooled.n, pooled.top1, pooled.macro_f1, spread, len(tests), confusion, config.group_by, config.seed
        )

    def metrics(self) -> Json:
        """The figures of metrics.json."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)[1:]}

    def to_json(self) -> Json:
        """The figures, and where the folds are."""
        return {"run": str(self.folder), "checkpoint": None, **self.metrics()}

    def lines(self) -> list[str]:
        """What a person reads: each fold, mean and spread, and all images at once."""
        top1, macro_f1 = self.over_folds.top1, self.over_folds.macro_f1
        return [
            *(
                f"fold {number}: top-1 {percent(one)} %, macro-F1 {percent(other)} %"
                for number, (one, other) in enumerate(zip(top1.folds, macro_f1.folds, strict=True), 1)
            ),
            f"{self.n_folds} folds by {self.group_by}: top-1 {top1}, macro-F1 {macro_f1} "
            "(mean ± standard deviation over folds)",
            f"all {self.n:,} images, each tested once: top-1 {percent(self.top1)} %, "
            f"macro-F1 {percent(self.macro_f1)} %",
        ]


def write_folds(config: TrainConfig, folder: Path) -> None:
    """`folds.csv`, which image is tested in which fold.

    Raises TrainingError where the one that is there was written for other data.
    """
    dataset = open_dataset(Path(str(config.data)))
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
