"""A folder of 3,589 pictures, whole process: `deepfer predict` on the export against `yolo classify predict` on the
same weights.

Both sides alternate; the ratio is taken per round, then the median.

.venv/bin/python tests/benchmarks/folder.py runs/train/NAME/weights/best.pt [--pictures FOLDER] [--rounds 5] [--n 3589]
"""

from __future__ import annotations

import argparse
import os
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


def main() -> None:
    """Print the median ratio, its spread and the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n", type=int, default=3589)
    options = parser.parse_args()
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
