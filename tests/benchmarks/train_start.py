"""How long `deepfer train` takes from its start to its first step, and the most memory that it holds: a process of its
own each round.

Wall time depends on what else the machine does, so the seconds of the processor stand beside it.

.venv/bin/python tests/benchmarks/train_start.py [--data FOLDER] [--model yolo26n-cls] [--rounds 5] [--steps 20]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BAR_S, BAR_GB = 8.0, 2.5


def child(steps: int, words: list[str]) -> None:
    """Run the program in this process, note the first step, and end it after `steps` and one validation."""
    from deepfer_yolo.cli.app import main
    from deepfer_yolo.train.trainer import FaceTrainer

    first: list[float] = []
    original = FaceTrainer._end_batch

    def end_batch(trainer: Any) -> None:
        original(trainer)
        if not first:
            first.extend([time.time(), time.process_time()])
        if trainer.batches_done >= min(steps, len(trainer.train_loader)):
            trainer.validate()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            print(json.dumps({"first": first[0], "cpu_s": first[1], "peak": peak}), flush=True)
            os._exit(0)

    FaceTrainer._end_batch = end_batch  # type: ignore[method-assign]
    sys.argv = ["deepfer", "train", *words]
    main()


def measure(arguments: argparse.Namespace, words: list[str]) -> tuple[float, float, float]:
    """Wall and processor seconds to the first step, and peak memory in GB, of one run."""
    command = [sys.executable, __file__, "--child", "--steps", str(arguments.steps), "--", *words]
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["first"] - began, found["cpu_s"], found["peak"] / 1e9


def main() -> None:
    """Print the medians with their spread, and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("datasets/fer2013"))
    parser.add_argument("--model", default="yolo26n-cls")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help="more options of deepfer train, after --")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.steps, arguments.words)
        return
    words = [str(arguments.data.resolve()), "--model", arguments.model, *arguments.words]
    rounds = [measure(arguments, words) for _ in range(arguments.rounds)]
    wall, cpu, peak = (sorted(values) for values in zip(*rounds, strict=True))
    spread = f"(min {wall[0]:.1f}, max {wall[-1]:.1f}, n = {len(wall)})"
    print(f"first step after {statistics.median(wall):.1f} s {spread}; bar: at most {BAR_S:.0f} s")
    print(f"of the processor {statistics.median(cpu):.1f} s (min {cpu[0]:.1f}, max {cpu[-1]:.1f})")
    print(f"peak memory {max(peak):.2f} GB over {arguments.steps} steps and a validation; bar: at most {BAR_GB} GB")


if __name__ == "__main__":
    main()
