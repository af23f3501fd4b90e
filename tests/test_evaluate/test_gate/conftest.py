"""Evidence for the gate, built by hand: only what a test names differs from a plain case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.evaluate.gate.rules import Evidence, Protected
from deepfer_yolo.evaluate.intervals import Interval, Intervals
from deepfer_yolo.evaluate.measurement import DataUsed, Measurement, ModelFile, ScoredModel
from deepfer_yolo.evaluate.metrics import ClassMetrics, ClassScores, Headline, Metrics, Reliability
from deepfer_yolo.evaluate.paired import ClassComparison, Decision, Latency, PairedComparison


@pytest.fixture(scope="session")
def measured() -> Callable[..., Measurement]:
    """`measured(recall)`: top-1 of 60 % (55 to 65), macro F1 of 50 % (42 to 58), ECE of 10 % with a floor of 4, and the
    recall of sad in 40 to 60.
    """

    def build(recall: float = 0.5) -> Measurement:
        names = [field.name for field in fields(Headline)]
        figures = dict.fromkeys(names, 0.5) | {"top1": 0.6}
        spans = dict.fromkeys(names, Interval(0.4, 0.6)) | {
            "top1": Interval(0.55, 0.65),
            "macro_f1": Interval(0.42, 0.58),
        }
        empty = np.zeros(0)
        metrics = Metrics(
            **figures, n=40, ece=0.10, ece_noise_floor=0.04, selective_accuracy={}, confusion=np.array([[40]]),
            per_class={"sad": ClassMetrics(0.5, recall, 0.5, 0 if np.isnan(recall) else 40)}, labels=("sad",),
            absent=("sad",) if np.isnan(recall) else (), reliability=Reliability(empty.astype(int), empty, empty),
        )  # fmt: skip
        intervals = Intervals(**spans, selective_accuracy={}, per_class=(ClassScores(*[Interval(0.4, 0.6)] * 3),))
        return Measurement(metrics, intervals, "by hand", None)

    return build


@pytest.fixture(scope="session")
def decision() -> Callable[[float, float], Decision]:
    """The decision of a top-1 difference between two ends."""
    return lambda low, high: Decision((low + high) / 2, Interval(low, high), 0.1, 0.1, (high - low) / 2)


@pytest.fixture(scope="session")
def evidence(measured: Callable[..., Measurement], decision: Callable[..., Decision]) -> Callable[..., Evidence]:
    """`evidence(low, high)`: a challenger of 12 MB against a champion of 10 MB that is as fast; without both ends there is
    no champion.
    """

    def scored(size_mb: float) -> ScoredModel:
        return ScoredModel(ModelFile("m", Path("m.onnx"), "0" * 64, size_mb, "cpu"), measured())

    def build(
        low: float | None = None,
        high: float | None = None,
        *,
        latency: Latency | None = None,
        size_mb: float = 12.0,
        champion_mb: float = 10.0,
        classes: Sequence[ClassComparison] = (),
        protected: Protected | None = None,
    ) -> Evidence:
        champion = comparison = None
        if low is not None and high is not None:
            champion = scored(champion_mb)
            comparison = PairedComparison(40, 3, 2, 1.0, {}, decision(low, high), tuple(classes), "by hand")
        plain = Latency(1.0) if champion is None else Latency(1.0, 1.0, 1.0, Interval(0.9, 1.1))
        data = DataUsed("d", Path("d"), "f" * 64, "test")
        return Evidence(data, ("sad",), scored(size_mb), champion, comparison, latency or plain, protected)

    return build
