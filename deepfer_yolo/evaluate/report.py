"""The report of an evaluation: what the numbers are, where the model errs, and on which images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.evaluate.corruptions import SEVERITIES, corrupted, faces_of
from deepfer_yolo.evaluate.evaluation import Evaluation
from deepfer_yolo.evaluate.metrics import Reliability, most_confused, nll_of, selective_accuracy
from deepfer_yolo.evaluate.predictions import PREDICTIONS, Scores, predictions_csv
from deepfer_yolo.evaluate.robustness import Robustness, occlusion_map, overlay
from deepfer_yolo.evaluate.tables import (
    CLASS_HEADER,
    CONFUSION_HEADER,
    GROUP_HEADER,
    SEVERITY_HEADER,
    class_rows,
    group_rows,
    robustness_table,
    robustness_title,
    severity_rows,
    summary_table,
)
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Image
from deepfer_yolo.report import plots
from deepfer_yolo.report.page import Page, percent
from deepfer_yolo.runs import ENVIRONMENT, write_metrics
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import shorter_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"
SHOWN_PX = 96
"""Images larger than this are reduced in the report, which would grow by megabytes otherwise."""


def write_files(
    result: Evaluation, dataset: Dataset, classifier: Classifier | None, config: EvaluateConfig, run: Path
) -> None:
    """Write `predictions.csv`, `report.html` and `metrics.json` into `run`. The csv has the labels of the manifest and
    every image that was asked for, whatever corrections made of them, so that --predictions can take it again.
    """
    write_atomic(run / PREDICTIONS, predictions_csv(result.uncorrected or result.scores))
    write_report(result, dataset, classifier, config, run / REPORT)
    write_metrics(run, result.to_json())  # last: it says that the run is whole


def write_report(
    result: Evaluation, dataset: Dataset, classifier: Classifier | None, config: EvaluateConfig, path: Path
) -> None:
    """Write the HTML report beside the run's `env.json`, which gives its header; figures also as PNG if asked for."""
    environment = json.loads((path.parent / ENVIRONMENT).read_text(encoding="utf-8"))
    page = Page(f"Evaluation of {result.name}", environment["command"], facts(result, environment))
    for text in remarks(result):
        page.add_text(text)
    page.add_table(*summary_table(result))
    figures = draw(result)
    page.add_heading("Classes")
    if len(result.metrics.labels) > plots.MAX_WRITTEN:
        page.add_figure(*figures["confusion_matrix"])
        mistakes = most_confused(result.metrics.confusion, result.metrics.labels)
        page.add_table(CONFUSION_HEADER, [(*row, percent(share)) for *row, share in mistakes], "The commonest mistakes")
        page.add_table(CLASS_HEADER, class_rows(result.metrics))
    else:
        page.add_table(CLASS_HEADER, class_rows(result.metrics))
        page.add_figure(*figures["confusion_matrix"])
    if result.scores.has_probs:
        page.add_heading("Confidence")
        page.add_figure(*figures["reliability"])
        page.add_figure(*figures["coverage"])
    for column, groups in result.groups.items():
        page.add_heading(f"By {column}")
        page.add_table(GROUP_HEADER, group_rows(groups))
    if result.robustness is not None:
        add_robustness(page, result, result.robustness, dataset, config, figures["robustness"])
    add_mistakes(page, result.scores, dataset, config, classifier)
    if config.save_plots:
        for name, (figure, _, _) in figures.items():
            plots.save_png(figure, path.parent / "plots" / f"{name}.png")
    page.write(path)


def facts(result: Evaluation, environment: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    """The conditions of the numbers, for the header."""
    data, versions = result.dataset, environment["versions"]
    n = result.metrics.n
    yield "data", f"{data.name}, split {data.split}, n = {n:,}, fingerprint {data.fingerprint[:12]}"
    if (model := result.model) is not None:
        yield "model", f"{model.path}, sha256 {model.sha256[:12]}, provider {model.provider}"
    for file in result.answers:
        yield "judged", f"{file}, {file.n:,} images"
    if result.tta == "flip":
        yield "views", "2 of each image, averaged (flip)"
    if result.excluded:
        yield "left out", f"the images listed in {result.excluded}"
    yield "made", environment["time"]
    yield "hardware", ", ".join([environment["cpu"], f"{environment['cores']} cores", *environment["gpus"]])
    names = ("deepfer-yolo", "onnxruntime", "numpy", "scipy")
    yield "versions", ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    if environment["commit"]:
        yield "commit", environment["commit"]


def remarks(result: Evaluation) -> Iterable[str]:
    """What a reader must know before the numbers, a paragraph each."""
    metrics = result.metrics
    yield (
        "The model labels the apparent expression in an image; it does not know what anyone feels. Figures are in per "
        f"cent where not stated otherwise, on {metrics.n:,} images. Intervals: {metrics.interval_method}."
    )
    if result.answers:
        yield "These are answers of files: what gave them, and which images it has learned, is not known here."
    if metrics.not_measured:
        yield f"Not measured, since labels came without probabilities: {', '.join(metrics.not_measured)}."
    if result.corrections is not None:
        yield " ".join(result.corrections.how.lines(result.dataset.split))
    if metrics.absent:
        yield f"This split has no image of: {', '.join(metrics.absent)}. Macro averages leave them out."
    for name, found in (result.learned_before.overlaps if result.learned_before else {}).items():
        for overlap in (found or {}).values():
            yield (
                f"{name} has learned {overlap.learned:,} of these images; {overlap.leaked:,} of them have no copy in "
                "the data's own train."
            )
    if result.clean is not None:
        yield f"“clean” leaves out the {result.n_removed:,} images that have an exact or near copy in train."
    if metrics.votes is not None:
        yield (
            "The last rows compare with the votes of several people per image: how often the answer, and the data "
            "set's own label, is what most of them chose, and the mean share of them that chose it."
        )


def draw(result: Evaluation) -> dict[str, tuple[Figure, str, str]]:
    """Every figure of the report by name, each with its caption and what it shows in words."""
    metrics, found = result.metrics, result.robustness
    figures = {
        "confusion_matrix": (
            plots.confusion_matrix(metrics.confusion, metrics.labels),
            "Each row is one label of the data set: the share predicted as each column"
            f"{', and the count' if len(metrics.labels) <= plots.MAX_WRITTEN else ''}.",
            f"Confusion matrix of {len(metrics.labels)} classes; top-1 {percent(metrics.top1)} %",
        ),
    }
    if metrics.reliability is not None:
        figures |= confidence_figures(result, metrics.reliability)
    if found is not None:
        figures["robustness"] = robustness_figure(found)
    return figures


def confidence_figures(result: Evaluation, bins: Reliability) -> dict[str, tuple[Figure, str, str]]:
    """What the probabilities are worth: the reliability diagram, and accuracy against coverage."""
    metrics = result.metrics
    shares = np.linspace(0.05, 1, 20).tolist()
    accuracy = selective_accuracy(*result.scores.checked(), shares)
    return {
        "reliability": (
            plots.reliability(bins.n, bins.confidence, bins.accuracy),
            f"Expected calibration error {percent(metrics.ece)} %; a perfectly calibrated model would show "
            f"{percent(metrics.ece_noise_floor)} % on this many images.",
            "Reliability diagram: accuracy against confidence in 15 bins",
        ),
        "coverage": (
            plots.curves(
                shares, {"top-1": list(accuracy.values())}, "share of the images kept, most confident first", "top-1"
            ),
            "What a threshold on the confidence buys: accuracy on the images that pass it.",
            "Accuracy against coverage",
        ),
    }


def robustness_figure(found: Robustness) -> tuple[Figure, str, str]:
    """Accuracy over severities by kind, its caption, and what it shows in words."""
    opinions = ("label", "votes") if found.clean.votes else ("label",)
    curves = {
        name: {opinion: [getattr(one, opinion).top1 for one in curve.severities] for opinion in opinions}
        for name, curve in found.kinds.items()
    }
    clean = {opinion: getattr(found.clean, opinion).top1 for opinion in opinions}
    return (
        plots.panels(range(1, SEVERITIES + 1), curves, clean, "severity", "share"),
        f"The share of {found.n:,} images answered as they are labelled"
        f"{', and as most voters see them,' if found.clean.votes else ''} by severity; dashed: clean.",
        f"Accuracy under {len(found.kinds)} kinds of corruption at {SEVERITIES} severities",
    )


def add_robustness(
    page: Page,
    result: Evaluation,
    found: Robustness,
    dataset: Dataset,
    config: EvaluateConfig,
    figure: tuple[Figure, str, str],
) -> None:
    """The tables, the curves, and one face under every kind."""
    page.add_heading("Robustness")
    page.add_text(
        f"Means over {SEVERITIES} severities at 48 pixels (docs/formats.md). F1 and ECE are against "
        f"{'what most voters see' if found.clean.votes else 'the labels'}. Training may show the nine "
        "and the further kinds in a form of its own; the unseen ones it never shows."
    )
    page.add_table(*robustness_table(found), caption=robustness_title(found))
    page.add_figure(*figure)
    page.add_table(SEVERITY_HEADER, severity_rows(found))
    surest = int(result.scores.probs.max(1).argmax())
    face = faces_of(list(load_images(dataset, [result.scores.rows[surest]])))
    shown = {name: next(corrupted(face, name, 3, config.seed))[0] for name in found.kinds}
    page.add_images(
        ((np.repeat(image, 3 // image.shape[2], axis=2), (name,)) for name, image in shown.items()),
        caption="One face under each kind, at severity 3:",
    )


def add_mistakes(
    page: Page, scores: Scores, dataset: Dataset, config: EvaluateConfig, classifier: Classifier | None
) -> None:
    """The worst mistakes, the first of them with a map of what decided, and the most uncertain ones; of labels without
    probabilities the first mistakes.
    """
    worst = worst_mistakes(scores, config.pictures)
    unsure = unsure_mistakes(scores, config.pictures // 2) if scores.has_probs else []
    title = "Worst mistakes" if scores.has_probs else "Mistakes, the first of them"
    for heading, mistakes in ((title, worst), ("Most uncertain mistakes", unsure)):
        if not mistakes:
            continue
        images = list(load_images(dataset, [scores.rows[i] for i in mistakes], config.workers))
        page.add_heading(heading)
        page.add_images((small(image), caption(scores, i)) for image, i in zip(images, mistakes, strict=True))
        if mistakes is worst and config.occlusion and classifier is not None:
            page.add_heading("What decided")
            page.add_text(
                "The model's input of the worst mistakes: where covering a patch lowers the probability of the given "
                "label (orange: this part speaks for it) or raises it (blue)."
            )
            explained = zip(images[: config.occlusion], worst, strict=False)
            page.add_images(explain(classifier, scores, image, i) for image, i in explained)


def worst_mistakes(scores: Scores, count: int) -> list[int]:
    """Rows of the mistakes in which the data set's label got the least probability, worst first."""
    return _mistakes(scores, nll_of(np.asarray(scores.probs, np.float64), scores.targets), count)


def unsure_mistakes(scores: Scores, count: int) -> list[int]:
    """Rows of the mistakes in which the two most probable labels were closest, closest first."""
    top = np.sort(scores.probs, axis=1)
    return _mistakes(scores, top[:, -2] - top[:, -1], count)


def _mistakes(scores: Scores, badness: NDArray[np.floating[Any]], count: int) -> list[int]:
    wrong = scores.probs.argmax(1) != scores.targets
    order = np.argsort(np.where(wrong, -badness, np.inf), kind="stable")
    return [int(i) for i in order[: min(count, int(wrong.sum()))]]


def explain(classifier: Classifier, scores: Scores, image: Image, i: int) -> tuple[Image, Sequence[str]]:
    """The model's input of row `i` with the map of what speaks for the label that the model gave, and its caption."""
    answer = scores.labels[int(scores.probs[i].argmax())]
    drop = occlusion_map(classifier, image, answer)
    lines = (f"speaks for {answer}", f"up to {100 * max(0, drop.max()):.0f} points", scores.rows[i].path)
    return overlay(classifier, image, drop), lines


def caption(scores: Scores, i: int) -> Sequence[str]:
    """What stands below the image of row `i`."""
    probs, target = scores.probs[i], int(scores.targets[i])
    answer = int(probs.argmax())
    if not scores.has_probs:
        return f"answer: {scores.labels[answer]}", f"label: {scores.labels[target]}", scores.rows[i].path
    return (
        f"answer: {scores.labels[answer]} {probs[answer]:.0%}",
        f"label: {scores.labels[target]} {probs[target]:.1%}",
        scores.rows[i].path,
    )


def small(image: Image) -> Image:
    """An image as the report shows it."""
    return shorter_side(image, SHOWN_PX) if min(image.shape[:2]) > SHOWN_PX else image
