"""CPU time of `deepfer --help` against `yolo help`: both in one run, alternating, ratio per round, then the median.

.venv/bin/python tests/benchmarks/startup.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

BAR = 0.15


def cpu_seconds(command: list[str]) -> float:
    """User and system seconds of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        env={**os.environ, "YOLO_OFFLINE": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the median ratio, its spread and the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    programs = Path(sys.executable).parent
    ours, theirs = [str(programs / "deepfer"), "--help"], [str(programs / "yolo"), "help"]
    cpu_seconds(ours), cpu_seconds(theirs)  # the first calls fill the caches
    pairs = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    our_s, their_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"deepfer --help {our_s:.3f} s CPU, yolo help {their_s:.3f} s CPU")
    spread = f"min {ratios[0]:.3f}, max {ratios[-1]:.3f}, n = {rounds}"
    print(f"ratio {statistics.median(ratios):.3f} ({spread}); bar: at most {BAR}")


if __name__ == "__main__":
    main()
