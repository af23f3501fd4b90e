"""One evaluation, from a model and a data set to the files of its run."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.duplicates import copies_in_train
from deepfer_yolo.data.leaks import Learned
from deepfer_yolo.errors import EXTRA_OF_MODULE, MissingDependencyError
from deepfer_yolo.evaluate.measurement import DataUsed, Evaluation, ModelFile, measure_scores
from deepfer_yolo.evaluate.predictions import OnProgress, Scores, common_labels, score_dataset
from deepfer_yolo.evaluate.robustness import sweep
from deepfer_yolo.evaluate.subsets import by_column, check_column, without
from deepfer_yolo.files import write_atomic
from deepfer_yolo.runs import write_metrics
from deepfer_yolo.runtime.classifier import Classifier

REPORT, PREDICTIONS = "report.html", "predictions.csv"


def run_evaluation(
    classifier: Classifier,
    dataset: Dataset,
    config: EvaluateConfig,
    run: Path,
    on_progress: OnProgress | None = None,
    learned: Learned | None = None,
) -> Evaluation:
    """Score, measure, and write `metrics.json`, `predictions.csv` and `report.html` into `run`.

    `learned` is the record of `check_models`.
    """
    from deepfer_yolo.evaluate.report import write_report

    labels = common_labels([classifier.labels], dataset.labels, config.labels)
    for column in config.by:
        check_column(column)
    with importing("scipy.stats", "matplotlib.figure", "matplotlib.backends.backend_svg"):
        scores = score_dataset(classifier, dataset, config, on_progress, labels=labels, flip=config.tta == "flip")
    clean = without(scores, copies_in_train(dataset, config.split)) if config.clean else None
    result = Evaluation(
        model=ModelFile.of(classifier),
        dataset=DataUsed.of(dataset, config.split),
        tta=config.tta,
        excluded=config.exclude,
        learned_before=learned,
        measured=measure_scores(scores, config),
        clean=measure_scores(clean, config) if clean is not None else None,
        groups={column: by_column(scores, column) for column in config.by},
        robustness=sweep(classifier, dataset, scores, config, on_progress) if config.robustness else None,
    )
    write_atomic(run / PREDICTIONS, predictions_csv(scores).encode("utf-8", "surrogateescape"))
    write_report(run / REPORT, result, scores, dataset, config, classifier)
    write_metrics(run, result.to_json())  # last: it says that the run is whole
    return result


def predictions_csv(scores: Scores) -> str:
    """`path,label` and one column a label with its probability, rows as in the manifest."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", *scores.labels))
    for row, probs in zip(scores.rows, scores.probs.tolist(), strict=True):
        writer.writerow((row.path, row.label, *(f"{p:.6f}" for p in probs)))
    return text.getvalue()


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
