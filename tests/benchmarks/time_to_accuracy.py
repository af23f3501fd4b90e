"""Seconds until a validation top-1 is reached, start-up included: `deepfer train`, then another checkout of it, or
stock `yolo classify train`, given four times as long.

All start from the same checkpoint, on the same images and processors, one after the other; stock keeps its defaults.
A time counts when the epoch stands in results.csv. The data set is linked into a temporary folder first, since the
stock loader writes beside the images. The seconds of the processor, children excluded, stand beside the wall's.

.venv/bin/python tests/benchmarks/time_to_accuracy.py DATASET START.pt [--target 0.6339] [--config fer2013-fast]
[--epochs N] [--seed 0] [--threads 1] [--factor 4] [--other CHECKOUT] [--other-config fer2013-n] [--other-epochs 7]
[--no-stock]

START.pt is a pretrained yolo26n-cls checkpoint, such as the ImageNet weights that Ultralytics publishes. For one core,
begin the line with `taskset -c 1`.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent.parent.parent
TOP1 = "metrics/accuracy_top1"


def start(backbone: Path, data: Path, into: Path) -> Path:
    """The checkpoint that both sides start from: `backbone` with a fresh head for the labels of `data`."""
    import torch

    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.recipe import TrainConfig
    from deepfer_yolo.train.start import starting_model

    torch.manual_seed(0)
    model = starting_model(TrainConfig(model="yolo26n-cls", pretrained=str(backbone)), open_dataset(data).labels, print)
    model.task = "classify"
    torch.save({"model": model.half(), "train_args": {"task": "classify", "imgsz": 64}, "epoch": -1}, into)
    return into


def link(data: Path, into: Path) -> Path:
    """`data` again under `into`, its files linked."""
    for path in data.rglob("*"):
        copy = into / path.relative_to(data)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.suffix != ".cache":
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, copy)
    return into


@dataclass(frozen=True, slots=True)
class Course:
    """One side's way to the target: seconds to it or None, all seconds spent, those of the processor, and the best."""

    reached_s: float | None
    spent_s: float
    cpu_s: float
    best: float


def race(
    name: str, command: list[str], folder: Path, target: float, limit_s: float | None, tree: Path | None = None
) -> Course:
    """Run until `target` or the limit, with the package of the checkout `tree` if one is named."""
    environment = {**os.environ, **({"PYTHONPATH": str(tree)} if tree else {})}
    began, n_epochs, best, cpu_s = time.monotonic(), 0, 0.0, 0.0
    with (folder / f"{name}.log").open("wb") as log:
        process = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                ended, spent_s = process.poll() is not None, time.monotonic() - began
                if not ended:
                    with suppress(psutil.NoSuchProcess):
                        cpu_s = sum(process.cpu_times()[:2])
                found = next(iter(folder.rglob(f"{name}/results.csv")), None)
                rows = list(csv.DictReader(found.read_text().splitlines())) if found else []
                for row in rows[n_epochs:]:
                    n_epochs += 1
                    top1 = float({key.strip(): value for key, value in row.items()}[TOP1])
                    seen = "not judged" if math.isnan(top1) else f"top-1 {top1:.2%}"
                    print(f"{name}: epoch {n_epochs} after {spent_s:.0f} s, CPU {cpu_s:.0f}: {seen}", flush=True)
                    best = max(best, 0.0 if math.isnan(top1) else top1)
                    if top1 >= target:
                        return Course(spent_s, spent_s, cpu_s, best)
                if ended and process.returncode:
                    raise SystemExit((folder / f"{name}.log").read_text()[-3000:])
                if ended or (limit_s is not None and spent_s > limit_s):
                    return Course(None, spent_s, cpu_s, best)
                time.sleep(0.5)
        finally:
            with suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait()


def deepfer(
    arguments: argparse.Namespace, name: str, data: Path, begin: Path, config: str, epochs: int | None
) -> list[str]:
    """The command line of one `deepfer train`."""
    return [
        sys.executable, "-m", "deepfer_yolo", "train", str(data), "--config", config, "--model", str(begin), "--seed",
        str(arguments.seed), *([] if epochs is None else ["--epochs", str(epochs)]), "--threads",
        str(arguments.threads), "--name", name,
    ]  # fmt: skip


def said(name: str, course: Course, against: float) -> str:
    """One side beside the seconds that ours took."""
    if course.reached_s is None:
        return f"{name} had not after {course.spent_s:.0f} s: best {course.best:.2%}"
    return f"{name} after {course.reached_s:.0f} s (CPU {course.cpu_s:.0f}), {course.reached_s / against:.2f} x as long"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("start", type=Path)
    parser.add_argument("--target", type=float, default=0.6339)
    parser.add_argument("--config", default="fer2013-fast")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--factor", type=float, default=4)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--other-config", default="fer2013-n")
    parser.add_argument("--other-epochs", type=int, default=7)
    parser.add_argument("--no-stock", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Print each epoch of all sides, and who came first."""
    arguments = parsed()
    binaries = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(dir=arguments.data.resolve().parent) as name:
        folder = Path(name)
        begin, data = (
            start(arguments.start, arguments.data, folder / "start.pt"),
            link(arguments.data.resolve(), folder / "data"),
        )
        command = deepfer(arguments, "deepfer", data, begin, arguments.config, arguments.epochs)
        ours = race("deepfer", command, folder, arguments.target, None, HERE)
        if ours.reached_s is None:
            raise SystemExit(
                f"deepfer did not reach {arguments.target:.2%} in {ours.spent_s:.0f} s: best {ours.best:.2%}"
            )
        lines = [f"deepfer after {ours.reached_s:.0f} s (CPU {ours.cpu_s:.0f}), {arguments.threads} threads"]
        limit_s = arguments.factor * ours.reached_s
        if arguments.other is not None:
            command = deepfer(arguments, "other", data, begin, arguments.other_config, arguments.other_epochs)
            other = race("other", command, folder, arguments.target, limit_s, arguments.other.resolve())
            lines.append(said(f"{arguments.other.name}, {arguments.other_config},", other, ours.reached_s))
        if not arguments.no_stock:
            command = [
                str(binaries / "yolo"), "classify", "train", f"model={begin}", f"data={data}", "imgsz=64", "batch=128",
                "device=cpu", "epochs=100", f"project={folder}", "name=stock",
            ]  # fmt: skip
            lines.append(said("stock", race("stock", command, folder, arguments.target, limit_s), ours.reached_s))
    print(f"{arguments.target:.2%} top-1: {'; '.join(lines)} (n = 1)")


if __name__ == "__main__":
    main()
