"""What is shown while a stream runs: a table on a terminal, a line a second elsewhere, JSON lines in a file."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from deepfer_yolo.stream.status import Summary
from deepfer_yolo.stream.tables import live_table

if TYPE_CHECKING:
    from rich.live import Live

    from deepfer_yolo.stream.pipeline import Pipeline

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
        return {"fps": round(self._rate, 2), "age_ms": {k: round(v, 1) for k, v in ages.items()}, "queue": queues, **summary.to_dict()}


def _line(summary: Summary, rate: float, ages: dict[str, float]) -> str:
    live = sum(source.state in ("live", "frozen") for source in summary.sources)
    dropped = sum(source.overwritten + source.stale + source.corrupt for source in summary.sources)
    age = f"  age {max(ages.values()):.0f} ms" if ages else ""
    stages = "  ".join(f"{stage} {times['p50_ms']:.1f}/{times['p99_ms']:.1f}" for stage, times in summary.stages.items() if stage != "age")
    head = f"{summary.wall_s:6.1f} s  {live}/{len(summary.sources)} live  {rate:5.1f} fps{age}  dropped {dropped}  faces {summary.faces}"
    return f"{head}  {stages} ms"
