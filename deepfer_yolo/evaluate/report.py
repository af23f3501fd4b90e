"""The report of an evaluation: what the numbers are, where the model errs, and on which pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.evaluate.metrics import nll_of, selective_accuracy
from deepfer_yolo.evaluate.predictions import N_VIEWS, Scores
from deepfer_yolo.evaluate.robustness import occlusion_map, overlay
from deepfer_yolo.records import Image
from deepfer_yolo.report import plots
from deepfer_yolo.report.page import Page
from deepfer_yolo.report.plots import save_png
from deepfer_yolo.report.tables import interval, percent
from deepfer_yolo.runs import ENVIRONMENT
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import shorter_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN_PX = 96
"""Pictures larger than this are reduced in the report, which would grow by megabytes otherwise."""


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


def add_mistakes(page: Page, scores: Scores, dataset: Dataset, config: EvaluateConfig, classifier: Classifier) -> None:
    """Two galleries: the worst mistakes, the first of them with a map of what decided, and the most uncertain ones."""
    worst = worst_mistakes(scores, config.pictures)
    if worst:
        images = read(dataset, scores, worst, config.workers)
        page.add_heading("Worst mistakes")
        page.add_pictures((small(image), caption(scores, i)) for image, i in zip(images, worst, strict=True))
        if config.occlusion:
            page.add_heading("What decided")
            page.add_text(
                "The model's input of the worst mistakes: where covering a patch lowers the probability of the given label (orange: this part "
                "speaks for it) or raises it (blue)."
            )
            page.add_pictures(explained(classifier, scores, images[: config.occlusion], worst))
    unsure = unsure_mistakes(scores, config.pictures // 2)
    if unsure:
        page.add_heading("Most uncertain mistakes")
        images = read(dataset, scores, unsure, config.workers)
        page.add_pictures((small(image), caption(scores, i)) for image, i in zip(images, unsure, strict=True))


def explained(
    classifier: Classifier, scores: Scores, images: Sequence[Image], rows: Sequence[int]
) -> list[tuple[Image, Sequence[str]]]:
    """Each picture with the map of what speaks for the label that the model gave."""
    shown: list[tuple[Image, Sequence[str]]] = []
    for image, i in zip(images, rows, strict=False):
        guess = scores.labels[int(scores.probs[i].argmax())]
        drop = occlusion_map(classifier, image, guess)
        shown.append(
            (
                overlay(classifier, image, drop),
                (f"speaks for {guess}", f"up to {100 * max(0, drop.max()):.0f} points", scores.rows[i].path),
            )
        )
    return shown


def read(dataset: Dataset, scores: Scores, rows: Sequence[int], workers: int) -> list[Image]:
    """The pictures of these rows."""
    return list(load_images(dataset, [scores.rows[i] for i in rows], workers))


def caption(scores: Scores, i: int) -> Sequence[str]:
    """What stands below a picture."""
    probs, target = scores.probs[i], int(scores.targets[i])
    guess = int(probs.argmax())
    return (
        f"answer: {scores.labels[guess]} {probs[guess]:.0%}",
        f"label: {scores.labels[target]} {probs[target]:.1%}",
        scores.rows[i].path,
    )


def small(image: Image) -> Image:
    """A picture as the report shows it."""
    return shorter_side(image, SHOWN_PX) if min(image.shape[:2]) > SHOWN_PX else image


HEADLINE = {
    "top1": "top-1 accuracy", "top2": "top-2 accuracy", "top5": "top-5 accuracy", "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision", "macro_recall": "macro recall", "macro_f1": "macro F1",
    "weighted_precision": "weighted precision", "weighted_recall": "weighted recall", "weighted_f1": "weighted F1",
}  # fmt: skip
"""Shares of 1, shown in per cent."""
LOSSES = {"nll": "NLL (nats)", "brier": "Brier score (0–2)"}


def summary_table(result: Mapping[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of the headline figures with their 95 % intervals; shares in per cent.

    `clean` gets columns of its own.
    """
    rows = summary_rows(result)
    clean = result.get("clean")
    if clean is None:
        return ("figure", "value", "95 % interval"), rows
    others = summary_rows(clean)
    rows = [[*row, *other[1:]] for row, other in zip_longest(rows, others, fillvalue=["", "–", ""])]
    return ("figure", f"all {result['n']:,}", "95 % interval", f"clean {clean['n']:,}", "95 % interval"), rows


def summary_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Name, value and 95 % interval of each headline figure; shares in per cent."""
    spans = result.get("intervals", {})
    rows = [[title, percent(result[key]), interval(*spans.get(key, (None, None)))] for key, title in HEADLINE.items()]
    for key, title in LOSSES.items():
        low, high = spans.get(key, (None, None))
        rows.append([title, f"{result[key]:.3f}", "" if low is None else f"{low:.3f}–{high:.3f}"])
    rows.append(["ECE, 15 bins", percent(result["ece"]), f"floor {percent(result['ece_noise_floor'])}"])
    sure = spans.get("selective_accuracy", {})
    rows += [
        [f"top-1, surest {share}", percent(value), interval(*sure.get(share, (None, None)))]
        for share, value in result["selective_accuracy"].items()
    ]
    if "votes" in result:
        votes = result["votes"]
        rows.append(["agrees with most votes", percent(votes["majority_top1"]), interval(*votes["majority_interval"])])
        rows.append(["  the set's label does", percent(votes["label_majority_top1"]), f"n {votes['n_clear']:,}"])
        rows.append(["votes for its answer", percent(votes["vote_share"]), f"n {votes['n']:,}"])
        rows.append(["  for the set's label", percent(votes["label_vote_share"]), ""])
    return rows


def group_rows(groups: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Value, pictures, top-1 with its exact interval and macro F1 of each group."""
    return [
        [
            row["value"] or "(empty)",
            str(row["n"]),
            percent(row["top1"]),
            interval(*row["interval"]),
            percent(row["macro_f1"]),
        ]
        for row in groups
    ]


def sweep_rows(robustness: Mapping[str, Any]) -> list[list[str]]:
    """Change, level, top-1 and macro F1; the first row is the unchanged picture."""
    rows = [["unchanged", "", *(percent(robustness["unchanged"][key]) for key in ("top1", "macro_f1"))]]
    for name, change in robustness["changes"].items():
        rows += [
            [name, f"{point['level']:g}", percent(point["top1"]), percent(point["macro_f1"])]
            for point in change["points"]
        ]
    return rows


def class_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Label, precision, recall, F1 in per cent, the interval of F1, and how many pictures."""
    return [
        [
            label,
            *(percent(row[key]) for key in ("precision", "recall", "f1")),
            interval(*row.get("f1_interval", (None, None))),
            str(row["support"]),
        ]
        for label, row in result["per_class"].items()
    ]


GROUP_HEADER = ("value", "pictures", "top-1 %", "95 % interval", "macro F1 %")
SWEEP_HEADER = ("change", "level", "top-1 %", "macro F1 %")
CLASS_HEADER = ("class", "precision %", "recall %", "F1 %", "95 % of F1", "pictures")


def write_report(
    path: Path,
    result: Mapping[str, Any],
    scores: Scores,
    dataset: Dataset,
    config: EvaluateConfig,
    classifier: Classifier,
) -> Path:
    """Write the HTML report beside the run's `env.json`, whose content becomes its header; figures also as PNG with
    `save_plots`.
    """
    environment = json.loads((path.parent / ENVIRONMENT).read_text(encoding="utf-8"))
    page = Page(f"Evaluation of {result['model']['name']}", environment["command"], list(facts(result, environment)))
    page.add_text(
        "The model labels the apparent expression in a picture; it does not know what anyone feels. "
        f"Figures are in per cent where not stated otherwise, on {result['n']:,} pictures. Intervals: {result['interval_method']}."
    )
    if result["absent"]:
        page.add_text(f"This split has no picture of: {', '.join(result['absent'])}. Macro averages leave them out.")
    for name, found in (result.get("learned_before") or {}).items():
        for overlap in (found or {}).values():
            page.add_text(
                f"{name} has learned {overlap['learned']:,} of these pictures; {overlap['leaked']:,} of them have no copy in the data's own train."
            )
    if "clean" in result:
        page.add_text(
            f"“clean” leaves out the {result['clean']['n_removed']:,} pictures that have an exact or near copy in train."
        )
    if "votes" in result:
        page.add_text(
            "The last rows compare with the votes of several people a picture: how often the answer, and the data set's own label, is what most "
            "of them chose, and the mean share of them that chose it."
        )
    header, rows = summary_table(result)
    page.add_table(header, rows)
    figures = draw(result, scores)
    page.add_heading("Classes")
    page.add_table(CLASS_HEADER, class_rows(result))
    page.add_figure(*figures["confusion_matrix"])
    page.add_heading("Confidence")
    page.add_figure(*figures["reliability"])
    page.add_figure(*figures["coverage"])
    for column, groups in result.get("groups", {}).items():
        page.add_heading(f"By {column}")
        page.add_table(GROUP_HEADER, group_rows(groups))
    if "robustness" in result:
        page.add_heading("Robustness")
        page.add_figure(*figures["robustness"])
        page.add_table(SWEEP_HEADER, sweep_rows(result["robustness"]))
    add_mistakes(page, scores, dataset, config, classifier)
    if config.save_plots:
        for name, (figure, _, _) in figures.items():
            save_png(figure, path.parent / "plots" / f"{name}.png")
    return page.write(path)


def draw(result: Mapping[str, Any], scores: Scores) -> dict[str, tuple[Figure, str, str]]:
    """Every figure of the report by name, each with its caption and what it shows in words."""
    bins = result["reliability"]
    shares = np.linspace(0.05, 1, 20)
    accuracy = selective_accuracy(np.asarray(scores.probs, np.float64), scores.targets, shares.tolist())
    figures = {
        "confusion_matrix": (
            plots.confusion_matrix(result["confusion"], result["labels"]),
            "Each row is one label of the data set: the share predicted as each column, and the count.",
            f"Confusion matrix of {len(result['labels'])} classes; top-1 {percent(result['top1'])} %",
        ),
        "reliability": (
            plots.reliability(bins["n"], bins["confidence"], bins["accuracy"]),
            f"Expected calibration error {percent(result['ece'])} %; a perfectly calibrated model would show "
            f"{percent(result['ece_noise_floor'])} % on this many pictures.",
            "Reliability diagram: accuracy against confidence in 15 bins",
        ),
        "coverage": (
            plots.curves(
                shares.tolist(),
                {"top-1": list(accuracy.values())},
                "share of the pictures kept, most confident first",
                "top-1",
            ),
            "What a threshold on the confidence buys: accuracy on the pictures that pass it.",
            "Accuracy against coverage",
        ),
    }
    if "robustness" in result:
        figures["robustness"] = (
            plots.panels(
                {
                    name: (
                        [str(point["level"]) for point in change["points"]],
                        [point["top1"] for point in change["points"]],
                        change["meaning"],
                    )
                    for name, change in result["robustness"]["changes"].items()
                },
                result["robustness"]["unchanged"]["top1"],
                "top-1",
            ),
            f"Top-1 on {result['robustness']['n']:,} pictures as they get worse; the dashed line is the unchanged picture.",
            "Robustness curves",
        )
    return figures


def facts(result: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterable[tuple[str, object]]:
    """The conditions of the numbers, for the header."""
    data, model, versions = result["dataset"], result["model"], environment["versions"]
    yield "data", f"{data['name']}, split {data['split']}, n = {result['n']:,}, fingerprint {data['fingerprint'][:12]}"
    yield "model", f"{model['path']}, sha256 {model['sha256'][:12]}, provider {model['provider']}"
    if result["tta"] != "none":
        yield "views", f"{N_VIEWS[result['tta']]} of each picture, averaged ({result['tta']})"
    if result["excluded"]:
        yield "left out", f"the pictures listed in {result['excluded']}"
    yield "made", environment["time"]
    yield (
        "hardware",
        f"{environment['cpu']}, {environment['cores']} cores" + "".join(f", {gpu}" for gpu in environment["gpus"]),
    )
    yield (
        "versions",
        ", ".join(
            f"{name} {versions[name]}"
            for name in ("deepfer-yolo", "onnxruntime", "numpy", "scikit-learn")
            if name in versions
        ),
    )
    if environment["commit"]:
        yield "commit", environment["commit"]
