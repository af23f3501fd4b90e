"""The pictures of a report: the worst mistakes, the most uncertain ones, and what decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.evaluate.metrics import nll_of
from deepfer_yolo.evaluate.occlusion import occlusion_map, overlay
from deepfer_yolo.evaluate.score import Scores
from deepfer_yolo.records import Image
from deepfer_yolo.report.page import Page
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import shorter_side

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


def explained(classifier: Classifier, scores: Scores, images: Sequence[Image], rows: Sequence[int]) -> list[tuple[Image, Sequence[str]]]:
    """Each picture with the map of what speaks for the label that the model gave."""
    shown: list[tuple[Image, Sequence[str]]] = []
    for image, i in zip(images, rows, strict=False):
        guess = scores.labels[int(scores.probs[i].argmax())]
        drop = occlusion_map(classifier, image, guess)
        shown.append((overlay(classifier, image, drop), (f"speaks for {guess}", f"up to {100 * max(0, drop.max()):.0f} points", scores.rows[i].path)))
    return shown


def read(dataset: Dataset, scores: Scores, rows: Sequence[int], workers: int) -> list[Image]:
    """The pictures of these rows."""
    return list(load_images(dataset, [scores.rows[i] for i in rows], workers))


def caption(scores: Scores, i: int) -> Sequence[str]:
    """What stands below a picture."""
    probs, target = scores.probs[i], int(scores.targets[i])
    guess = int(probs.argmax())
    return (f"answer: {scores.labels[guess]} {probs[guess]:.0%}", f"label: {scores.labels[target]} {probs[target]:.1%}", scores.rows[i].path)


def small(image: Image) -> Image:
    """A picture as the report shows it."""
    return shorter_side(image, SHOWN_PX) if min(image.shape[:2]) > SHOWN_PX else image
