"""Several models side by side on the same pictures, without a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepfer_yolo.config import CompareConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.evaluate.contest import describe, latency
from deepfer_yolo.evaluate.evaluation import measure_scores
from deepfer_yolo.evaluate.paired import compare_pair
from deepfer_yolo.evaluate.runs import plain
from deepfer_yolo.evaluate.score import OnProgress, Scores, common_labels, score_dataset
from deepfer_yolo.report.tables import interval, percent
from deepfer_yolo.runtime.classifier import Classifier

HEADER = ("model", "top-1 %", "95 % interval", "macro F1 %", "NLL", "ECE %", "ms", "MB")
PAIR_HEADER = ("against the first", "top-1", "95 % interval", "macro F1", "95 % interval", "p", "time")


def compare_models(
    models: Sequence[Classifier], dataset: Dataset, config: CompareConfig, on_model: Callable[[str], OnProgress] | None = None
) -> dict[str, Any]:
    """Every model's metrics with intervals, and the paired difference of each to the first; JSON-ready."""
    labels = common_labels([model.labels for model in models], dataset.labels, config.labels)
    measured: list[dict[str, Any]] = []
    first: Scores | None = None
    for model in models:
        on_progress = on_model(model.path.name) if on_model is not None else None
        scores = score_dataset(model, dataset, config.split, config.batch, on_progress, labels=labels, workers=config.workers)
        entry = describe(model) | measure_scores(scores, config.replicates, config.seed)
        if first is None:
            first = scores
        else:
            entry["against_first"] = compare_pair(scores, first, config.replicates, config.seed)
        entry["latency"] = latency(model, models[0], dataset, scores)
        measured.append(entry)
    return {
        "dataset": {"name": dataset.name, "path": str(dataset.root), "fingerprint": dataset.fingerprint, "split": config.split},
        "labels": labels,
        "models": plain(measured),
    }


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """One row a model; shares in per cent, latency of a single crop."""
    return [
        [
            entry["name"],
            percent(entry["top1"]),
            interval(*entry["intervals"]["top1"]),
            percent(entry["macro_f1"]),
            f"{entry['nll']:.3f}",
            percent(entry["ece"]),
            f"{entry['latency']['challenger_ms']:.2f}",
            f"{entry['size_mb']:.1f}",
        ]
        for entry in result["models"]
    ]


def pair_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """One row a model after the first: differences in points with intervals, McNemar's exact p, and the latency ratio."""
    table = []
    for entry in result["models"][1:]:
        pair = entry["against_first"]
        row = [entry["name"]]
        for key in ("top1", "macro_f1"):
            found = pair["differences"][key]
            low, high = (100 * value for value in found["interval"])
            row += [f"{100 * found['difference']:+.1f}", f"{low:+.1f} to {high:+.1f}"]
        table.append([*row, f"{pair['mcnemar_p']:.2g}", f"× {entry['latency']['ratio']:.2f}"])
    return table
