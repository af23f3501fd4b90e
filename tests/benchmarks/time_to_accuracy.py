"""Seconds until a validation top-1 is reached, start-up included: `deepfer train`, then stock `yolo classify train`,
given four times as long.

Both start from the same checkpoint, on the same images, side, batch and processors, one after the other; stock keeps
its defaults. A time counts when the epoch stands in results.csv. The data set is linked into a temporary folder first,
since the stock loader writes beside the images.

.venv/bin/python tests/benchmarks/time_to_accuracy.py DATASET START.pt [--target 0.6339] [--epochs 7] [--threads 2]
[--factor 4]

START.pt is a pretrained yolo26n-cls checkpoint, such as the ImageNet weights that Ultralytics publishes.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def race(
    name: str, command: list[str], folder: Path, target: float, limit_s: float | None
) -> tuple[float | None, float, list[tuple[float, float]]]:
    """Run until `target` or the limit; seconds to the target or None, seconds spent, and (seconds, top-1) of each
    epoch.
    """
    began, epochs = time.monotonic(), list[tuple[float, float]]()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                ended, spent = process.poll() is not None, time.monotonic() - began
                found = next(iter(folder.rglob(f"{name}/results.csv")), None)
                rows = list(csv.DictReader(found.read_text().splitlines())) if found else []
                for row in rows[len(epochs) :]:
                    epochs.append((spent, float({key.strip(): value for key, value in row.items()}[TOP1])))
                    print(f"{name}: epoch {len(epochs)} after {spent:.0f} s: top-1 {epochs[-1][1]:.2%}", flush=True)
                    if epochs[-1][1] >= target:
                        return spent, spent, epochs
                if ended and process.returncode:
                    raise SystemExit((folder / f"{name}.log").read_text()[-3000:])
                if ended or (limit_s is not None and spent > limit_s):
                    return None, spent, epochs
                time.sleep(0.5)
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Print each epoch of both sides, and who came first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("start", type=Path)
    parser.add_argument("--target", type=float, default=0.6339)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--factor", type=float, default=4)
    arguments = parser.parse_args()
    binaries = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(dir=arguments.data.resolve().parent) as name:
        folder = Path(name)
        begin, data = (
            start(arguments.start, arguments.data, folder / "start.pt"),
            link(arguments.data.resolve(), folder / "data"),
        )
        ours = [
            sys.executable, "-m", "deepfer_yolo", "train", str(data), "--config", "fer2013-n", "--model", str(begin),
            "--epochs", str(arguments.epochs), "--threads", str(arguments.threads), "--name", "deepfer",
        ]  # fmt: skip
        stock = [
            str(binaries / "yolo"), "classify", "train", f"model={begin}", f"data={data}", "imgsz=64", "batch=128",
            "device=cpu", "epochs=100", f"project={folder}", "name=stock",
        ]  # fmt: skip
        reached, spent, _ = race("deepfer", ours, folder, arguments.target, None)
        if reached is None:
            raise SystemExit(
                f"deepfer train did not reach {arguments.target:.2%} in {arguments.epochs} epochs ({spent:.0f} s)"
            )
        later, given, epochs = race("stock", stock, folder, arguments.target, arguments.factor * reached)
    best = max((top1 for _, top1 in epochs), default=0.0)
    verdict = (
        f"reached it after {later:.0f} s, {later / reached:.2f} x as long"
        if later
        else f"had not after {given:.0f} s: best {best:.2%}"
    )
    ours = f"deepfer after {reached:.0f} s, {arguments.threads} threads"
    print(f"{arguments.target:.2%} top-1: {ours}; stock {verdict} (n = 1)")


if __name__ == "__main__":
    main()
