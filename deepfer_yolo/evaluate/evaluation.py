"""One evaluation from a model and a data set to the files of its run."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.duplicates import copies_in_train
from deepfer_yolo.errors import EXTRA_OF_MODULE, MissingDependencyError
from deepfer_yolo.evaluate.intervals import intervals
from deepfer_yolo.evaluate.metrics import check_scores, evaluate
from deepfer_yolo.evaluate.predictions import OnProgress, Scores, common_labels, score_dataset
from deepfer_yolo.evaluate.robustness import sweep
from deepfer_yolo.evaluate.subsets import by_column, vote_scores, without
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import plain
from deepfer_yolo.runs import write_metrics
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest


@contextmanager
def importing(*modules: str) -> Iterator[None]:
    """Import `modules` in a thread while the block runs, and wait for it at the end.

    Raises MissingDependencyError before the block starts, rather than after minutes of scoring, where one is not
    installed.
    """
    for module in modules:
        package = module.partition(".")[0]
        if find_spec(package) is None:
            raise MissingDependencyError.for_extra(EXTRA_OF_MODULE[package], package)
    thread = Thread(target=_import, args=(modules,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _import(modules: tuple[str, ...]) -> None:
    # What goes wrong here goes wrong again, and is explained, where the module is used.
    with suppress(ImportError):
        for module in modules:
            importlib.import_module(module)


REPORT, PREDICTIONS = "report.html", "predictions.csv"


def run_evaluation(
    classifier: Classifier, dataset: Dataset, config: EvaluateConfig, run: Path, on_progress: OnProgress | None = None,
    learned: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score, measure, and write `metrics.json`, `predictions.csv` and `report.html` into `run`; returns what
    `metrics.json` holds.

    `learned` is the record of `check_models`.
    """
    from deepfer_yolo.evaluate.report import write_report

    labels = common_labels([classifier.labels], dataset.labels, config.labels)
    for column in config.by:
        by_column(Scores((), labels, np.zeros(0, np.int64), np.zeros((0, len(labels)), np.float32)), column)
    with importing("scipy.stats", "matplotlib.figure", "matplotlib.backends.backend_svg", "jinja2"):
        scores = score_dataset(
            classifier,
            dataset,
            config.split,
            config.batch,
            on_progress,
            labels=labels,
            workers=config.workers,
            tta=config.tta,
        )
    result = (
        conditions(classifier, dataset, config)
        | {"learned_before": learned}
        | measure_scores(scores, config.replicates, config.seed)
    )
    if config.clean:
        rest = without(scores, copies_in_train(dataset, config.split))
        result["clean"] = measure_scores(rest, config.replicates, config.seed) | {
            "n_removed": len(scores.rows) - len(rest.rows)
        }
    if config.by:
        result["groups"] = {column: by_column(scores, column) for column in config.by}
    if config.robustness:
        result["robustness"] = sweep(
            classifier, dataset, scores, config.robustness_pictures, config.batch, config.seed, on_progress
        )
    result = plain(result)
    write_atomic(run / PREDICTIONS, predictions_csv(scores).encode("utf-8", "surrogateescape"))
    write_report(run / REPORT, result, scores, dataset, config, classifier)
    write_metrics(run, result)  # last: it says that the run is whole
    return dict(result)


def conditions(classifier: Classifier, dataset: Dataset, config: EvaluateConfig) -> dict[str, Any]:
    """What the numbers were measured with and on."""
    card = classifier.card
    return {
        "model": {
            "name": card.name,
            "path": str(classifier.path),
            "sha256": digest(classifier.path),
            "provider": classifier.provider,
        },
        "dataset": {
            "name": dataset.name,
            "path": str(dataset.root),
            "fingerprint": dataset.fingerprint,
            "split": config.split,
        },
        "tta": config.tta,
        "excluded": config.exclude,
    }


def measure_scores(scores: Scores, replicates: int, seed: int) -> dict[str, Any]:
    """Every metric of `scores` with its 95 % interval, and the agreement with the votes where the manifest has any."""
    result = evaluate(scores.probs, scores.targets, scores.labels)
    probs, targets = check_scores(scores.probs, scores.targets, scores.labels)
    subjects = [row.subject for row in scores.rows]
    spans = intervals(probs, targets, subjects, replicates, seed)
    for name in ("precision", "recall", "f1"):
        for label, span in zip(scores.labels, spans.pop(f"class_{name}"), strict=True):
            result["per_class"][label][f"{name}_interval"] = span
    method = "bootstrap over subjects" if any(subjects) else "bootstrap stratified by label"
    result |= {"intervals": spans, "interval_method": f"95 %, {method}, {replicates} replicates"}
    votes = vote_scores(scores)
    return result if votes is None else result | {"votes": votes}


def predictions_csv(scores: Scores) -> str:
    """`path,label` and one column a label with its probability, rows as in the manifest."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", *scores.labels))
    for row, probs in zip(scores.rows, scores.probs.tolist(), strict=True):
        writer.writerow((row.path, row.label, *(f"{p:.6f}" for p in probs)))
    return text.getvalue()
