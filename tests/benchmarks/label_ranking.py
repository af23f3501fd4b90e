"""How well models rank the wrong labels of images that they have not learned: FER2013's PublicTest, without the images
that have a copy in Training, with the majority of FER+'s voters as the truth.

.venv/bin/python tests/benchmarks/label_ranking.py DATASET [MODEL…]

DATASET is FER2013 converted with --ferplus; MODEL… are the shipped ones where none is named. What `audit --with-model`
ranks first is held against the majority; chance is the share of all images that the majority sees otherwise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.audit.label_errors import rank
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.data.duplicates import copies_in_train
from deepfer_yolo.data.ferplus import majority, parse_votes
from deepfer_yolo.evaluate.predictions import score_dataset
from deepfer_yolo.evaluate.subsets import without
from deepfer_yolo.runtime.classifier import Classifier

SHIPPED = ("deepfer-live", "deepfer-n", "deepfer-cnn", "deepfer-xs")
SHARES = (0.01, 0.05, 0.10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="*", default=SHIPPED)
    options = parser.parse_args()
    dataset = open_dataset(options.dataset)
    copied = copies_in_train(dataset, "val")
    for name in options.models:
        scores = without(score_dataset(Classifier(Path(name)), dataset, ScoringConfig(split="val")), copied)
        seen = [majority(parse_votes(row.votes)) for row in scores.rows]
        wrong = np.array([most not in (None, row.label) for most, row in zip(seen, scores.rows, strict=True)])
        order = rank(scores.targets, scores.probs.astype(np.float64)).order
        cells = []
        for share in SHARES:
            first = wrong[order[: round(share * len(order))]]
            cells.append(f"first {share:.0%}: {first.sum()} of {len(first)}, {first.mean() / wrong.mean():.2f} ×")
        print(f"{name}, n = {len(wrong):,}, chance {wrong.mean():.1%}; {'; '.join(cells)}")


if __name__ == "__main__":
    main()
