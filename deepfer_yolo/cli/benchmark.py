"""`deepfer benchmark`: latency, throughput, memory and size, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfer_yolo.cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from deepfer_yolo.runtime.benchmark import Measured


def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Exported models, and .pt files with cards.", show_default=False),
    ],
    threads: Annotated[int | None, typer.Option(help="Threads of each model.", show_default="1")] = None,
    batch: Annotated[str | None, typer.Option(help="Numbers of pictures a call: 1,32.", show_default="1,32")] = None,
    provider: Annotated[str | None, typer.Option(help="cpu, cuda, tensorrt or openvino.", show_default="cpu")] = None,
    rounds: Annotated[int | None, typer.Option(help="Turns that each model gets.", show_default="7")] = None,
    calls: Annotated[int | None, typer.Option(help="Calls a turn and batch.", show_default="20")] = None,
    timeout_s: Annotated[
        float | None, typer.Option(help="Seconds after which a silent model is given up.", show_default="120")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Draw pictures a second into this file.", show_default=False)] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure models side by side, each in its own process.

    The models take turns, so that a noisy machine hits all alike; speed is against the first model, the median over the
    rounds. A model that fails, hangs or crashes becomes a row with its reason, and the exit code is 1.

    Example: deepfer benchmark best.pt best.onnx best-int8.onnx --threads 1
    """
    from deepfer_yolo.cli.output import print_json, progress
    from deepfer_yolo.config import BenchmarkConfig, resolve
    from deepfer_yolo.errors import ConfigError
    from deepfer_yolo.runtime.benchmark import Plan
    from deepfer_yolo.runtime.benchmark import benchmark as measure

    try:
        batches = None if batch is None else [int(part) for part in batch.split(",")]
    except ValueError:
        raise ConfigError(f"--batch: whole numbers such as 1,32 are needed, not {batch!r}") from None
    flags = {
        "threads": threads,
        "batch": batches,
        "provider": provider,
        "rounds": rounds,
        "calls": calls,
        "timeout_s": timeout_s,
    }
    settings = resolve(BenchmarkConfig, config, flags)
    plan = Plan(
        settings.batch, settings.rounds, settings.calls, settings.threads, settings.provider, settings.timeout_s
    )
    with progress() as bar:
        task = bar.add_task("rounds", total=plan.rounds)
        found = measure(models, plan, "deepfer_yolo.cli.options:open_classifier", lambda: bar.advance(task))
    summaries = [one.summary(found[0]) for one in found]
    if as_json:
        print_json({"conditions": _conditions(plan.threads, plan.rounds, plan.calls), "models": summaries})
    else:
        _print(summaries, _conditions(plan.threads, plan.rounds, plan.calls))
    if png is not None:
        _draw(found, plan.batches[-1], png)
    if any(one.error for one in found):
        raise typer.Exit(1)


def _conditions(threads: int, rounds: int, calls: int) -> dict[str, Any]:
    import os
    import platform

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "rounds": rounds, "calls": calls, "load": load}


def _print(summaries: list[dict[str, Any]], conditions: dict[str, Any]) -> None:
    for one in summaries:
        print(
            f"{one['model']}  {one['n_bytes'] / 1e6:.2f} MB"
            + (f"  {one['precision']} on {one['provider']}" if one["error"] is None else "")
        )
        if one["error"] is not None:
            print(f"  error: {one['error']}")
            continue
        print(
            f"  start {one['start_s']:.2f} s, open {one['open_ms']:.0f} ms, first call {one['first_ms']:.1f} ms, peak {one['peak_mb']:.0f} MB"
        )
        for row in one["batches"]:
            print(
                f"  batch {row['batch']:>3}: p50 {row['p50_ms']:.2f}  p90 {row['p90_ms']:.2f}  p99 {row['p99_ms']:.2f} ms, "
                f"{row['pictures_per_s']:>7.0f} pictures/s" + (f", {row['speed']:.2f} ×" if "speed" in row else "")
            )
    c = conditions
    print(
        f"{c['cpu']}, {c['cores']} cores, {c['threads']} threads a model, {c['rounds']} rounds of {c['calls']} calls, load {c['load']:.1f}"
    )


def _draw(found: list[Measured], batch: int, path: Path) -> None:
    import numpy as np

    from deepfer_yolo.report.plots import bars, save_png

    good = [one for one in found if one.error is None]
    rates = [batch / np.median(one.times_ms[batch], axis=1) * 1000 for one in good]
    low, high = [float(rate.min()) for rate in rates], [float(rate.max()) for rate in rates]
    names = [Path(one.model).name for one in good]
    save_png(
        bars(names, [float(np.median(rate)) for rate in rates], f"pictures a second, batch {batch}", low, high), path
    )
