"""What a mirrored second view gives, and where the gain goes: `evaluate --tta flip` taken apart.

.venv/bin/python tests/benchmarks/views.py DATASET deepfer-n deepfer-cnn [--split val]

For each model: how often the two views differ, how often each is right alone and both together (their geometric mean),
and the gain over the mean of the two views and over the plain one, with standard errors over the images. The mean of
six views, each answered alone, tells models of one kind apart with less noise than one view does: as it is, mirrored,
and each moved by MOVED pixels to either side or up and down.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from deepfer_yolo import Classifier
from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.records import Image

MOVED = 1


def moved(image: Image, down: int, right: int) -> Image:
    """`image` moved by so many pixels, its edge repeated."""
    padded = np.pad(image, [(MOVED, MOVED)] * 2 + [(0, 0)] * (image.ndim - 2), mode="edge")
    top, left = MOVED - down, MOVED - right
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def six_views(images: list[Image]) -> list[list[Image]]:
    """The images as they are, mirrored, and moved."""
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    sideways, upright = ([(0, MOVED), (0, -MOVED)], [(MOVED, 0), (-MOVED, 0)])
    return [
        images,
        mirrored,
        *([moved(image, *by) for image in images] for by in sideways),
        *([moved(image, *by) for image in mirrored] for by in upright),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    dataset = open_dataset(options.dataset)
    rows = dataset.rows(options.split)
    images = list(load_images(dataset, rows))
    print(f"{len(images):,} images of {dataset.name}, {options.split}\n")
    views = six_views(images)
    print(
        "| model | views differ | plain right | mirrored right | both right | over their mean | over the plain view | "
        "mean of six |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in options.models:
        classifier = Classifier(name)
        truth = np.array([classifier.labels.index(row.label) for row in rows])
        probs = [classifier.predict_images(view) for view in views]
        both = np.log(np.clip(probs[:2], 1e-9, 1)).sum(0)
        answers = [each.argmax(1) for each in (*probs[:2], both)]
        right = [(answer == truth).astype(float) for answer in answers]
        gains = right[2] - (right[0] + right[1]) / 2, right[2] - right[0]
        shares = [f"{100 * values.mean():.1f} %" for values in (answers[0] != answers[1], *right)]
        points = [f"{100 * gain.mean():+.2f} ± {100 * gain.std() / len(gain) ** 0.5:.2f}" for gain in gains]
        six = float(np.mean([(each.argmax(1) == truth).mean() for each in probs]))
        print(f"| {' | '.join([name, *shares, *points, f'{100 * six:.1f} %'])} |")


if __name__ == "__main__":
    main()
