"""The report of an evaluation: what the numbers are, where the model errs, and on which pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.evaluate.metrics import nll_of
from deepfer_yolo.evaluate.runs import ENVIRONMENT
from deepfer_yolo.evaluate.score import Scores
from deepfer_yolo.records import Image
from deepfer_yolo.report import plots
from deepfer_yolo.report.page import Page
from deepfer_yolo.report.tables import interval, percent
from deepfer_yolo.runtime.preprocess import shorter_side

SHOWN_PX = 96
"""Pictures larger than this are reduced in the report, which would grow by megabytes otherwise."""
HEADLINE = {
    "top1": "top-1 accuracy", "top2": "top-2 accuracy", "top5": "top-5 accuracy", "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision", "macro_recall": "macro recall", "macro_f1": "macro F1",
    "weighted_precision": "weighted precision", "weighted_recall": "weighted recall", "weighted_f1": "weighted F1",
}  # fmt: skip
"""Shares of 1, shown in per cent."""
LOSSES = {"nll": "NLL (nats)", "brier": "Brier score (0–2)"}


def summary_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Name, value and 95 % interval of each headline figure; shares in per cent."""
    spans = result.get("intervals", {})
    rows = [[title, percent(result[key]), interval(*spans.get(key, (None, None)))] for key, title in HEADLINE.items()]
    for key, title in LOSSES.items():
        low, high = spans.get(key, (None, None))
        rows.append([title, f"{result[key]:.3f}", "" if low is None else f"{low:.3f}–{high:.3f}"])
    rows.append(["ECE, 15 bins", percent(result["ece"]), f"noise floor {percent(result['ece_noise_floor'])}"])
    rows += [[f"top-1 on the most confident {share}", percent(value), ""] for share, value in result["selective_accuracy"].items()]
    return rows


def class_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Label, precision, recall, F1 in per cent, the interval of F1, and how many pictures."""
    return [
        [label, *(percent(row[key]) for key in ("precision", "recall", "f1")), interval(*row.get("f1_interval", (None, None))), str(row["support"])]
        for label, row in result["per_class"].items()
    ]


CLASS_HEADER = ("class", "precision %", "recall %", "F1 %", "95 % of F1", "pictures")


def write_report(path: Path, result: Mapping[str, Any], scores: Scores, dataset: Dataset, config: EvaluateConfig) -> Path:
    """Write the HTML report beside the run's `env.json`, whose content becomes its header."""
    environment = json.loads((path.parent / ENVIRONMENT).read_text(encoding="utf-8"))
    page = Page(f"Evaluation of {result['model']['name']}", environment["command"], list(facts(result, environment)))
    page.add_text(
        "The model labels the apparent expression in a picture; it does not know what anyone feels. "
        f"Figures are in per cent where not stated otherwise, on {result['n']:,} pictures. Intervals: {result['interval_method']}."
    )
    if result["absent"]:
        page.add_text(f"This split has no picture of: {', '.join(result['absent'])}. Macro averages leave them out.")
    page.add_table(("figure", "value", "95 % interval"), summary_rows(result))
    page.add_heading("Classes")
    page.add_table(CLASS_HEADER, class_rows(result))
    page.add_figure(
        plots.confusion_matrix(result["confusion"], result["labels"]),
        "Each row is one label of the data set: the share predicted as each column, and the count.",
        f"Confusion matrix of {len(result['labels'])} classes; top-1 {percent(result['top1'])} %",
    )
    page.add_heading("Confidence")
    bins = result["reliability"]
    page.add_figure(
        plots.reliability(bins["n"], bins["confidence"], bins["accuracy"]),
        f"Expected calibration error {percent(result['ece'])} %; a perfectly calibrated model would show "
        f"{percent(result['ece_noise_floor'])} % on this many pictures.",
        "Reliability diagram: accuracy against confidence in 15 bins",
    )
    add_mistakes(page, scores, dataset, config)
    return page.write(path)


def facts(result: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    """The conditions of the numbers, for the header."""
    data, model, versions = result["dataset"], result["model"], environment["versions"]
    yield "data", f"{data['name']}, split {data['split']}, n = {result['n']:,}, fingerprint {data['fingerprint'][:12]}"
    yield "model", f"{model['path']}, sha256 {model['sha256'][:12]}, provider {model['provider']}"
    yield "made", environment["time"]
    yield "hardware", f"{environment['cpu']}, {environment['cores']} cores" + "".join(f", {gpu}" for gpu in environment["gpus"])
    yield "versions", ", ".join(f"{name} {versions[name]}" for name in ("deepfer-yolo", "onnxruntime", "numpy", "scikit-learn") if name in versions)
    if environment["commit"]:
        yield "commit", environment["commit"]


def worst_mistakes(scores: Scores, count: int) -> list[int]:
    """Rows of the mistakes in which the data set's label got the least probability, worst first."""
    return _mistakes(scores, nll_of(np.asarray(scores.probs, np.float64), scores.targets), count)


def unsure_mistakes(scores: Scores, count: int) -> list[int]:
    """Rows of the mistakes in which the two most probable labels were closest, closest first."""
    top = np.sort(scores.probs, axis=1)
    return _mistakes(scores, top[:, -2] - top[:, -1], count)


def _mistakes(scores: Scores, badness: np.ndarray[Any, Any], count: int) -> list[int]:
    wrong = scores.probs.argmax(1) != scores.targets
    order = np.argsort(np.where(wrong, -badness, np.inf), kind="stable")
    return [int(i) for i in order[: min(count, int(wrong.sum()))]]


def add_mistakes(page: Page, scores: Scores, dataset: Dataset, config: EvaluateConfig) -> None:
    """Two galleries: the worst mistakes, and the most uncertain ones."""
    for title, rows in (
        ("Worst mistakes", worst_mistakes(scores, config.pictures)),
        ("Most uncertain mistakes", unsure_mistakes(scores, config.pictures // 2)),
    ):
        if rows:
            page.add_heading(title)
            images = load_images(dataset, [scores.rows[i] for i in rows], config.workers)
            page.add_pictures((small(image), caption(scores, i)) for image, i in zip(images, rows, strict=True))


def caption(scores: Scores, i: int) -> Sequence[str]:
    """What stands below a picture."""
    probs, target = scores.probs[i], int(scores.targets[i])
    guess = int(probs.argmax())
    return (f"{scores.labels[guess]} {probs[guess]:.0%}", f"label: {scores.labels[target]} {probs[target]:.1%}", scores.rows[i].path)


def small(image: Image) -> Image:
    """A picture as the report shows it."""
    return shorter_side(image, SHOWN_PX) if min(image.shape[:2]) > SHOWN_PX else image
