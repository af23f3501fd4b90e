"""This checkout against another one, command by command: both in turn, the ratio per round, then the median.

    .venv/bin/python tests/benchmarks/two_trees.py OTHER_CHECKOUT --csv fer2013_dev.csv.gz --clip clip.mp4
        [--face-model FILE] [--rounds 5] [--only evaluate]

Both sides run in this environment, each with its own checkout first on the path; a ratio below 1 says that this
checkout needs less. Which side begins changes from round to round. Without --csv the faces are painted.
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
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took, in seconds."""

    cpu_s: float
    wall_s: float


def run(tree: Path, words: list[str]) -> Cost:
    """Run `deepfer` from the checkout `tree`. Raises SystemExit with its last words where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "DEEPFER_CACHE": str(tree / "runs" / "cache")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [sys.executable, "-m", "deepfer_yolo", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in {0, 3}:  # 3: the audit's verdict
        raise SystemExit(f"{tree}: deepfer {' '.join(words)}: {done.returncode}\n{done.stderr[-2000:]}")
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s)


def commands(options: argparse.Namespace, folder: Path, csv: Path, dataset: Path) -> dict[str, list[str]]:
    """The words of each measured command; OUT stands for a place that is new in every run."""
    small = folder / "small"
    found = {
        "help": ["--help"],
        "convert": ["convert", str(csv), "OUT"],
        "audit": ["audit", str(dataset), "--json"],
        "evaluate": ["evaluate", str(dataset), "-m", "deepfer-n", "--name", "OUT"],
        "predict": ["predict", str(dataset / "val"), "-m", "deepfer-n", "--format", "csv"],
        "train": ["train", str(small), "--model", "cnn-s", "--epochs", "2", "--name", "OUT"],
        "export": ["export", "deepfer-n.pt", "--data", str(dataset), "--out", "OUT.onnx"],
    }
    if options.clip is not None:
        face_model = ["--face-model", str(options.face_model)] if options.face_model else []
        found["stream"] = ["stream", str(options.clip), *face_model, "--sink", "jsonl=OUT.jsonl", "--quiet"]
    return {name: words for name, words in found.items() if not options.only or name in options.only}


def main() -> None:
    """Print one row a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--face-model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.chdir(folder)
        for name in ("csv", "clip", "face_model"):
            if getattr(options, name) is not None and not getattr(options, name).is_absolute():
                parser.error(f"--{name.replace('_', '-')} must be an absolute path")
        other = options.other.resolve()
        painted, csv = folder / "painted.csv", options.csv
        paint = (
            f"from deepfer_yolo.painted import paint_csv; from pathlib import Path; paint_csv(Path({str(painted)!r}), "
        )
        paint += "seed=1, n_train=3000, n_val=600, n_test=0)"
        subprocess.run([sys.executable, "-c", paint], env={**os.environ, "PYTHONPATH": str(HERE)}, check=True)
        run(other, ["convert", str(painted), str(folder / "small")])
        dataset = folder / "small"
        if csv is not None:
            dataset = folder / "dataset"
            run(other, ["convert", str(csv), str(dataset)])
        model = HERE / "deepfer_yolo" / "models"
        for suffix in (".pt", ".json"):
            (folder / f"deepfer-n{suffix}").write_bytes((model / f"deepfer-n{suffix}").read_bytes())
        n_runs = 0
        print(f"this / other, n = {options.rounds} rounds: median (min to max)")
        for name, words in commands(options, folder, csv or painted, dataset).items():
            rounds: list[tuple[Cost, Cost]] = []
            for index in range(options.rounds):
                costs = {}
                for tree in (HERE, other) if index % 2 else (other, HERE):
                    n_runs += 1
                    out = f"out{n_runs}"
                    costs[tree] = run(tree, [word.replace("OUT", out) for word in words])
                rounds.append((costs[HERE], costs[other]))
            cpu = sorted(mine.cpu_s / theirs.cpu_s for mine, theirs in rounds)
            wall = sorted(mine.wall_s / theirs.wall_s for mine, theirs in rounds)
            mine_s = statistics.median(mine.cpu_s for mine, _ in rounds)
            print(
                f"{name:9} CPU {statistics.median(cpu):.3f} ({cpu[0]:.3f} to {cpu[-1]:.3f}), {mine_s:.2f} s here; "
                f"wall {statistics.median(wall):.3f} ({wall[0]:.3f} to {wall[-1]:.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
