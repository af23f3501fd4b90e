"""`deepfer benchmark`: latency, throughput, memory and size, side by side."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, options_of
from deepfer_yolo.config import BenchmarkConfig

if TYPE_CHECKING:
    from deepfer_yolo.runtime.benchmark import Measured


@options_of(BenchmarkConfig, "models threads batch provider rounds calls timeout_s png config as_json")
def benchmark(
    settings: BenchmarkConfig,
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Exported models, and .pt files with cards.", show_default=False),
    ],
    png: Annotated[Path | None, typer.Option(help="Draw images per second into this file.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure models side by side, each in its own process.

    The models take turns, so that a noisy machine hits all alike; speed is against the first model, the median over the
    rounds. A model that fails, hangs or crashes becomes a row with its reason, and the exit code is 1. On OpenVINO a
    line tells what its own choice of arithmetic would give and cost; of an int8 file slower than the first model, that
    signed activations are the cause, where they are.

    Example: deepfer benchmark best.pt best.onnx best-int8.onnx --threads 1
    """
    from deepfer_yolo.cli.options import print_json, progress
    from deepfer_yolo.runs import cpu_name
    from deepfer_yolo.runtime.benchmark import benchmark as measure

    with progress() as bar:
        task = bar.add_task("rounds", total=settings.rounds)
        found = measure(models, settings, "deepfer_yolo.cli.options:open_classifier", lambda: bar.advance(task))
    conditions = Conditions(cpu_name(), os.cpu_count(), settings.threads, settings.rounds, settings.calls, _load())
    advice = _advice(found)
    if as_json:
        models_json = [one.to_json(found[0]) for one in found]
        print_json({"conditions": asdict(conditions), "models": models_json, "advice": advice})
    else:
        _print(found, conditions)
        for line in advice:
            print(line)
    if png is not None:
        _draw(found, settings.batch[-1], png)
    if any(one.error for one in found):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the figures depend on; `load` is the system's over the last minute, None where it does not say."""

    cpu: str
    cores: int | None
    threads: int
    rounds: int
    calls: int
    load: float | None


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _advice(found: list[Measured]) -> list[str]:
    """Where int8 is slower than fp32: by the processor, and as measured between files of one model."""
    from deepfer_yolo.runs import int8_note

    good = [one for one in found if one.error is None]
    small = [one for one in good if (one.precision, one.provider) == ("int8", "cpu")]
    lines = list(filter(None, (int8_note(one.precision, one.provider) for one in small[:1])))
    for one in small:
        for whole in good:
            if (whole.precision, whole.provider, whole.name) == ("fp32", "cpu", one.name):
                speeds = {row.batch: row.speed for row in one.batches(whole) if row.speed is not None}
                slower = [f"{1 / speed:.2f} × at {batch}" for batch, speed in speeds.items() if speed < 1]
                if slower:
                    times = ", ".join(slower)
                    lines.append(f"take {whole.model} here: {one.model}, in int8, needs its time {times} images a call")
    return lines


def _print(found: list[Measured], conditions: Conditions) -> None:
    for one in found:
        how = f"  {one.precision} on {one.provider}" if one.error is None else f"\n  error: {one.error}"
        print(f"{one.model}  {one.n_bytes / 1e6:.2f} MB{how}")
        if one.error is not None:
            continue
        opened = f"open {one.open_ms:.0f} ms, first call {one.first_ms:.1f} ms, peak {one.peak_mb:.0f} MB"
        print(f"  start {one.start_s:.2f} s, {opened}")
        for row in one.batches(found[0]):
            times = f"p50 {row.p50_ms:.2f}  p90 {row.p90_ms:.2f}  p99 {row.p99_ms:.2f} ms"
            speed = "" if row.speed is None else f", {row.speed:.2f} ×"
            print(f"  batch {row.batch:>3}: {times}, {row.pictures_per_s:>7.0f} images/s{speed}")
        for note in (one.own_choice, one.signed):
            if note is not None:
                print(f"  {note.line}")
    c = conditions
    turns = f"{c.threads} threads a model, {c.rounds} rounds of {c.calls} calls"
    print(f"{c.cpu}, {c.cores} cores, {turns}" + ("" if c.load is None else f", load {c.load:.1f}"))


def _draw(found: list[Measured], batch: int, path: Path) -> None:
    import numpy as np

    from deepfer_yolo.report.plots import bars, save_png

    good = [one for one in found if one.error is None]
    rates = [batch / one.medians_ms(batch) * 1000 for one in good]
    spans = [(float(rate.min()), float(rate.max())) for rate in rates]
    names, medians = [Path(one.model).name for one in good], [float(np.median(rate)) for rate in rates]
    save_png(bars(names, medians, f"images per second, batch {batch}", spans), path)
