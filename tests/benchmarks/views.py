"""What a mirrored second view gives, and where the gain goes: `evaluate --tta flip` taken apart.

.venv/bin/python tests/benchmarks/views.py DATASET deepfer-n deepfer-cnn [--split val]

For each model: how often the two views differ, how often each is right alone and both together (their geometric mean),
and the gain over the mean of the two views and over the plain one, with standard errors over the images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from deepfer_yolo import Classifier
from deepfer_yolo.data.dataset import load_images, open_dataset


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
    print(
        "| model | views differ | plain right | mirrored right | both right | over their mean | over the plain view |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in options.models:
        classifier = Classifier(name)
        truth = np.array([classifier.labels.index(row.label) for row in rows])
        plain = classifier.predict_images(images)
        mirrored = classifier.predict_images([np.ascontiguousarray(image[:, ::-1]) for image in images])
        both = np.log(np.clip((plain, mirrored), 1e-9, 1)).sum(0)
        answers = [probs.argmax(1) for probs in (plain, mirrored, both)]
        right = [(answer == truth).astype(float) for answer in answers]
        gains = right[2] - (right[0] + right[1]) / 2, right[2] - right[0]
        shares = [f"{100 * values.mean():.1f} %" for values in (answers[0] != answers[1], *right)]
        points = [f"{100 * gain.mean():+.2f} ± {100 * gain.std() / len(gain) ** 0.5:.2f}" for gain in gains]
        print(f"| {' | '.join([name, *shares, *points])} |")


if __name__ == "__main__":
    main()
