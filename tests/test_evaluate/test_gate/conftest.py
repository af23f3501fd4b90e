"""Evidence for the gate, built by hand: only what a test names differs from a plain case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.evaluate.evaluation import ClassMetrics, DataUsed, Metrics, ModelFile, ScoredModel
from deepfer_yolo.evaluate.gate.rules import Evidence, Protected
from deepfer_yolo.evaluate.intervals import Interval, Intervals
from deepfer_yolo.evaluate.metrics import Headline, Reliability
from deepfer_yolo.evaluate.paired import ClassComparison, Decision, Latency, PairedComparison


@pytest.fixture(scope="session")
def metrics() -> Callable[..., Metrics]:
    """`metrics(recall, n_images)`: top-1 of 60 % (55 to 65), macro F1 of 50 % (42 to 58), ECE of 10 % with a floor of
    4, and the recall of sad in 40 to 60; 40 images are sad.
    """

    def build(recall: float = 0.5, n_images: int = 100) -> Metrics:
        names = [field.name for field in fields(Headline)]
        around = Interval(0.4, 0.6)
        spans = dict.fromkeys(names, around) | {"top1": Interval(0.55, 0.65), "macro_f1": Interval(0.42, 0.58)}
        n, one = 0 if np.isnan(recall) else 40, np.ones(1)
        return Metrics(
            **dict.fromkeys(names, 0.5) | {"top1": 0.6}, n=n_images, ece=0.10, ece_noise_floor=0.04, ece_bins=1,
            selective_accuracy={}, per_class={"sad": ClassMetrics(0.5, recall, 0.5, n, around, around, around)},
            confusion=np.array([[n]]), confusion_normalised=np.ones((1, 1)), labels=("sad",),
            absent=() if n else ("sad",), reliability=Reliability(np.array([40]), one, one),
            intervals=Intervals(**spans, selective_accuracy={}, per_class=()), interval_method="by hand", votes=None,
        )  # fmt: skip

    return build


@pytest.fixture(scope="session")
def decision() -> Callable[[float, float], Decision]:
    """The decision of a top-1 difference between two ends."""
    return lambda low, high: Decision((low + high) / 2, Interval(low, high), 0.1, 0.1, (high - low) / 2)


@pytest.fixture(scope="session")
def evidence(metrics: Callable[..., Metrics], decision: Callable[..., Decision]) -> Callable[..., Evidence]:
    """`evidence(low, high)`: a challenger of 12 MB and a champion of 10 MB, as fast; without ends no champion."""

    def scored(size_mb: float) -> ScoredModel:
        return ScoredModel(ModelFile("m", Path("m.onnx"), "0" * 64, size_mb, "cpu"), metrics())

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
