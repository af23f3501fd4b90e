"""The same job by one process, by `--shard` × 4, by `--cluster local`, and by two nodes of which one is killed: whether
rows are equal, processor seconds of each, start-up apart from work, and from both when Ray is worth it.

    python tests/benchmarks/cluster.py FOLDER [--ways one shards local nodes]

Processor time is that of every process below this one, daemons too, looked at four times a second: Linux gives what
they leave behind to this script (PR_SET_CHILD_SUBREAPER). Ray's own do not wait for their workers, whose times are lost
to getrusage.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ray_nodes import environment, lose, node

PROGRAM = [sys.executable, "-m", "deepfer_yolo"]
ENVIRONMENT = environment()


@dataclass(frozen=True, slots=True)
class Cost:
    """What a way took: seconds of the clock and of processors."""

    wall_s: float
    cpu_s: float
    by_name: Counter[str]


class Watch(threading.Thread):
    """Notes the processor time of all processes below this one, as last seen."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds: dict[int, float] = {}
        self.names: dict[int, str] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.25):
            self.look()

    def look(self) -> None:
        """Look once."""
        tick = os.sysconf("SC_CLK_TCK")
        parents, times = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                pid, words = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
                if pid not in self.names or self.names[pid].startswith("python"):
                    self.names[pid] = named((stat.parent / "cmdline").read_bytes())
                parents[pid], times[pid] = int(words[1]), (int(words[11]) + int(words[12])) / tick
        below = {os.getpid()}
        for _ in range(10):
            below |= {pid for pid, parent in parents.items() if parent in below}
        self.seconds |= {pid: times[pid] for pid in below - {os.getpid()}}


def measured(work: Callable[[], None]) -> Cost:
    """The cost of `work` and of all that it leaves running, which is waited for."""
    watch, began = Watch(), time.monotonic()
    watch.start()
    work()
    wall_s = time.monotonic() - began
    with suppress(ChildProcessError):
        while True:
            os.wait()
    watch.ended.set()
    watch.join()
    by_name: Counter[str] = Counter()
    for pid, seconds in watch.seconds.items():
        by_name[watch.names[pid]] += seconds
    return Cost(wall_s, sum(watch.seconds.values()), by_name)


def named(command: bytes) -> str:
    """What a process is, in a word or two."""
    words = command.decode(errors="replace").replace("\0", " ").split()
    if not words or words[0].startswith("ray::"):
        return " ".join(words)[:32]
    return next((Path(word).name for word in words[1:] if word.endswith(".py")), Path(words[0]).name)


def deepfer(*words: object, out: Path | None = None) -> str:
    """Run the program; stdout into `out`, stderr returned."""
    with open(out or os.devnull, "wb") as file:  # noqa: PTH123
        done = subprocess.run(
            [*PROGRAM, *map(str, words)], stdout=file, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False
        )
    if done.returncode not in (0, 4):
        sys.exit(done.stderr.decode())
    return done.stderr.decode()


def one(source: str, work: Path) -> None:
    """One process, its rows on stdout."""
    deepfer("predict", source, "--json", out=work / "one.jsonl")


def shards(source: str, work: Path) -> None:
    """Four parts, one after the other, and their merge."""
    for number in range(1, 5):
        deepfer("predict", source, "--shard", f"{number}/4", "--out", work / "parts")
    deepfer("predict", source, "--json", "--merge", work / "parts", out=work / "shards.jsonl")


def local(source: str, work: Path) -> None:
    """A cluster of this machine's cores."""
    print(deepfer("predict", source, "--cluster", "local", "--out", work / "local").strip())


def nodes(source: str, work: Path) -> None:
    """Two nodes of one core; the second is lost once some blocks are finished."""
    out, homes = work / "nodes", [work / "head", work / "other"]
    for home in homes:
        home.mkdir()
    with node(homes[0], ENVIRONMENT) as (address, _), node(homes[1], ENVIRONMENT, address) as (_, second):
        words = ["predict", source, "--cluster", address, "--out", str(out)]
        job = subprocess.Popen([*PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
        while len(list((out / "rows").glob("*.parquet"))) < 4 and job.poll() is None:
            time.sleep(0.2)
        lose(second)
        print("lost a node after", len(list((out / "rows").glob("*.parquet"))), "blocks")
        said = job.communicate()[1].decode()
        if job.returncode not in (0, 4):
            sys.exit(said)
        print(said.strip().splitlines()[-2])


def rows_of(work: Path, way: str, source: str) -> str:
    """The SHA-256 of the rows that a way has left, as `predict --json` prints them."""
    file = work / f"{way}.jsonl"
    if not file.exists():
        deepfer("predict", source, "--json", "--merge", work / way, out=file)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def simulated(one_s: float, row_s: float, one_start_s: float, start_s: float, cores: int = 16) -> None:
    """From measured costs, how long one process takes and nodes of some cores: Ray's start, then work and its price."""
    sizes = (1, 4, 16, 64)
    print(f"\nsimulated, {cores} cores a node, seconds: one process on one core | Ray on {sizes} nodes")
    for n in (1_000, 30_000, 100_000, 1_000_000, 10_000_000):
        spread = [start_s + n * (one_s + row_s) / (count * cores) for count in sizes]
        print(f"{n:>11,} images: {one_start_s + n * one_s:>8,.0f} | " + ", ".join(f"{s:,.0f}" for s in spread))
    for workers in (count * cores for count in sizes):
        left = one_s - (one_s + row_s) / workers
        print(f"on {workers:>5} cores Ray is first done from {(start_s - one_start_s) / left:,.0f} images on")


def main() -> None:
    """Print what every way took, and whether all rows are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--ways", nargs="+", default=["one", "shards", "local", "nodes"])
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        work, costs, seen, starts = Path(name), {}, {}, {}
        few = work / "few"
        few.mkdir()
        for path in sorted(options.source.iterdir())[:16]:
            (few / path.name).symlink_to(path.resolve())
        for way in ("one", "local"):
            (work / f"start-{way}").mkdir()
            starts[way] = measured(lambda way=way: globals()[way](str(few), work / f"start-{way}"))
            print(f"16 images, {way}: {starts[way].cpu_s:.1f} s of processors, {starts[way].wall_s:.1f} s")
        for way in options.ways:
            costs[way] = measured(lambda way=way: globals()[way](str(options.source), work))
            seen[way] = rows_of(work, way, str(options.source))
            n = sum(1 for _ in (work / f"{way}.jsonl").open("rb"))
            cost = costs[way]
            print(f"{way:<7} {n:,} rows, {cost.cpu_s:6.1f} s of processors, {cost.wall_s:6.1f} s, {seen[way][:12]}")
            print("        " + ", ".join(f"{name} {s:.1f}" for name, s in cost.by_name.most_common(8)), flush=True)
        print("rows are equal" if len(set(seen.values())) == 1 else "ROWS DIFFER")
        if {"one", "local"} <= costs.keys():
            one_s = (costs["one"].cpu_s - starts["one"].cpu_s) / n
            row_s = (costs["local"].cpu_s - starts["local"].cpu_s) / n - one_s
            print(f"beyond start-up: one process {one_s * 1e3:.2f} s a thousand, Ray {row_s * 1e3:+.2f} s")
            simulated(one_s, max(0.0, row_s), starts["one"].wall_s, starts["local"].wall_s)
    sys.exit(len(set(seen.values())) != 1)


if __name__ == "__main__":
    main()
