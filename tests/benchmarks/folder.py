"""A folder of 3,589 pictures, whole process: `deepfer predict` on the export against `yolo classify predict` on the
same weights.

Both sides alternate; the ratio is taken per round, then the median.

.venv/bin/python tests/benchmarks/folder.py runs/train/NAME/weights/best.pt [--pictures FOLDER] [--rounds 5] [--n 3589]

With `--other CHECKOUT` instead of a checkpoint: what this build and another one need an image beside the network, by
processor time. A folder and a ninth of it tell start-up from images; the network is run alone on as many crops.

.venv/bin/python tests/benchmarks/folder.py --other ../other [--pictures datasets/fer2013/val] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BAR = 3.0
PROGRAMS = Path(sys.executable).parent


def paint(folder: Path, n: int) -> None:
    """`n` painted faces of 48 pixels as PNG files; a thousand different ones, repeated."""
    from PIL import Image

    from deepfer_yolo.painted import paint_faces

    faces, _ = paint_faces(1, min(n, 1000))
    for i in range(n):
        Image.fromarray(faces[i % len(faces)]).save(folder / f"{i:05d}.png")


def wall_seconds(command: list[str], folder: Path) -> float:
    """Wall clock of one child process, offline, in `folder`."""
    start = time.perf_counter()
    subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        cwd=folder,
        env={**os.environ, "YOLO_OFFLINE": "1"},
    )
    return time.perf_counter() - start


NETWORK = """
import sys, time
import numpy as np
from deepfer_yolo.runtime.classifier import Classifier
model = Classifier("deepfer-n")
size = model.card.input.size
crops = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), np.uint8)
model.predict(crops)
began = time.process_time()
for _ in range(32):
    model.predict(crops)
print((time.process_time() - began) / 32 / 64)
"""


def cpu_seconds(tree: Path, words: list[str]) -> float:
    """Processor time of one child process that runs the program of a checkout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "deepfer_yolo", *words]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def beside_the_network(other: Path, pictures: Path, rounds: int) -> None:
    """Print what both builds need an image, beside the network."""
    here = Path(__file__).resolve().parent.parent.parent
    files = sorted(path for path in pictures.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as name:
        few = Path(name)
        for path in files[::9]:
            (few / f"{len(list(few.iterdir())):05d}{path.suffix}").symlink_to(path.resolve())
        n = len(files) - len(list(few.iterdir()))
        found: dict[Path, list[float]] = {here: [], other: []}
        networks = []
        for _ in range(rounds):
            environment = {**os.environ, "PYTHONPATH": str(here)}
            said = subprocess.run(
                [sys.executable, "-c", NETWORK], env=environment, capture_output=True, text=True, check=True
            )
            networks.append(float(said.stdout) * 1e3)
            for tree, each in found.items():
                words = ["--format", "csv", "-m", "deepfer-n"]
                many, little = (cpu_seconds(tree, ["predict", str(folder), *words]) for folder in (pictures, few))
                each.append((many - little) / n * 1e3)
    network = statistics.median(networks)
    print(f"{n} images more, {rounds} rounds; the network alone {network:.3f} ms an image")
    for tree, each in found.items():
        rest = statistics.median(each) - network
        spread = f"{min(each):.3f} to {max(each):.3f}"
        print(f"{tree}: {statistics.median(each):.3f} ms an image ({spread}), {rest:.3f} beside the network")


def main() -> None:
    """Print the median ratio, its spread and the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--other", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n", type=int, default=3589)
    options = parser.parse_args()
    if options.other is not None:
        beside_the_network(options.other.resolve(), options.pictures.resolve(), options.rounds)
        return
    checkpoint = options.checkpoint.resolve()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pictures = (options.pictures or work / "pictures").resolve()
        if options.pictures is None:
            pictures.mkdir()
            paint(pictures, options.n)
        n = sum(1 for path in pictures.rglob("*") if path.is_file())
        subprocess.run(
            [str(PROGRAMS / "deepfer"), "export", str(checkpoint), "--out", str(work / "model.onnx")],
            check=True,
            capture_output=True,
        )
        ours = [str(PROGRAMS / "deepfer"), "predict", str(pictures), "-m", "model.onnx", "--json"]
        theirs = [
            str(PROGRAMS / "yolo"),
            "classify",
            "predict",
            f"model={checkpoint}",
            f"source={pictures}",
            "save=False",
            "batch=64",
            f"project={work}",
        ]
        wall_seconds(ours, work)  # the first call fills the caches
        pairs = [(wall_seconds(ours, work), wall_seconds(theirs, work)) for _ in range(options.rounds)]
    ratios = sorted(b / a for a, b in pairs)
    left, right = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{n} pictures, whole process: deepfer predict {left:.2f} s, yolo classify predict {right:.2f} s")
    spread = f"min {ratios[0]:.2f}, max {ratios[-1]:.2f}, n = {options.rounds}"
    print(f"{statistics.median(ratios):.2f} times faster ({spread}); bar: at least {BAR}")


if __name__ == "__main__":
    main()
