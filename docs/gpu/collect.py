"""What a run left, in at most eight files of at most 15 MB: one archive of the records and checkpoints, cut to pieces.

python docs/gpu/collect.py WORK OUT       cat OUT/runs.tar.* | tar x    gives them back

Checkpoints come best first, and what no longer fits is named in left_out.txt. A training that was cut off has no card
yet, and its optimiser is still in the checkpoint: that is taken out.
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile
from pathlib import Path

PIECE, PIECES = 15_000_000, 4
RECORDS = ("results.csv", "config.yaml", "metrics.json", "log.txt")


def best_of(run: Path) -> float:
    """The best top-1 in results.csv."""
    rows = csv.DictReader((run / "results.csv").read_text().splitlines()) if (run / "results.csv").is_file() else []
    return max((float(row["metrics/accuracy_top1"]) for row in rows), default=0.0)


def strip(checkpoint: Path) -> None:
    """Leave what is shipped: the averaged network in half precision."""
    from deepfer_yolo.yolo import strip_optimizer

    strip_optimizer(checkpoint)


def main() -> None:
    """Write the pieces."""
    work, out = map(Path, sys.argv[1:])
    runs = sorted((path for path in work.glob("runs/train/*") if path.is_dir()), key=best_of, reverse=True)
    for run in runs:
        if (checkpoint := run / "weights" / "best.pt").is_file() and not checkpoint.with_suffix(".json").is_file():
            strip(checkpoint)
    small = [path for run in runs for name in RECORDS if (path := run / name).is_file()]
    small += [*work.glob("logs/*.log"), *work.glob("step-*.json")]
    large = [path for run in runs for path in sorted((run / "weights").glob("best.*"))]
    buffer, left_out = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in [*small, *large]:
            if buffer.tell() + path.stat().st_size > PIECE * PIECES - 100_000:
                left_out.append(f"{path.relative_to(work)} {path.stat().st_size}")
            else:
                archive.add(path, path.relative_to(work))
    content = buffer.getvalue()
    for number, start in enumerate(range(0, len(content), PIECE)):
        (out / f"runs.tar.{number}").write_bytes(content[start : start + PIECE])
    (out / "left_out.txt").write_text("".join(f"{line}\n" for line in left_out))
    print(f"{len(content) / 1e6:.1f} MB of {len(runs)} runs; left out: {len(left_out)}")


if __name__ == "__main__":
    main()
