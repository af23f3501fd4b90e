"""When a face is seen too badly for a label: accuracy by size, light, contrast and sharpness, and against coverage.

Clean images, darker ones, and the nine corruptions at five severities, judged by what most FER+ voters see. For each
figure of quality: what is answered rightly just around a limit, what a limit would take away of clean images, and of
all. Then accuracy against coverage, images left out from the worst seen (by the figure that comes nearest its limit),
from the least confident, or those below a limit first. The limits are the defaults of LabelConfig; a good one stands
where fewer than two of five images are answered rightly, and takes hardly a clean one.

.venv/bin/python tests/benchmarks/quality.py MODEL --data datasets/fer2013 [--n 1000] [--csv FILE] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from robustness import Images

from deepfer_yolo.config import LabelConfig
from deepfer_yolo.evaluate.corruptions import KINDS, NINE, SEVERITIES, SIDE, corrupted
from deepfer_yolo.evaluate.predictions import columns
from deepfer_yolo.faces.quality import lack_of, quality_of
from deepfer_yolo.records import Face, Quality
from deepfer_yolo.report import plots
from deepfer_yolo.runtime.card import CropSpec
from deepfer_yolo.runtime.classifier import Classifier

Floats = NDArray[np.float64]
FIGURES = ("size_px", "brightness", "contrast", "sharpness")
EDGES = {
    "size_px": (10, 13, 16, 19, 24, 30),
    "brightness": (0, 20, 30, 40, 50, 60, 80, 120, 180, 220, 256),
    "contrast": (0, 5, 10, 15, 20, 25, 30, 40, 60, 128),
    "sharpness": (0, 0.03, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5, 0.7, 0.85, 1, 1.2, 1.5, 2, 9),
}
DARKER, GREYS = "darker", (12, 16, 20, 25, 30, 35, 45)
"""Beside the corruptions: images that are made darker without noise, to these mean grey values."""
COVERAGES = tuple(np.linspace(0.3, 1, 29).round(3).tolist())


class Seen:
    """Every image under every condition: its quality, and whether and how surely it is answered rightly."""

    def __init__(self) -> None:
        self.quality: list[Quality] = []
        self.lacks: list[str | None] = []
        self.conditions: list[str] = []
        self._right: list[NDArray[np.bool_]] = []
        self._confidences: list[NDArray[np.float32]] = []

    def add(self, model: Classifier, images: Images, faces: NDArray[np.uint8], condition: str, side: float) -> None:
        """Answer the faces of one condition, `side` pixels large in their image."""
        crops = np.ascontiguousarray(np.broadcast_to(faces, (*faces.shape[:3], 3)))
        probs = columns(model.predict_images(list(crops)), model.labels, images.opinions.labels)
        width = side / (1 + 2 * CropSpec().margin)
        face = Face(np.array([0, 0, width, width], np.float32), 1.0)
        found = [quality_of(face, crop) for crop in crops]
        self.quality += found
        self.lacks += [lack_of(one, LabelConfig()) for one in found]
        self.conditions += [condition] * len(crops)
        self._right.append(probs.argmax(1) == images.opinions.votes)
        self._confidences.append(probs.max(1))

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.concatenate(self._right)

    @property
    def confidence(self) -> NDArray[np.float32]:
        return np.concatenate(self._confidences)

    def figure(self, name: str) -> Floats:
        return np.array([getattr(one, name) for one in self.quality], np.float64)


def margins(seen: Seen) -> Floats:
    """The least figure of each image as a multiple of its limit."""
    config = LabelConfig()
    limits = (config.min_face_px, config.min_brightness, config.min_contrast, config.min_sharpness)
    multiples = [seen.figure(name) / limit for name, limit in zip(FIGURES, limits, strict=True)]
    multiples.append(config.max_sharpness / np.maximum(seen.figure("sharpness"), 1e-6))
    return np.asarray(np.min(multiples, axis=0), np.float64)


def bins(seen: Seen, name: str, chosen: NDArray[np.bool_]) -> list[str]:
    """Accuracy and confidence between each two edges, and what a limit at the upper one would leave out."""
    values, right, confidence = seen.figure(name), seen.right, seen.confidence
    clean = np.array(seen.conditions) == "clean"
    rows = []
    for low, high in zip(EDGES[name], EDGES[name][1:], strict=False):
        inside = chosen & (values >= low) & (values < high)
        if inside.any():
            gone = f"{(values[clean] < high).mean():7.1%} {(values[chosen] < high).mean():7.1%}"
            figures = f"{inside.sum():6d} {right[inside].mean():7.1%} {confidence[inside].mean():7.1%}"
            rows.append(f"{name:10s} {low:6g} to {high:6g} {figures} {gone}")
    return rows


def coverage(order: Floats, right: NDArray[np.bool_]) -> list[float]:
    """Accuracy on the share of images that come first in falling `order`, for each of COVERAGES."""
    ranked = right[np.argsort(-order, kind="stable")]
    return [float(ranked[: max(1, round(share * len(ranked)))].mean()) for share in COVERAGES]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()

    from deepfer_yolo.cli.options import open_classifier

    model = open_classifier(arguments.model, threads=arguments.threads)
    images = Images.of(arguments.data, arguments.split, arguments.n).with_votes()
    seen = Seen()
    seen.add(model, images, images.faces, "clean", SIDE)
    for name in (name for name, kind in KINDS.items() if kind.group == NINE):
        for severity in range(1, SEVERITIES + 1):
            side = KINDS[name].levels[severity - 1] if name == "small face" else SIDE
            changed = np.concatenate(list(corrupted(images.faces, name, severity)))
            seen.add(model, images, changed, name, side)
    for grey in GREYS:
        mean = images.faces.mean((1, 2, 3), keepdims=True)
        darker = np.round(images.faces * np.minimum(1, grey / mean)).astype(np.uint8)
        seen.add(model, images, darker, DARKER, SIDE)
    print(f"{model.card.name}, n = {len(images.faces):,} of {arguments.split} with a clear majority of votes")
    report(seen)
    lines = {
        "quality": coverage(margins(seen), seen.right),
        "confidence": coverage(seen.confidence.astype(np.float64), seen.right),
        "both": coverage(np.where(margins(seen) < 1, -1, seen.confidence), seen.right),
    }
    rows = [(share, *(f"{line[i]:.4f}" for line in lines.values())) for i, share in enumerate(COVERAGES)]
    if arguments.csv:
        with arguments.csv.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows((("coverage", *lines), *rows))
    if arguments.plot:
        figure = plots.curves(COVERAGES, lines, "share of the images kept", "answered as most voters see them")
        plots.save_png(figure, arguments.plot)


def report(seen: Seen) -> None:
    """The tables by figure, and what the limits of LabelConfig leave out, by condition and by reason."""
    conditions = np.array(seen.conditions)
    everything = np.ones(len(conditions), bool)
    about = {
        "size_px": conditions == "small face",
        "brightness": np.isin(conditions, ("clean", DARKER, "over-exposure")),
        "contrast": np.isin(conditions, ("clean", DARKER, "over-exposure")),
        "sharpness": np.isin(conditions, ("clean", "small face", "defocus", "motion", "noise", "low light")),
    }
    print("figure       from     to      n   right    sure  of clean of all, below the upper edge")
    for name in FIGURES:
        print(*bins(seen, name, about[name]), sep="\n")
    lacks = np.array([lack or "" for lack in seen.lacks])
    print("\ncondition      left out   right: all    kept    left out")
    for name in ("clean", *dict.fromkeys(conditions[conditions != "clean"]), "all"):
        chosen = everything if name == "all" else conditions == name
        gone = chosen & (lacks != "")
        shares = [seen.right[part].mean() if part.any() else np.nan for part in (chosen, chosen & (lacks == ""), gone)]
        print(f"{name:14s} {gone.sum() / chosen.sum():7.1%}  ", *(f"{share:9.1%}" for share in shares))
    for reason in ("small", "dark", "flat", "blurred", "noisy"):
        part = lacks == reason
        if part.any():
            right, sure = seen.right[part].mean(), seen.confidence[part].mean()
            print(f"{reason:14s} {part.mean():7.1%} of all, {right:.1%} right, sure {sure:.1%}")


if __name__ == "__main__":
    main()
