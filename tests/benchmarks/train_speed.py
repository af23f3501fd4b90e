"""Training-step images a second of `deepfer train` against stock `yolo classify train`: both in one process,
alternating, ratio per round.

Same network, images, side and batch; data, forward, backward, optimiser and EMA are in it, validation and saving are
not. The stock side runs with the one thread that Ultralytics itself sets on a machine of two cores, unless told
otherwise.

.venv/bin/python tests/benchmarks/train_speed.py [--data FOLDER] [--rounds 5] [--steps 6] [--threads 2] [--stock-threads
1] [--precision fp32]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BAR = {"fp32": 1.5, "bf16": 1.8}
WARM_UP = 2


def painted(folder: Path, n: int) -> Path:
    """A converted data set of `n` painted training faces."""
    from deepfer_yolo.config import ConvertConfig
    from deepfer_yolo.data.convert import convert
    from deepfer_yolo.painted import paint_csv

    paint_csv(folder / "faces.csv", seed=1, n_train=n, n_val=140)
    convert(folder / "faces.csv", folder / "data", ConvertConfig())
    return folder / "data"


def ours(data: Path, folder: Path, arguments: argparse.Namespace) -> Any:
    """Our trainer, set up and ready for its first step."""
    from deepfer_yolo.recipe import TrainConfig
    from deepfer_yolo.train.trainer import FaceTrainer
    from deepfer_yolo.train.training_run import TrainingRun

    config = TrainConfig(
        data=str(data), model=arguments.model, imgsz=arguments.imgsz, batch=arguments.batch, threads=arguments.threads,
        precision=arguments.precision,
    )  # fmt: skip
    trainer = FaceTrainer(TrainingRun.open(config), folder)
    trainer._setup_train()
    return trainer


def stock(data: Path, folder: Path, arguments: argparse.Namespace) -> Any:
    """Ultralytics' trainer with its defaults, set up and ready for its first step."""
    from deepfer_yolo.yolo import ClassificationTrainer

    overrides = {
        "model": f"{arguments.model}.yaml", "data": str(data), "imgsz": arguments.imgsz, "batch": arguments.batch,
        "epochs": 1, "device": "cpu", "save_dir": str(folder), "exist_ok": True, "plots": False, "amp": False,
        "optimizer": "SGD", "lr0": 0.01,
    }  # fmt: skip
    trainer = ClassificationTrainer(overrides=overrides)
    trainer._setup_train()
    return trainer


def batches(trainer: Any) -> Iterator[Any]:
    """The trainer's batches, epoch after epoch."""
    while True:
        yield from trainer.train_loader


def speed(trainer: Any, source: Iterator[Any], steps: int, threads: int) -> float:
    """Pictures a second over `steps` whole training steps."""
    import torch

    torch.set_num_threads(threads)
    trainer.model.train()
    began, n = time.perf_counter(), 0
    for _ in range(steps):
        batch = trainer.preprocess_batch(next(source))
        loss, _ = trainer.model(batch)
        loss.sum().backward()
        trainer.optimizer_step()
        n += len(batch["cls"])
    return n / (time.perf_counter() - began)


def main() -> None:
    """Print both speeds, the median ratio and its spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        help="a data set folder; painted faces without one (the stock loader writes a cache into it)",
    )
    parser.add_argument("--model", default="yolo26n-cls")
    parser.add_argument("--imgsz", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stock-threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(arguments.threads, arguments.stock_threads)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = arguments.data or painted(folder, 3000)
        sides = {
            "deepfer": (ours(data, folder / "a", arguments), arguments.threads),
            "stock": (stock(data, folder / "b", arguments), arguments.stock_threads),
        }
        sources = {side: batches(trainer) for side, (trainer, _) in sides.items()}
        found: dict[str, list[float]] = {"deepfer": [], "stock": []}
        for number in range(arguments.rounds + 1):
            for side, (trainer, threads) in sides.items():
                rate = speed(trainer, sources[side], arguments.steps if number else WARM_UP, threads)
                if number:
                    found[side].append(rate)
    ratios = sorted(a / b for a, b in zip(found["deepfer"], found["stock"], strict=True))
    for side, rates in found.items():
        spread = f"(min {min(rates):.0f}, max {max(rates):.0f})"
        print(f"{side}: {statistics.median(rates):.0f} img/s {spread}, {sides[side][1]} threads")
    what = f"{arguments.model} {arguments.imgsz} px, batch {arguments.batch}, {arguments.precision}"
    spread = f"(min {ratios[0]:.2f}, max {ratios[-1]:.2f}, n = {len(ratios)} rounds of {arguments.steps} steps)"
    print(f"{what}: ratio {statistics.median(ratios):.2f} {spread}; bar: at least {BAR[arguments.precision]}")


if __name__ == "__main__":
    main()
