"""Counters and times of a run: what is shown while it goes on, and the summary at its end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from deepfer_yolo.records import Json
from deepfer_yolo.stream.buffers import Counters
from deepfer_yolo.stream.records import LIVE_STATES

WINDOW = 2000
"""How many of the latest times of a stage its percentiles speak of."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a stage takes: the median and the 99th percentile."""

    p50_ms: float
    p99_ms: float


class StageTimes:
    """The latest times of each stage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms: dict[str, deque[float]] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time the body."""
        start = time.perf_counter()
        yield
        self.add(stage, 1000 * (time.perf_counter() - start))

    def add(self, stage: str, ms: float) -> None:
        """Note one time."""
        with self._lock:
            self._ms.setdefault(stage, deque(maxlen=WINDOW)).append(ms)

    def percentiles(self) -> dict[str, StageTime]:
        """What each stage takes."""
        with self._lock:
            times = {stage: np.array(values) for stage, values in self._ms.items()}
        return {s: StageTime(*(round(float(p), 3) for p in np.percentile(ms, (50, 99)))) for s, ms in times.items()}


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """One source at the end, or so far."""

    source: str
    state: str
    reason: str | None
    error: str | None
    hint: str | None
    policy: str
    epochs: int
    reconnects: int
    counters: Counters

    @property
    def is_live(self) -> bool:
        """Whether frames come."""
        return self.state in LIVE_STATES

    @property
    def has_failed(self) -> bool:
        """Whether the source ended by failing."""
        return self.state == "failed"

    def to_json(self) -> Json:
        """One flat object: the counters stand beside the rest."""
        values = asdict(self)
        counters = values.pop("counters")
        return {**values, **counters}


@dataclass(frozen=True, slots=True)
class SinkSummary:
    """One sink at the end, or so far."""

    sink: str
    written: int
    dropped: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole run."""

    sources: list[SourceSummary]
    sinks: list[SinkSummary]
    wall_s: float
    faces: int
    stages: dict[str, StageTime]

    @property
    def exit_code(self) -> int:
        """0 where all went well, 1 where all sources or any sink failed, 4 where some sources failed."""
        n_failed = sum(source.has_failed for source in self.sources)
        if n_failed == len(self.sources) or any(sink.error for sink in self.sinks):
            return 1
        return 4 if n_failed else 0

    @property
    def processed(self) -> int:
        """Frames of all sources that were processed."""
        return sum(source.counters.processed for source in self.sources)

    def to_json(self) -> Json:
        """What `--json` and `--stats-json` give."""
        return {**asdict(self), "sources": [one.to_json() for one in self.sources], "wall_s": round(self.wall_s, 3)}
