"""What a start costs: both sides in one run, alternating, ratio per round, then the median.

.venv/bin/python tests/benchmarks/startup.py [--rounds 7]                         `deepfer --help` against `yolo help`
.venv/bin/python tests/benchmarks/startup.py --before OLD --after NEW [--rounds 7]
                       start to first label, `deepfer predict` of a painted face: OLD and NEW are environments
                       (folders with bin/deepfer), or checkouts, which this very Python runs
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

BARS = {"help": 0.15, "first label": 0.8}
Command = tuple[list[str], dict[str, str]]


def seconds(command: Command) -> tuple[float, float]:
    """Seconds of processor (user and system) and of the clock that one child process takes."""
    words, environment = command
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=environment)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def first_label(place: Path, face: Path) -> Command:
    """The command that labels `face` by the environment or checkout at `place`."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = place / "bin" / "deepfer"
    if program.is_file():
        return [str(program), "predict", str(face)], alone
    words = [sys.executable, "-m", "deepfer_yolo", "predict", str(face)]
    return words, alone | {"PYTHONPATH": str(place.resolve())}


def compare(ours: Command, theirs: Command, rounds: int, bar: float) -> None:
    """Print medians, the median ratio, its spread and the bar."""
    seconds(ours), seconds(theirs)  # the first calls fill the caches
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    for kind, name in enumerate(("processor", "clock")):
        sides = [(a[kind], b[kind]) for a, b in pairs]
        ratios = sorted(a / b for a, b in sides)
        our_s, their_s = (statistics.median(side) for side in zip(*sides, strict=True))
        spread = f"min {ratios[0]:.3f}, max {ratios[-1]:.3f}, n = {rounds}"
        print(f"{name}: {our_s:.3f} s against {their_s:.3f} s, ratio {statistics.median(ratios):.3f} ({spread})")
    print(f"bar: at most {bar} of the processor's time")


def main() -> None:
    """Compare two programs, or two states of this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path)
    given = parser.parse_args()
    if given.before is None or given.after is None:
        offline, programs = {**os.environ, "YOLO_OFFLINE": "1"}, Path(sys.executable).parent
        print("deepfer --help against yolo help")
        ours, theirs = [str(programs / "deepfer"), "--help"], [str(programs / "yolo"), "help"]
        compare((ours, offline), (theirs, offline), given.rounds, BARS["help"])
        return
    from PIL import Image

    from deepfer_yolo.painted import paint_faces

    with tempfile.TemporaryDirectory() as folder:
        face = Path(folder) / "face.png"
        Image.fromarray(paint_faces(3, 1)[0][0]).save(face)
        print(f"start to first label, {given.after} against {given.before}")
        after, before = first_label(given.after, face), first_label(given.before, face)
        compare(after, before, given.rounds, BARS["first label"])


if __name__ == "__main__":
    main()
