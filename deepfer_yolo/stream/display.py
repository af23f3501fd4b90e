"""What is shown while a stream runs: a table on a terminal, a line a second elsewhere, JSON lines in a file."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepfer_yolo.stream.status import SourceSummary, Summary

if TYPE_CHECKING:
    from rich.live import Live

    from deepfer_yolo.stream.pipeline import Pipeline


def summary_table(summary: Summary) -> RenderableType:
    """Sources with their counters, then sinks, then one line on speed; fits 80 columns."""
    table = _table("captured", "processed", "dropped", "in flight")
    for source in summary.sources:
        numbers = (source.captured, source.processed, source.dropped, source.in_flight)
        table.add_row(source.source, _state(source), *(f"{n:,}" for n in numbers))
    lines: list[RenderableType] = [table]
    lines += [_drops(source) for source in summary.sources if source.dropped]
    lines += [_failure(source) for source in summary.sources if source.has_failed]
    for sink in summary.sinks:
        trouble = f", {sink.dropped:,} dropped" if sink.dropped else ""
        failed = f", failed: {sink.error}" if sink.error else ""
        lines.append(Text(f"sink {sink.sink}: took {sink.written:,}{trouble}{failed}"))
    processed = sum(one.processed for one in summary.sources)
    rate = processed / summary.wall_s if summary.wall_s > 0 else 0.0
    lines.append(
        Text(f"{processed:,} pictures and {summary.faces:,} faces in {summary.wall_s:.1f} s ({rate:.1f} pictures/s)")
    )
    return Group(*lines)


def live_table(summary: Summary, rate: float, ages_ms: dict[str, float], queues: dict[str, int]) -> RenderableType:
    """The run as it stands: sources with age, queue and drops, then the time of each stage."""
    table = _table("processed", "dropped", "queue", "age ms")
    for source in summary.sources:
        age = ages_ms.get(source.source)
        numbers = (
            f"{source.processed:,}",
            f"{source.dropped:,}",
            str(queues.get(source.source, 0)),
            "" if age is None else f"{age:.0f}",
        )
        table.add_row(source.source, _state(source), *numbers)
    stages = Table(box=None, pad_edge=False)
    for name in ("stage", "p50 ms", "p99 ms"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    for stage, times in summary.stages.items():
        stages.add_row(stage, f"{times['p50_ms']:.1f}", f"{times['p99_ms']:.1f}")
    troubled = [
        f"sink {sink.sink}: " + (sink.error or f"{sink.dropped:,} dropped")
        for sink in summary.sinks
        if sink.error or sink.dropped
    ]
    head = f"{summary.wall_s:.0f} s   {rate:.1f} pictures/s   {summary.faces:,} faces"
    return Group(Text(head), table, stages, *(Text(line, style="yellow") for line in troubled))


def _table(*numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("source", overflow="fold", max_width=30)
    table.add_column("state")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _state(source: SourceSummary) -> str:
    return source.state + (f" ({source.reason})" if source.state in ("failed", "lost") and source.reason else "")


def _failure(source: SourceSummary) -> Text:
    return Text(f"error: {source.error}" + (f" ({source.hint})" if source.hint else ""))


def _drops(source: SourceSummary) -> Text:
    parts = {"overwritten": source.overwritten, "stale": source.stale, "corrupt": source.corrupt}
    return Text(f"dropped of {source.source}: " + ", ".join(f"{n:,} {name}" for name, n in parts.items() if n))


EVERY_S = 1.0


class LiveStatus:
    """Shows how a run goes on stderr, once a second; `stats` adds a JSON line a second to a file."""

    def __init__(self, *, is_table: bool, stats: Path | None = None, is_quiet: bool = False) -> None:
        self._is_table = is_table
        self._is_quiet = is_quiet
        self._stats_path = stats
        self._stats: IO[str] | None = None
        self._live: Live | None = None
        self._last = (time.monotonic(), 0)
        self._rate = 0.0
        self.pipeline: Pipeline | None = None
        """The run that was last shown."""

    def __enter__(self) -> LiveStatus:
        if self._is_table:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tick(self, pipeline: Pipeline) -> None:
        """Show the state of the run where a second has passed."""
        self.pipeline = pipeline
        now = time.monotonic()
        since, before = self._last
        if now - since < EVERY_S:
            return
        summary = pipeline.summary()
        processed = sum(source.processed for source in summary.sources)
        self._rate = (processed - before) / (now - since)
        self._last = (now, processed)
        self._show(summary, pipeline)

    def close(self, summary: Summary | None = None) -> None:
        """Write the last JSON line, of `summary`, and show no more."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if summary is not None:
            self._write_stats(self._snapshot(summary, {}, {}) | {"final": True})
        if self._stats is not None:
            self._stats.close()
            self._stats = None

    def _show(self, summary: Summary, pipeline: Pipeline) -> None:
        ages = pipeline.ages_ms()
        queues = {feed.address.name: len(feed.buffer) for feed in pipeline.feeds}
        self._write_stats(self._snapshot(summary, ages, queues))
        if self._live is not None:
            self._live.update(live_table(summary, self._rate, ages, queues))
        elif not self._is_quiet:
            print(_line(summary, self._rate, ages), file=sys.stderr)

    def _write_stats(self, line: dict[str, Any]) -> None:
        """Write to the file, which is made with its first line: a run that is refused replaces nothing."""
        if self._stats_path is None:
            return
        if self._stats is None:
            self._stats_path.parent.mkdir(parents=True, exist_ok=True)
            self._stats = self._stats_path.open("w", encoding="utf-8")
        self._stats.write(json.dumps(line) + "\n")
        self._stats.flush()

    def _snapshot(self, summary: Summary, ages: dict[str, float], queues: dict[str, int]) -> dict[str, Any]:
        return {
            "fps": round(self._rate, 2),
            "age_ms": {k: round(v, 1) for k, v in ages.items()},
            "queue": queues,
            **summary.to_dict(),
        }


def _line(summary: Summary, rate: float, ages: dict[str, float]) -> str:
    live = sum(source.state in ("live", "frozen") for source in summary.sources)
    dropped = sum(source.overwritten + source.stale + source.corrupt for source in summary.sources)
    age = f"  age {max(ages.values()):.0f} ms" if ages else ""
    stages = "  ".join(
        f"{stage} {times['p50_ms']:.1f}/{times['p99_ms']:.1f}"
        for stage, times in summary.stages.items()
        if stage != "age"
    )
    head = f"{summary.wall_s:6.1f} s  {live}/{len(summary.sources)} live  {rate:5.1f} fps{age}  dropped {dropped}  faces {summary.faces}"
    return f"{head}  {stages} ms"
