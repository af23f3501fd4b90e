"""Convert and audit on a whole csv: wall clock, CPU time and peak memory of each command.

python tests/benchmarks/data_commands.py ../shared/datasets/fer2013_dev.csv.gz
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(name: str, *command: str) -> None:
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "deepfer_yolo", *command], stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    print(
        f"{name:10} {wall:6.1f} s wall  {usage.ru_utime + usage.ru_stime:6.1f} s CPU  {usage.ru_maxrss / 1024:6.0f} MB"
    )


def main(source: str) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "set")
        measure("convert", "convert", source, target)
        measure("audit", "audit", target)


if __name__ == "__main__":
    main(sys.argv[1])
