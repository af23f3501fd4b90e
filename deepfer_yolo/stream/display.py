"""What is shown while a stream runs: a table on a terminal, a line a second elsewhere, JSON lines in a file."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.records import Json
from deepfer_yolo.report.page import Name
from deepfer_yolo.stream.records import SinkSummary, SourceSummary, Summary

if TYPE_CHECKING:
    from rich.live import Live

    from deepfer_yolo.stream.pipeline import Pipeline


EVERY_S = 1.0
MAX_ROWS = 20
"""Of more sources than this, tables show those that are read or have failed, and count the rest."""
FINISHED = frozenset({"waiting", "ended"})


def summary_table(summary: Summary) -> RenderableType:
    """Sources with their counters, then sinks, then one line on speed; fits 80 columns."""
    table = _table("captured", "processed", "dropped", "in flight")
    shown, failed, untold = _noteworthy(summary)
    for source in shown:
        counters = source.counters
        numbers = (counters.captured, counters.processed, counters.dropped, counters.in_flight)
        table.add_row(Name(printable(source.source)), _state(source), *(f"{n:,}" for n in numbers))
    lines = [_drops(source) for source in shown if source.counters.dropped]
    lines += [
        f"error: {printable(source.error or '')}" + (f" ({source.hint})" if source.hint else "") for source in failed
    ]
    lines += untold
    for sink in summary.sinks:
        lines.append(_sink_line(sink))
    rate = summary.processed / summary.wall_s if summary.wall_s > 0 else 0.0
    total = f"{summary.processed:,} frames and {summary.faces:,} faces"
    lines.append(f"{total} in {summary.wall_s:.1f} s ({rate:.1f} frames/s)")
    return Group(table, *map(Text, lines))


def live_table(summary: Summary, rate: float, ages_ms: dict[str, float], queues: dict[str, int]) -> RenderableType:
    """The run as it stands: sources with age, queue and drops, then the time of each stage."""
    table = _table("processed", "dropped", "queue", "age ms")
    shown, _, untold = _noteworthy(summary)
    for source in shown:
        counts = (f"{source.counters.processed:,}", f"{source.counters.dropped:,}", f"{queues.get(source.source, 0)}")
        age_ms = ages_ms.get(source.source)
        table.add_row(
            Name(printable(source.source)), _state(source), *counts, "" if age_ms is None else f"{age_ms:.0f}"
        )
    stages = Table(box=None, pad_edge=False)
    for name in ("stage", "p50 ms", "p99 ms"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    for stage, taken in summary.stages.items():
        stages.add_row(stage, f"{taken.p50_ms:.1f}", f"{taken.p99_ms:.1f}")
    troubled = [
        Text(f"sink {sink.sink}: " + (sink.error or f"{sink.dropped:,} dropped"), style="yellow")
        for sink in summary.sinks
        if sink.error or sink.dropped
    ]
    head = f"{summary.wall_s:.0f} s   {rate:.1f} frames/s   {summary.faces:,} faces"
    return Group(Text(head), table, *map(Text, untold), stages, *troubled)


def status_line(summary: Summary, rate: float, ages_ms: dict[str, float]) -> str:
    """The run as it stands, in one line."""
    live, waiting = sum(source.is_live for source in summary.sources), summary.states.get("waiting", 0)
    dropped = sum(source.counters.dropped for source in summary.sources)
    age = f"  age {max(ages_ms.values()):.0f} ms" if ages_ms else ""
    times = (f"{name} {t.p50_ms:.1f}/{t.p99_ms:.1f}" for name, t in summary.stages.items() if name != "age")
    yet = f", {waiting} waiting" if waiting else ""
    head = f"{summary.wall_s:6.1f} s  {live}/{len(summary.sources)} live{yet}  {rate:5.1f} fps{age}"
    return f"{head}  dropped {dropped}  faces {summary.faces}  {'  '.join(times)} ms"


def _noteworthy(summary: Summary) -> tuple[list[SourceSummary], list[SourceSummary], list[str]]:
    """The sources that a table shows, those of them that failed, and a line on all where some are left out."""
    shown = summary.sources
    if len(shown) > MAX_ROWS:
        shown = [source for source in shown if source.state not in FINISHED][:MAX_ROWS]
    failed = [source for source in shown if source.has_failed]
    counts = ", ".join(f"{n:,} {state}" for state, n in summary.states.items())
    is_partial = len(shown) < len(summary.sources) or summary.n_done
    return shown, failed, [f"sources: {counts}"] if is_partial else []


def _table(*numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("source")  # it alone gives way where a terminal is too narrow
    table.add_column("state", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _state(source: SourceSummary) -> str:
    return source.state + (f" ({source.reason})" if source.state in ("failed", "lost") and source.reason else "")


def _sink_line(sink: SinkSummary) -> str:
    """What went through a sink."""
    dropped = f", {sink.dropped:,} dropped" if sink.dropped else ""
    deleted = f", {sink.deleted:,} old records deleted (--keep)" if sink.deleted else ""
    failed = f", failed: {sink.error}" if sink.error else ""
    return f"sink {printable(sink.sink)}: took {sink.written:,}{dropped}{deleted}{failed}"


def _drops(source: SourceSummary) -> str:
    counts = {name: getattr(source.counters, name) for name in ("overwritten", "stale", "corrupt")}
    return f"dropped of {printable(source.source)}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items() if n)


class LiveStatus:
    """Shows how a run goes on stderr, once a second; `stats` adds a JSON line a second to a file."""

    def __init__(
        self, *, is_table: bool, stats: Path | None = None, is_quiet: bool = False, appends: bool = False
    ) -> None:
        self._is_table = is_table
        self._is_quiet = is_quiet
        self._stats_path, self._appends = stats, appends
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
        self._rate = (summary.processed - before) / (now - since)
        self._last = (now, summary.processed)
        self._show(summary, pipeline)

    def close(self, summary: Summary | None = None) -> None:
        """Write the last JSON line, of `summary`, and show no more."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if summary is not None:
            self._write_stats({**self._snapshot(summary, {}, {}), "final": True})
        if self._stats is not None:
            self._stats.close()
            self._stats = None

    def _show(self, summary: Summary, pipeline: Pipeline) -> None:
        ages = pipeline.ages_ms()
        queues = {reader.address.name: len(reader.buffer) for reader in pipeline.reading}
        line = self._snapshot(summary, ages, queues)
        if len(summary.sources) > MAX_ROWS:
            line = {**line, "sources": [one.to_json() for one in summary.sources if one.source in queues]}
        self._write_stats(line)
        if self._live is not None:
            self._live.update(live_table(summary, self._rate, ages, queues))
        elif not self._is_quiet:
            print(status_line(summary, self._rate, ages), file=sys.stderr)

    def _write_stats(self, line: Json) -> None:
        """Write to the file, which is made with its first line: a run that is refused replaces nothing."""
        if self._stats_path is None:
            return
        if self._stats is None:
            self._stats_path.parent.mkdir(parents=True, exist_ok=True)
            self._stats = self._stats_path.open("a" if self._appends else "w", encoding="utf-8")
        self._stats.write(json.dumps(line) + "\n")
        self._stats.flush()

    def _snapshot(self, summary: Summary, ages_ms: dict[str, float], queues: dict[str, int]) -> Json:
        ages = {name: round(age_ms, 1) for name, age_ms in ages_ms.items()}
        return {"fps": round(self._rate, 2), "age_ms": ages, "queue": queues, **summary.to_json()}
