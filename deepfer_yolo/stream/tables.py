"""A run as tables: while it goes on, and at its end."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepfer_yolo.stream.status import SourceSummary, Summary


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
    lines.append(Text(f"{processed:,} pictures and {summary.faces:,} faces in {summary.wall_s:.1f} s ({rate:.1f} pictures/s)"))
    return Group(*lines)


def live_table(summary: Summary, rate: float, ages_ms: dict[str, float], queues: dict[str, int]) -> RenderableType:
    """The run as it stands: sources with age, queue and drops, then the time of each stage."""
    table = _table("processed", "dropped", "queue", "age ms")
    for source in summary.sources:
        age = ages_ms.get(source.source)
        numbers = (f"{source.processed:,}", f"{source.dropped:,}", str(queues.get(source.source, 0)), "" if age is None else f"{age:.0f}")
        table.add_row(source.source, _state(source), *numbers)
    stages = Table(box=None, pad_edge=False)
    for name in ("stage", "p50 ms", "p99 ms"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    for stage, times in summary.stages.items():
        stages.add_row(stage, f"{times['p50_ms']:.1f}", f"{times['p99_ms']:.1f}")
    troubled = [f"sink {sink.sink}: " + (sink.error or f"{sink.dropped:,} dropped") for sink in summary.sinks if sink.error or sink.dropped]
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
