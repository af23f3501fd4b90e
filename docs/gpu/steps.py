"""The measured steps of run.sh: what is started, what is read from it, and the record of it.

python docs/gpu/steps.py speed|accuracy|tensorrt|summary [options]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DEEPFER = [sys.executable, "-m", "deepfer_yolo"]
TOP1 = "metrics/accuracy_top1"


def rows_of(run: Path) -> list[dict[str, float]]:
    """The epochs that stand in the run's results.csv."""
    path = run / "results.csv"
    if not path.is_file():
        return []
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return [{key.strip(): float(value) for key, value in row.items() if value.strip()} for row in rows]


def spread(values: list[float]) -> dict[str, float | int]:
    """Median, range and number."""
    if not values:
        return {"n": 0}
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def call(command: list[str], log: Path, timeout_s: float) -> str:
    """Run to the end or the limit; "" or what was wrong."""
    with log.open("ab") as file:
        try:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return f"stopped after {timeout_s:.0f} s"
    return "" if done.returncode == 0 else f"exit code {done.returncode}: {log.read_text(errors='replace')[-800:]}"


def whole_epochs(run: Path, n: int) -> list[float]:
    """Images a second over whole epochs, validation and checkpoints included; the first epoch left out."""
    times = [row["time"] for row in rows_of(run)]
    return [n / (after - before) for before, after in itertools.pairwise(times)]


# 1: speed against stock


def ours(options: argparse.Namespace, name: str, batch: int, more: list[str]) -> dict[str, Any]:
    """One training of ours: images a second of its epochs after the first."""
    run = options.out / "runs" / "train" / name
    command = [
        *DEEPFER, "train", str(options.data), "--model", "yolo26n-cls", "--imgsz", "64", "--batch", str(batch),
        "--epochs", str(options.epochs), "--device", options.device, "--precision", options.precision,
        "--threads", str(options.threads), "--name", name, *more,
    ]  # fmt: skip
    trouble = call(command, options.out / "logs" / f"{name}.log", options.limit_s)
    log = run / "log.txt"
    lines = [line.split() for line in log.read_text().splitlines()] if log.is_file() else []
    rates = [
        float(words[7])
        for words in lines
        if len(words) > 8 and words[2].partition("/")[0].isdigit() and "/" in words[2]
    ]
    return {"training": spread(rates[1:]), "whole_epochs": spread(whole_epochs(run, options.n)), "trouble": trouble}


def stock(options: argparse.Namespace, name: str, batch: int) -> dict[str, Any]:
    """One training of stock Ultralytics: the same figures."""
    rates = options.out / f"{name}.json"
    command = [
        sys.executable, str(HERE / "stock.py"), str(rates), "model=yolo26n-cls.yaml", f"data={options.data}",
        "imgsz=64", f"batch={batch}", f"epochs={options.stock_epochs}", f"device={options.device}",
        f"workers={options.workers}",
        f"amp={options.precision}", f"project={options.out / 'runs'}", f"name={name}", "plots=False", "exist_ok=True",
    ]  # fmt: skip
    trouble = call(command, options.out / "logs" / f"{name}.log", options.limit_s)
    found = json.loads(rates.read_text()) if rates.is_file() else []
    whole = whole_epochs(options.out / "runs" / name, options.n)
    return {"training": spread(found[1:]), "whole_epochs": spread(whole), "trouble": trouble}


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides at each batch, ours first and last, so that a machine that slows down shows."""
    record: dict[str, Any] = {}
    for batch in options.batches:
        sides = {"deepfer": ours(options, f"speed-{batch}", batch, options.more)}
        sides["stock"] = stock(options, f"stock-{batch}", batch)
        sides["deepfer_again"] = ours(options, f"speed-{batch}-again", batch, options.more)
        ratios = {
            kind: min(sides[side][kind]["median"] for side in ("deepfer", "deepfer_again"))
            / sides["stock"][kind]["median"]
            for kind in ("training", "whole_epochs")
            if all(sides[side][kind]["n"] for side in sides)
        }
        record[str(batch)] = {**sides, "ratio_of_the_slower": ratios}
        print(f"batch {batch}: {json.dumps(record[str(batch)])}", flush=True)
    return record


# 2: time to an accuracy


def accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the start of the process until the target stands in results.csv."""
    record: dict[str, Any] = {}
    for number, words in enumerate(options.recipe):
        name = f"target-{number}"
        command = [
            *DEEPFER, "train", str(options.data), "--device", options.device, "--threads", str(options.threads),
            "--name", name, *words.split(),
        ]  # fmt: skip
        record[words] = race(command, options.out / "runs" / "train" / name, options)
        print(f"{words}: {json.dumps(record[words])}", flush=True)
    return record


def race(command: list[str], run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run until the target or the limit, and what came of it."""
    began, seen = time.monotonic(), list[tuple[float, float]]()
    log = options.out / "logs" / f"{run.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=options.out, stdout=file, stderr=subprocess.STDOUT)
        try:
            while True:
                ended, spent = process.poll() is not None, time.monotonic() - began
                seen += [(spent, row[TOP1]) for row in rows_of(run)[len(seen) :] if TOP1 in row]
                reached = next((at for at, top1 in seen if top1 >= options.target), None)
                if reached is not None or ended or spent > options.limit_s:
                    break
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
    best = max((top1 for _, top1 in seen), default=0.0)
    trouble = log.read_text(errors="replace")[-800:] if process.returncode > 0 else ""
    return {
        "target": options.target,
        "reached_s": reached,
        "spent_s": spent,
        "epochs": len(seen),
        "best": best,
        "top1": seen,
        "trouble": trouble,
    }


# 4: TensorRT


def tensorrt(options: argparse.Namespace) -> dict[str, Any]:
    """Engines of the shipped model, verified and timed; or why there are none."""
    import importlib

    try:
        library = importlib.import_module("tensorrt")
        found = {"tensorrt": library.__version__, "builder": hasattr(library, "Builder")}
        library.Builder(library.Logger())
    except Exception as error:  # whatever a missing library raises is the finding
        return {"built": False, "why": f"{type(error).__name__}: {error}"}
    for precision in ("fp16", "int8"):
        engine, log = options.out / f"{precision}.engine", options.out / "logs" / f"tensorrt-{precision}.log"
        export = [
            *DEEPFER, "export", str(options.model), "--format", "engine", "--precision", precision,
            "--out", str(engine), "--data", str(options.data), "--overwrite",
        ]  # fmt: skip
        found[f"{precision}_export"] = call(export, log, options.limit_s) or "built"
        if engine.is_file():
            found[f"{precision}_verify"] = call([*DEEPFER, "verify", str(engine)], log, options.limit_s) or "passed"
            timing = subprocess.run(
                [*DEEPFER, "benchmark", str(engine), "--batch", "1,32", "--json"],
                capture_output=True,
                text=True,
                check=False,
            )
            found[f"{precision}_benchmark"] = json.loads(timing.stdout) if timing.returncode == 0 else timing.stderr
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {"gpu": gpu, "cpus": os.cpu_count(), "torch": torch.__version__, "load": os.getloadavg()[0]}


def main() -> None:
    """Run one step and write its record, or put all records together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("speed", "accuracy", "tensorrt", "summary"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="0")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--limit-s", type=float, default=90, help="of one training")
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 128])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--stock-epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--more", default="", help="more options of deepfer train, for step speed")
    parser.add_argument("--recipe", action="append", default=[], help="options of deepfer train, for step accuracy")
    parser.add_argument("--target", type=float, default=0.65)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    options.out, options.more = options.out.resolve(), options.more.split()
    (options.out / "logs").mkdir(parents=True, exist_ok=True)
    if options.step == "summary":
        records = {path.stem: json.loads(path.read_text()) for path in sorted(options.out.glob("step-*.json"))}
        (options.out / "summary.json").write_text(json.dumps({"machine": machine(), **records}, indent=1))
        return
    if options.data is not None:
        options.data = options.data.resolve()
        options.n = sum(1 for _ in (options.data / "train").rglob("*.png"))
    os.chdir(options.out)
    record = {"speed": speed, "accuracy": accuracy, "tensorrt": tensorrt}[options.step](options)
    (options.out / f"step-{options.step}.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
