"""The summary of a run as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepfer_yolo.stream.status import Summary


def summary_table(summary: Summary) -> RenderableType:
    """Sources with their counters, then sinks, then one line on speed; fits 80 columns."""
    sources = Table(box=None, pad_edge=False)
    sources.add_column("source", overflow="fold", max_width=30)
    sources.add_column("state")
    for name in ("captured", "processed", "dropped", "in flight"):
        sources.add_column(name, justify="right")
    for one in summary.sources:
        dropped = one.overwritten + one.stale + one.corrupt
        state = one.state + (f" ({one.reason})" if one.has_failed and one.reason else "")
        sources.add_row(one.source, state, *(f"{n:,}" for n in (one.captured, one.processed, dropped, one.in_flight)))
    lines: list[RenderableType] = [sources]
    for sink in summary.sinks:
        trouble = f", {sink.dropped:,} dropped" if sink.dropped else ""
        failed = f", failed: {sink.error}" if sink.error else ""
        lines.append(Text(f"sink {sink.sink}: {sink.written:,} written{trouble}{failed}"))
    processed = sum(one.processed for one in summary.sources)
    rate = processed / summary.wall_s if summary.wall_s > 0 else 0.0
    lines.append(Text(f"{processed:,} pictures and {summary.faces:,} faces in {summary.wall_s:.1f} s ({rate:.1f} pictures/s)"))
    return Group(*lines)
