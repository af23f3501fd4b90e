"""Does it pay to correct labels? FER2013's Training, with the majority of FER+'s voters as the reviewer.

First how many of the labels that stand worst are not the majority's: by `audit`'s ranking, by cleanlab's two orders
with the same answers, and as chance would find them; of all images, and of those on which seven of ten voters agree.
Then the reviewer corrects the worst 1, 2, 5 and 10 %, by each order: a label that has a majority becomes it, an image
whose majority is no label here (contempt) is left out, one without a majority stays as it is. `fer2013-fast` is trained
on what that gives, its last epoch is judged on PublicTest: by the majority, and by FER2013's own label.

.venv/bin/python tests/benchmarks/review_curve.py DATASET BACKBONE.pt --work FOLDER [--csv docs/training/review.csv]
[--plot FILE.png] [--seeds 3] [--threads 1] [--no-train]

DATASET is FER2013 converted with --ferplus, BACKBONE.pt an ImageNet checkpoint of yolo26n-cls. The answers come from a
cross-validation of Training (`deepfer train --folds 5`), kept in FOLDER; each training is one row of the csv. What is
there is not done again, so that the same command goes on after a stop. One core: `taskset -c 1`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.audit.label_errors import rank
from deepfer_yolo.data.dataset import Dataset, Row, open_dataset, read_description, register
from deepfer_yolo.data.ferplus import majority, parse_votes
from deepfer_yolo.emotions import FERPLUS_COLUMNS
from deepfer_yolo.evaluate.answers import read_answers
from deepfer_yolo.evaluate.predictions import PREDICTIONS, score_dataset
from deepfer_yolo.presets import configs_dir, read_yaml
from deepfer_yolo.report import plots
from deepfer_yolo.yolo import TorchClassifier

PRESET = "fer2013-fast"
PER_CENT = ((0, 5), (10,), (2,), (1,))
"""How much of Training is reviewed: what is trained before the next ones, each seed with all of them."""
ORDERS = ("audit", "random", "cleanlab")
CLEAR = 7
"""Votes of ten that make a majority a clear one."""
Cells = dict[str, object]
Order = NDArray[np.int64]
Flags = NDArray[np.bool_]


def seen_by_most(row: Row) -> str | None:
    """The label that the majority of voters gives, by the paper's rule; None where there is none."""
    votes = parse_votes(row.votes)
    return majority({label: votes.get(label, 0) for label in FERPLUS_COLUMNS})


@dataclass(frozen=True)
class Material:
    """Training's images with the answers of a cross-validation, and what the reviewer says of each."""

    data: Dataset
    rows: tuple[Row, ...]
    probs: NDArray[np.float64]
    given: NDArray[np.int64]

    @classmethod
    def read(cls, training: Dataset, predictions: Path) -> Material:
        scores, _ = read_answers([predictions], training, ScoringConfig(split="train"))
        return cls(training, scores.rows, scores.checked()[0], scores.targets)

    @cached_property
    def identity(self) -> str:
        """The same for the same images in the same order of doubt, whichever file said so."""
        worst_first = "\n".join(self.rows[place].path for place in self.order("audit").tolist())
        return hashlib.sha256(worst_first.encode()).hexdigest()[:12]

    @cached_property
    def majority(self) -> list[str | None]:
        return [seen_by_most(row) for row in self.rows]

    @cached_property
    def judged(self) -> Flags:
        return np.array([label is not None for label in self.majority])

    @cached_property
    def differs(self) -> Flags:
        return np.array([label not in (None, row.label) for label, row in zip(self.majority, self.rows, strict=True)])

    @cached_property
    def clear(self) -> Flags:
        votes = [parse_votes(row.votes) for row in self.rows]
        return np.array(
            [label is not None and of[label] >= CLEAR for label, of in zip(self.majority, votes, strict=True)]
        )

    def part(self, chosen: Flags) -> Material:
        rows = tuple(row for row, is_in in zip(self.rows, chosen, strict=True) if is_in)
        return replace(self, rows=rows, probs=self.probs[chosen], given=self.given[chosen])

    def order(self, name: str, seed: int = 0) -> Order:
        """All images, those to look at first at the front."""
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        if name == "random":
            return np.random.default_rng(seed).permutation(len(self.rows))
        if name == "audit":
            return rank(self.given, self.probs).order
        quality = np.argsort(get_label_quality_scores(self.given, self.probs), kind="stable")
        if name == "cleanlab":
            return quality
        issues = find_label_issues(self.given, self.probs, return_indices_ranked_by="self_confidence", n_jobs=1)
        return np.concatenate([issues, quality[~np.isin(quality, issues)]])

    def reviewed(self, order: Order, per_cent: float) -> Reviewed:
        """The rows after a review of the first `per_cent` of `order`."""
        rows: list[Row | None] = list(self.rows)
        worst = order[: round(len(rows) * per_cent / 100)].tolist()
        for place in worst:
            label = self.majority[place]
            if label is not None and label != self.rows[place].label:
                rows[place] = replace(self.rows[place], label=label) if label in self.data.labels else None
        kept = tuple(row for row in rows if row is not None)
        changed = sum(now is not None and now != before for now, before in zip(rows, self.rows, strict=True))
        return Reviewed(kept, len(worst), changed, len(rows) - len(kept))


@dataclass(frozen=True)
class Reviewed:
    """Training after a review: how many images were looked at, how many labels changed and how many left out."""

    rows: tuple[Row, ...]
    looked_at: int
    corrected: int
    left_out: int


def print_finds(material: Material, title: str) -> None:
    """How many disagreements stand in the first 1, 2, 5 and 10 % of each order, and how many times chance that is."""
    base = material.differs.mean(), material.differs[material.judged].mean(), material.differs[material.clear].mean()
    print(
        f"\n{title}: n = {len(material.rows):,}, the majority is another label in {base[0]:.1%}; of the "
        f"{material.judged.sum():,} with a majority in {base[1]:.1%} (no order finds more than {1 / base[1]:.2f} x as "
        f"many as chance), of the {material.clear.sum():,} with {CLEAR} votes or more in {base[2]:.1%}"
    )
    everything = np.ones(len(material.rows), bool)
    for per_cent in (1, 2, 5, 10):
        for name in ("audit", "cleanlab", "cleanlab issues"):
            first = material.order(name)[: round(len(material.rows) * per_cent / 100)]
            told = [f"{per_cent:3} % {name:15}", f"{material.differs[first].sum():5,} of {len(first):5,}"]
            for chosen, chance in zip((everything, material.judged, material.clear), base, strict=True):
                share = material.differs[first][chosen[first]].mean()
                told.append(f"{share:.1%} ({share / chance:.2f} x)")
            print("  ".join(told))


def view(root: Path, data: Path, rows: Sequence[Row]) -> Path:
    """A data set folder of `rows`, whose images are those of `data`."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).symlink_to(data.resolve() / split)
    register(rows, read_description(data), root)
    return root


def deepfer_train(work: Path, *words: object) -> None:
    """`deepfer train` in `work`, its words kept in train.log there."""
    with (work / "train.log").open("ab") as log:
        command = [sys.executable, "-m", "deepfer_yolo", "train", *map(str, words)]
        if subprocess.run(command, cwd=work, stdout=log, stderr=log, check=False).returncode:
            raise SystemExit(f"{' '.join(command)} failed: {work / 'train.log'}")


def cross_validated(arguments: argparse.Namespace, data: Dataset) -> Path:
    """The answers to each image of Training by a model that has not seen it."""
    run = arguments.work / "runs" / "train" / "answers"
    if not run.is_dir():
        training = view(arguments.work / "training", arguments.data, data.rows("train"))
        words = ("--config", PRESET, "--pretrained", arguments.backbone, "--folds", 5, "--threads", arguments.threads)
        deepfer_train(arguments.work, training, *words, "--name", run.name)
    elif not (run / PREDICTIONS).is_file():
        deepfer_train(arguments.work, "--resume", run)
    return run / PREDICTIONS


def plan(seeds: int) -> Iterator[tuple[str, int, int]]:
    """(order, per cent, seed) of each training, in the order of worth: each seed compares all orders."""
    for shares in PER_CENT:
        for seed in range(seeds):
            yield from ((order, share, seed) for share in shares for order in (("none",) if share == 0 else ORDERS))


def trained(
    arguments: argparse.Namespace, material: Material, order: str, per_cent: int, seed: int
) -> dict[str, object]:
    """One training on what a review leaves, judged on PublicTest: a row of the csv."""
    after = material.reviewed(material.order(order, seed) if per_cent else np.zeros(0, np.int64), per_cent)
    work, name = arguments.work, f"{order}-{per_cent}-{seed}"
    data = view(work / "data", arguments.data, (*after.rows, *material.data.rows("val")))
    recipe = work / "recipe.yaml"  # the last epoch is judged: PublicTest chooses none
    recipe.write_text(yaml.safe_dump(read_yaml(configs_dir() / "train" / f"{PRESET}.yaml") | {"val_from": 1.0}))
    run = work / "runs" / "train" / name
    shutil.rmtree(run, ignore_errors=True)
    words = ("--config", recipe, "--pretrained", arguments.backbone, "--threads", arguments.threads)
    deepfer_train(work, data, *words, "--seed", seed, "--name", name)
    scores = score_dataset(TorchClassifier(run / "weights" / "best.pt"), material.data, ScoringConfig())
    shutil.rmtree(run)
    said = np.array(scores.labels)[scores.probs.argmax(1)].tolist()
    right = [answer == row.label for answer, row in zip(said, scores.rows, strict=True)]
    most = [(answer, label) for answer, row in zip(said, scores.rows, strict=True) if (label := seen_by_most(row))]
    known = [answer == label for answer, label in most if label in scores.labels]
    return {
        "order": order,
        "per_cent": per_cent,
        "seed": seed,
        "looked_at": after.looked_at,
        "corrected": after.corrected,
        "left_out": after.left_out,
        "trained_on": len(after.rows),
        "majority_top1": f"{np.mean(known):.4f}",
        "majority_n": len(known),
        "label_top1": f"{np.mean(right):.4f}",
        "label_n": len(right),
        "answers": material.identity,
    }


def read_rows(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def append(file: Path, row: Cells) -> None:
    is_new = not file.is_file()
    with file.open("a", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def points(rows: list[dict[str, str]], order: str, figure: str) -> list[tuple[float, dict[str, float]]]:
    """(corrections, the figure by seed) of one order, from no correction upward."""
    chosen = [row for row in rows if row["order"] in ("none", order)]
    found = []
    for per_cent in sorted({int(row["per_cent"]) for row in chosen}):
        here = [row for row in chosen if int(row["per_cent"]) == per_cent]
        touched = [int(row["corrected"]) + int(row["left_out"]) for row in here]
        found.append((float(np.mean(touched)), {row["seed"]: float(row[figure]) for row in here}))
    return found


def summarise(rows: list[dict[str, str]]) -> None:
    """What each order and share gives: accuracy, and the gain over no correction, seed by seed."""
    for order in ORDERS:
        for figure in ("majority_top1", "label_top1"):
            (_, before), *rest = points(rows, order, figure)
            print(f"\n{order}, {figure}: uncorrected {np.mean(list(before.values())):.2%}, seeds {before}")
            for touched, values in rest:
                gains = [100 * (value - before[seed]) for seed, value in values.items() if seed in before]
                spread = f" ± {np.std(gains, ddof=1):.2f}" if len(gains) > 1 else ""
                each = ", ".join(f"{gain:+.2f}" for gain in gains)
                print(
                    f"{touched:6.0f} corrections: {np.mean(list(values.values())):.2%}, gain {np.mean(gains):+.2f}"
                    f"{spread} points (n = {len(gains)}: {each}), {100 * np.mean(gains) / touched:+.3f} per hundred"
                )


def draw(rows: list[dict[str, str]], file: Path) -> None:
    """Accuracy by corrections: mean over the seeds, and each seed as a dot."""
    figure, axes = plots.figure(7.5, 3.4, 1, 2)
    for axis, kind in zip(axes, ("majority", "label"), strict=True):
        for i, order in enumerate(ORDERS):
            curve = points(rows, order, f"{kind}_top1")
            x = [touched / 100 for touched, _ in curve]
            plots.line(axis, i, x, [100 * float(np.mean(list(values.values()))) for _, values in curve], label=order)
            for at, (_, values) in zip(x, curve, strict=True):
                plots.line(
                    axis, i, [at] * len(values), [100 * v for v in values.values()], linestyle="none", alpha=0.35
                )
        axis.set_xlabel("hundreds of corrections")
        axis.set_title({"majority": "as most FER+ voters see it", "label": "FER2013's own label"}[kind])
    axes[0].set_ylabel("right on PublicTest, %")
    plots.legend(axes[0])
    plots.save_png(figure, file)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("backbone", type=lambda text: Path(text).resolve())
    parser.add_argument("--work", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--csv", type=Path, default=Path("docs/training/review.csv"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-train", action="store_true")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    arguments.work.mkdir(parents=True, exist_ok=True)
    data = open_dataset(arguments.data)
    answers = cross_validated(arguments, data)
    material = Material.read(data, answers)
    with (answers.parent / "folds.csv").open(encoding="utf-8", newline="") as text:
        fold = {row["path"]: int(row["fold"]) for row in csv.DictReader(text)}
    folds = np.array([fold[row.path] for row in material.rows])
    print_finds(material, "Training")
    print_finds(material.part(np.isin(folds, (1, 2))), "folds 1 and 2, by which the rule was chosen")
    print_finds(material.part(np.isin(folds, (3, 4, 5))), "folds 3 to 5, which had no say")
    rows = read_rows(arguments.csv)
    if others := {row["answers"] for row in rows} - {material.identity}:
        raise SystemExit(f"{arguments.csv} was begun with other answers ({', '.join(others)}): name another --csv")
    done = {(row["order"], int(row["per_cent"]), int(row["seed"])) for row in rows}
    for case in () if arguments.no_train else plan(arguments.seeds):
        if case not in done:
            row = trained(arguments, material, *case)
            append(arguments.csv, row)
            print(row, flush=True)
    if rows := read_rows(arguments.csv):
        summarise(rows)
        if arguments.plot:
            draw(rows, arguments.plot)


if __name__ == "__main__":
    main()
