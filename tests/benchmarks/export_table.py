"""The table of exports in docs/formats.md: each format and precision with its file size, its parity and its speed, from
one checkpoint.

Every file is made and proven by `deepfer export` on the val split of DATASET, then all are timed together by `deepfer
benchmark`. A format whose library is not installed keeps its row and says so. The table is Markdown; its conditions
stand below it.

.venv/bin/python tests/benchmarks/export_table.py runs/train/NAME/weights/best.pt DATASET [--keep FOLDER] [--rounds 7]
[--calls 20]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DEEPFER = (sys.executable, "-m", "deepfer_yolo")
WANTED = (
    *(("onnx", precision) for precision in ("fp32", "fp16", "int8")),
    *(("openvino", precision) for precision in ("fp32", "fp16")),
    *(("ncnn", precision) for precision in ("fp32", "fp16")),
    ("litert", "fp32"),
    ("torchscript", "fp32"),
)
MAX_INT8_BYTES, MIN_INT8_SPEED = 2_000_000, 1.2
"""Bars of the ONNX int8 file: its size, and its speed against fp32 at batch 32 on one thread."""


def deepfer(*arguments: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON that a command prints, or None and its last line on stderr."""
    done = subprocess.run([*DEEPFER, *arguments, "--json"], capture_output=True, text=True, check=False)
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        return None, (error or done.stderr.splitlines() or ["no output"])[-1]


def make(checkpoint: Path, data: Path, folder: Path) -> dict[tuple[str, str], dict[str, Any] | str]:
    """Each wanted export, or why there is none."""
    made: dict[tuple[str, str], dict[str, Any] | str] = {}
    for fmt, precision in WANTED:
        out = folder / (f"{fmt}-{precision}" + (".onnx" if fmt == "onnx" else ""))
        arguments = [
            "export",
            str(checkpoint),
            "--format",
            fmt,
            "--precision",
            precision,
            "--data",
            str(data),
            "--out",
            str(out),
            "--overwrite",
        ]
        began = time.monotonic()
        found, error = deepfer(*arguments)
        made[fmt, precision] = error if found is None else found
        took = time.monotonic() - began
        print(
            f"{fmt} {precision}: {error or found['card']['metrics']['parity']['recipe']}, {took:.0f} s",
            file=sys.stderr,
            flush=True,
        )  # type: ignore[index]
    return made


def row(key: tuple[str, str], export: dict[str, Any] | str, timed: dict[str, Any] | None) -> str:
    """One line of the table."""
    if isinstance(export, str):
        said = export.replace("|", "\\|")
        return f"| `{key[0]}` {key[1]} | {said} | | | | | |"
    parity = export["parity"]
    decisions = parity["decisions"]
    low, high = decisions["accuracy_diff_interval"]
    became = "" if export["card"]["precision"] == key[1] else f" (became {export['card']['precision']})"
    speeds = ["", ""]
    if timed is not None and timed["error"] is None:
        one, many = timed["batches"]
        speeds = [
            f"{one['p50_ms']:.2f}",
            f"{many['speed']:.2f} × ({many['speed_range'][0]:.2f}-{many['speed_range'][1]:.2f})",
        ]
    proof = f"{parity['max_diff']:.1e} | {parity['agreement']:.2%} | {low * 100:+.2f} to {high * 100:+.2f}"
    return f"| `{key[0]}` {key[1]}{became} | {export['n_bytes'] / 1e6:.2f} | {proof} | {speeds[0]} | {speeds[1]} |"


def main() -> None:
    """Print the table, its conditions and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        made = make(options.checkpoint, options.data, folder)
        good = {key: export for key, export in made.items() if not isinstance(export, str)}
        paths = [str(export["path"]) for export in good.values()]
        turns = f"--threads 1 --batch 1,32 --rounds {options.rounds} --calls {options.calls}"
        found, error = deepfer("benchmark", *paths, *turns.split())
        if found is None:
            raise SystemExit(error)
        timed = dict(zip(good, found["models"], strict=True))
    speed = "one face, ms | batch 32 against `onnx` fp32"
    print(f"| export | MB | max \\|Δp\\| | same label | accuracy, points (95 %) | {speed} |")
    print("|---|---|---|---|---|---|---|")
    for key, export in made.items():
        print(row(key, export, timed.get(key)))
    first = next(iter(good.values()))
    how = found["conditions"]
    turns = f"{how['rounds']} rounds of {how['calls']} calls in turn"
    print(f"\nParity on {first['parity']['pictures']}. One thread, {turns}: median and range.")
    print(f"{how['cpu']}, load {how['load']:.1f}.")
    if ("onnx", "int8") in timed and timed["onnx", "int8"]["error"] is None:
        size, speed = good["onnx", "int8"]["n_bytes"], timed["onnx", "int8"]["batches"][1]["speed"]
        print(f"int8: {size / 1e6:.2f} MB, bar at most {MAX_INT8_BYTES / 1e6:.0f};", end=" ")
        print(f"{speed:.2f} times as fast as fp32, bar at least {MIN_INT8_SPEED}")


if __name__ == "__main__":
    main()
