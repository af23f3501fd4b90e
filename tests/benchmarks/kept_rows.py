"""Does it help to keep the rows of the start's head for shared labels? Top-1 on val after short fine-tuning.

Three starts onto FER2013: deepfer-n, which knows all labels, onto four of them under other names; deepfer-n without the
rows of two labels (whose images its features have seen), onto all seven; and a network that was trained shortly on five
labels, onto all seven. Of each label 10 and 100 training images are drawn, by a seed that is the run's too. In the
fresh arm the labels bear names that meet none of the start's, so that its head begins anew; all else is equal.

    OMP_NUM_THREADS=1 python tests/benchmarks/kept_rows.py --data datasets/fer2013 --backbone yolo26n-cls.pt
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from deepfer_yolo.data.dataset import Dataset, Description, fingerprint, open_dataset, write_description, write_manifest
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.run import train
from deepfer_yolo.train.start import starting_model

FOUR = {"angry": "Anger", "happy": "Happiness", "sad": "Sadness", "surprise": "Surprised"}
FIVE = ("angry", "fear", "happy", "neutral", "sad")
EPOCHS = {10: 10, 100: 4}
"""By images a label."""
N_VAL = 150
"""Images of a label that judge, at most; drawn once, by seed 0."""


def subset(data: Dataset, names: dict[str, str], n: int, seed: int, folder: Path) -> Path:
    """A data set at `folder`: `n` training images a label and N_VAL of val, its labels called by `names`."""
    rows = []
    for split, count, drawn_by in (("train", n, seed), ("val", N_VAL, 0)):
        random = np.random.default_rng(drawn_by)
        for label in names:
            there = [row for row in data.rows(split) if row.label == label]
            rows += [there[i] for i in sorted(random.choice(len(there), min(count, len(there)), replace=False))]
    made = [replace(row, label=names[row.label]) for row in rows]
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        (folder / split).symlink_to(data.root.resolve() / split)
    write_manifest(made, folder)
    labels = tuple(sorted(names.values()))
    write_description(Description(name=folder.name, labels=labels, fingerprint=fingerprint(made)), folder)
    return folder


def accuracy(start: Path | str, data: Path, epochs: int, seed: int, root: Path, **more: object) -> tuple[float, Path]:
    """Top-1 on val after the last epoch, and the checkpoint."""
    settings = {"data": str(data), "model": str(start), "epochs": epochs, "seed": seed, "threads": 1, "batch": 32}
    settings |= {"lr0": 0.005, "val_from": 1.0, "exclude": None, "allow_leak": True}
    config = TrainConfig.model_validate(settings | more)
    result = train(config, name=f"{data.name}-{seed}", root=root, show=lambda _: None)
    assert isinstance(result, TrainResult)
    return float(result.to_json()["val"]["top1"]), result.folder / "weights" / "last.pt"


def cut(labels: tuple[str, ...], root: Path) -> Path:
    """A checkpoint of deepfer-n whose head has the rows of `labels` alone."""
    model = starting_model(TrainConfig(model="deepfer-n"), labels, lambda _: None)
    torch.save({"model": model, "ema": None, "train_args": {"imgsz": 64}}, root / "cut.pt")
    return root / "cut.pt"


def compare(
    what: str, start: Path | str, data: Dataset, names: dict[str, str], seeds: Sequence[int], root: Path
) -> None:
    """Print one row a number of images: both arms and their paired difference, mean and spread over the seeds."""
    for n, epochs in EPOCHS.items():
        arms: dict[str, list[float]] = {"kept": [], "fresh": []}
        for seed in seeds:
            for arm, found in arms.items():
                # A prefix that no spelling knows keeps the order and meets nothing.
                called = {label: name if arm == "kept" else f"label-{name}" for label, name in names.items()}
                place = subset(data, called, n, seed, root / f"{what}-{n}-{seed}-{arm}")
                found.append(100 * accuracy(start, place, epochs, seed, root / "runs")[0])
        gains = [a - b for a, b in zip(arms["kept"], arms["fresh"], strict=True)]
        cells = [f"{statistics.mean(x):.1f} ± {statistics.stdev(x):.1f}" for x in (*arms.values(), gains)]
        print(f"| {what} | {n} | {epochs} | {' | '.join(cells)} | {len(seeds)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("datasets/fer2013"))
    parser.add_argument("--backbone", type=Path, required=True, help="an ImageNet checkpoint of yolo26n-cls")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    data, seeds = open_dataset(arguments.data), range(arguments.seeds)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print("| start, onto | images a label | epochs | kept, % | fresh, % | gain, points | seeds |")
        print("|---|---|---|---|---|---|---|", flush=True)
        compare("deepfer-n onto 4 of its labels", "deepfer-n", data, FOUR, seeds, root)
        every = {name: name for name in EMOTIONS}
        compare("deepfer-n without 2 rows onto 7", cut(FIVE, root), data, every, seeds, root)
        short = subset(data, {name: name for name in FIVE}, 500, 0, root / "five")
        backbone = str(arguments.backbone)
        reached, start = accuracy("yolo26n-cls", short, 4, 0, root / "runs", pretrained=backbone, lr0=0.02)
        compare("5 labels onto 7", start, data, every, seeds, root)
        print(f"the start of five labels has {100 * reached:.1f} % on them")


if __name__ == "__main__":
    main()
