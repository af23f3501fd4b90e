"""One evaluation from a model and a data set to the files of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.evaluate.document import write_report
from deepfer_yolo.evaluate.metrics import check_scores, evaluate
from deepfer_yolo.evaluate.runs import plain, write_metrics
from deepfer_yolo.evaluate.score import OnProgress, Scores, common_labels, score_dataset
from deepfer_yolo.evaluate.statistics import intervals
from deepfer_yolo.files import sha256_of
from deepfer_yolo.runtime.classifier import Classifier

REPORT = "report.html"


def run_evaluation(
    classifier: Classifier, dataset: Dataset, config: EvaluateConfig, run: Path, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Score, measure, and write `metrics.json` and `report.html` into `run`; returns what `metrics.json` holds."""
    labels = common_labels([classifier.labels], dataset.labels, config.labels)
    scores = score_dataset(classifier, dataset, config.split, config.batch, on_progress, labels=labels, workers=config.workers)
    result = plain(conditions(classifier, dataset, config) | measure_scores(scores, config.replicates, config.seed))
    write_metrics(run, result)
    write_report(run / REPORT, result, scores, dataset, config)
    return dict(result)


def conditions(classifier: Classifier, dataset: Dataset, config: EvaluateConfig) -> dict[str, Any]:
    """What the numbers were measured with and on."""
    return {
        "model": {"name": classifier.card.name, "path": str(classifier.path), "sha256": sha256_of(classifier.path), "provider": classifier.provider},
        "dataset": {"name": dataset.name, "path": str(dataset.root), "fingerprint": dataset.fingerprint, "split": config.split},
    }


def measure_scores(scores: Scores, replicates: int, seed: int) -> dict[str, Any]:
    """Every metric of `scores` with its 95 % interval."""
    result = evaluate(scores.probs, scores.targets, scores.labels)
    probs, targets = check_scores(scores.probs, scores.targets, scores.labels)
    subjects = [row.subject for row in scores.rows]
    spans = intervals(probs, targets, subjects, replicates, seed)
    for name in ("precision", "recall", "f1"):
        for label, span in zip(scores.labels, spans.pop(f"class_{name}"), strict=True):
            result["per_class"][label][f"{name}_interval"] = span
    method = "bootstrap over subjects" if any(subjects) else "bootstrap stratified by label"
    return result | {"intervals": spans, "interval_method": f"95 %, {method}, {replicates} replicates"}
