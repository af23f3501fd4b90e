"""How the cost of each command grows with the number of images: CPU seconds, peak memory, exponent between two sizes.

    python tests/benchmarks/growth.py ../shared/datasets/fer2013_dev.csv.gz [--sizes 3000 32000 129000] [--only audit]
        [--other CHECKOUT] [--long] [--keep FOLDER]

The first images are FER2013's own; beyond them each is warped anew (mirrored at random, turned by up to 4°, scaled by
up to 5 %, shifted by up to 1.2 pixels, bent by a smooth field of 1.6 pixels, under another light and gamma): of two
such images of one face about one in a thousand is a near copy. Without a csv the faces are painted, each another one.
--long adds a million images. --other runs each command with that checkout, too, on the same images.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepfer_yolo.data.images import encode_png
from deepfer_yolo.data.layouts.fer2013 import read_csv
from deepfer_yolo.data.layouts.item import Reading
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_faces

HERE = Path(__file__).resolve().parent.parent.parent
MILLION = 1_000_000
LIST = "from deepfer_yolo.stream.batch import find_images; print(sum(1 for _ in find_images([{folder!r}])))"
DECODE = (
    "from deepfer_yolo.data.dataset import open_dataset, load_images; from pathlib import Path; "
    "dataset = open_dataset(Path({folder!r})); print(sum(1 for _ in load_images(dataset, dataset.rows('train'))))"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took."""

    cpu_s: float
    peak_mb: float


def varied(face, random):
    """Another image like `face`, which is no near copy of it."""
    import cv2

    matrix = cv2.getRotationMatrix2D((23.5, 23.5), random.uniform(-4, 4), 1 + random.uniform(-0.05, 0.05))
    matrix = cv2.invertAffineTransform(matrix).astype(np.float32)
    grid = np.stack(np.meshgrid(np.arange(48, dtype=np.float32), np.arange(48, dtype=np.float32)), axis=-1)
    field = cv2.resize(random.normal(0, 1.6, (5, 5, 2)).astype(np.float32), (48, 48), interpolation=cv2.INTER_CUBIC)
    shift = random.uniform(-1.2, 1.2, 2).astype(np.float32)
    at = grid @ matrix[:, :2].T + matrix[:, 2] + field + shift
    at = at[:, ::-1] if random.random() < 0.5 else at
    column, row = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    warped = cv2.remap(face, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    ramp = grid @ random.normal(0, 0.3, 2).astype(np.float32)
    lit = 255 * (warped / 255) ** math.exp(random.normal(0, 0.2)) * random.uniform(0.85, 1.15)
    return np.clip(lit + ramp - ramp.mean() + random.normal(0, 1, (48, 48)), 0, 255).astype(np.uint8)


def write_tree(csv: Path | None, n: int, folder: Path) -> None:
    """Class folders of `n` faces, those of the csv first."""
    if csv is None:
        faces, labels = paint_faces(1, n)
        items = [(face, EMOTIONS[label]) for face, label in zip(faces, labels, strict=True)]
    else:
        items = [(item.pixels, item.label) for item in read_csv(Reading(csv))]
    for label in EMOTIONS:
        (folder / label).mkdir(parents=True)
    for index in range(n):
        face, label = items[index % len(items)]
        if index >= len(items):
            face = varied(face, np.random.default_rng([7, index]))
        (folder / label / f"{index:07}.png").write_bytes(encode_png(face))


def measure(tree: Path, words: list[str]) -> Cost:
    """Run Python with `tree` first on its path. Raises SystemExit with its last words where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in {0, 3}:  # 3: the audit's verdict
            errors.seek(0)
            raise SystemExit(f"{tree}: {' '.join(words)}: {process.returncode}\n{errors.read()[-2000:].decode()}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def commands(tree: Path, dataset: Path, out: str) -> dict[str, list[str]]:
    """The words of each measured command."""
    run = ["-m", "deepfer_yolo"]
    return {
        "convert": [*run, "convert", str(tree), out],
        "audit": [*run, "audit", str(dataset), "--json"],
        "audit of a tree": [*run, "audit", str(tree), "--json"],
        "evaluate": [*run, "evaluate", str(dataset), "-m", "deepfer-n", "--split", "train", "--name", out],
        "decode of train": ["-c", DECODE.format(folder=str(dataset))],
        "list of predict": ["-c", LIST.format(folder=str(tree))],
    }


def main() -> None:
    """Print one row a command and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, nargs="?")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3000, 32_000, 129_000])
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--other", type=Path)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--keep", type=Path, help="where the images are kept, and found again")
    options = parser.parse_args()
    csv = options.csv.resolve() if options.csv else None
    sides = {"here": HERE} | ({"other": options.other.resolve()} if options.other else {})
    before: dict[tuple[str, str], tuple[int, Cost]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.keep.resolve() if options.keep else Path(scratch)
        os.chdir(scratch)
        for n in [*options.sizes, *([MILLION] if options.long else [])]:
            tree, dataset = kept / f"tree-{n}", kept / f"set-{n}"
            if not tree.exists():
                write_tree(csv, n, tree)
            for name, words in commands(tree, dataset, f"out-{n}").items():
                if options.only and name not in options.only:
                    continue
                if str(dataset) in words and not dataset.exists():
                    measure(HERE, ["-m", "deepfer_yolo", "convert", str(tree), str(dataset)])
                for side, checkout in sides.items():
                    cost = measure(checkout, [word.replace(f"out-{n}", f"{side}-{n}") for word in words])
                    said = ""
                    if (name, side) in before:
                        smaller, cheaper = before[name, side]
                        said = f"  exponent {math.log(cost.cpu_s / cheaper.cpu_s) / math.log(n / smaller):.2f}"
                    before[name, side] = n, cost
                    print(f"{n:9,} {name:16} {side:5} {cost.cpu_s:8.1f} s CPU {cost.peak_mb:6.0f} MB{said}", flush=True)


if __name__ == "__main__":
    main()
