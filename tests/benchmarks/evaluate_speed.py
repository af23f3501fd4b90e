"""A whole `deepfer evaluate` of an ONNX file, start-up and report included.

    python tests/benchmarks/evaluate_speed.py MODEL.onnx DATASET [--split val] [--rounds 5]

Prints wall clock and CPU seconds of each round and their medians. The bar is 8 s of wall clock for 3,589 images at 64
px on two free cores; on a shared machine the CPU seconds say more, since two cores can hide up to half of them.
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


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "deepfer_yolo",
        "evaluate",
        str(words.dataset.resolve()),
        "-m",
        str(words.model.resolve()),
        "--split",
        words.split,
    ]
    walls, cpus = [], []
    for number in range(words.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
            wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if number:  # the first round fills the disk cache
            walls.append(wall)
            cpus.append(cpu)
            print(f"round {number}: {wall:5.1f} s wall, {cpu:5.1f} s CPU, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"median of {words.rounds}: {statistics.median(walls):.1f} s wall, {statistics.median(cpus):.1f} s CPU")


if __name__ == "__main__":
    main()
