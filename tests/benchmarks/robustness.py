"""Models side by side under corruption: what `deepfer evaluate --robustness` measures, as one line a model.

Shares of images answered as most FER+ voters see them and as FER2013 labels them: clean, mean of the nine kinds, mean
of the unseen ones, each over five severities; macro F1 and ECE against the votes. For choosing among checkpoints on a
part of the images; `.pt` files need a card beside them (deepfer card).

.venv/bin/python tests/benchmarks/robustness.py MODEL… --data datasets/fer2013 [--n 1000] [--kinds nine] [--device cuda]

With --statistics, the table of docs/formats.md: how images look at severities 1, 3 and 5.

From a program: `measured(predict, images, config)`, where `predict` takes uint8 (n, 48, 48, 3) and answers with
probabilities in the data set's order of labels, and `images` is `Images.of(folder, split, n)`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.evaluate.corruptions import KINDS, corrupted, faces_of
from deepfer_yolo.evaluate.predictions import Scores, columns
from deepfer_yolo.evaluate.robustness import Condition, Opinions, Predict, Robustness, drawn, withstood
from deepfer_yolo.evaluate.subsets import clear_majorities, take

HEADER = ("model", "FER+", "nine", "unseen", "label", "nine", "unseen", "F1", "nine", "ECE", "nine", "unseen", "s")


@dataclass(frozen=True)
class Images:
    """Faces of one split, and what is known about them."""

    faces: NDArray[np.uint8]
    opinions: Opinions

    @classmethod
    def of(cls, folder: Path, split: str = "val", n: int = 1_000_000) -> Images:
        """At most `n` images of a data set folder, in proportion of the classes; the same ones every time."""
        dataset = open_dataset(folder)
        labels, rows = dataset.labels, tuple(dataset.rows(split))
        targets = np.array([labels.index(row.label) for row in rows], np.int64)
        scores = Scores(rows, labels, targets, np.zeros((len(rows), len(labels)), np.float32))
        part = take(scores, drawn(scores, n, 0))
        opinions = Opinions(labels, part.targets, clear_majorities(part), part.subjects)
        return cls(faces_of(list(load_images(dataset, part.rows))), opinions)

    def with_votes(self) -> Images:
        """Those of which most voters chose one label."""
        keep, all_of = np.flatnonzero(self.opinions.votes >= 0), self.opinions
        subjects = [all_of.subjects[i] for i in keep.tolist()] if all_of.subjects else []
        return Images(self.faces[keep], Opinions(all_of.labels, all_of.label[keep], all_of.votes[keep], subjects))


def measured(predict: Predict, images: Images, config: EvaluateConfig | None = None) -> Robustness:
    """What one model withstands."""
    return withstood(predict, images.faces, images.opinions, config or EvaluateConfig())


def line(found: Robustness) -> list[str]:
    """The columns of HEADER but for the first and the last, in per cent."""
    conditions = [found.clean, found.means.get("nine"), found.means.get("unseen")]

    def cells(opinion: str, figure: str, count: int) -> list[str]:
        return [cell(one, opinion, figure) for one in conditions[:count]]

    opinion = "votes" if found.clean.votes else "label"
    shares = cells("votes", "top1", 3) + cells("label", "top1", 3)
    return shares + cells(opinion, "macro_f1", 2) + cells(opinion, "ece", 3)


def cell(one: Condition | None, opinion: str, figure: str) -> str:
    """One figure in per cent; a dash where it was not measured."""
    agreement = getattr(one, opinion, None)
    return f"{100 * getattr(agreement, figure):.1f}" if agreement else "–"


def statistics(faces: NDArray[np.uint8]) -> list[str]:
    """Each kind with its levels and, at severities 1, 3 and 5, means over the images: grey value, standard deviation,
    mean size of the Laplacian, and root of the mean squared difference to the clean image.
    """

    def figures(changed: NDArray[np.uint8]) -> list[float]:
        grey = changed.astype(np.float64).mean(3)
        laplacian = (
            grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * grey[:, 1:-1, 1:-1]
        )
        difference = np.sqrt(((changed.astype(np.float64) - faces) ** 2).mean((1, 2, 3)))
        means = (grey, grey.std((1, 2)), np.abs(laplacian), difference)
        return [float(values.mean()) for values in means]

    rows = ["| clean | | | {:.0f} | {:.0f} | {:.0f} | 0 |".format(*figures(faces))]
    for name, kind in KINDS.items():
        shown = [figures(np.concatenate(list(corrupted(faces, name, severity)))) for severity in (1, 3, 5)]
        cells = [" · ".join(f"{value:.0f}" for value in column) for column in zip(*shown, strict=True)]
        levels = ", ".join(f"{level:g}" for level in kind.levels)
        rows.append(f"| {name} | {kind.meaning} | {levels} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--kinds", nargs="*", default=())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--statistics", action="store_true")
    arguments = parser.parse_args()

    from deepfer_yolo.cli.options import open_classifier

    images = Images.of(arguments.data, arguments.split, arguments.n)
    if arguments.statistics:
        print(*statistics(images.faces), sep="\n")
        return
    config = EvaluateConfig(robustness_kinds=arguments.kinds)
    n_clear = int((images.opinions.votes >= 0).sum())
    print(f"{arguments.data.name}, {arguments.split}, n = {len(images.faces):,}, clear majority of votes {n_clear:,}")
    width = max(map(len, map(str, arguments.models)))
    print(f"{HEADER[0]:{width}s}", *(f"{title:>6s}" for title in HEADER[1:]))
    for name in arguments.models:
        classifier = open_classifier(name, provider=arguments.device, threads=arguments.threads)
        began = time.perf_counter()
        found = measured(
            lambda crops, model=classifier: columns(
                model.predict_images(list(crops)), model.labels, images.opinions.labels
            ),
            images,
            config,
        )
        print(f"{name!s:{width}s}", *(f"{text:>6s}" for text in (*line(found), f"{time.perf_counter() - began:.0f}")))


if __name__ == "__main__":
    main()
