"""Counters and times of a run: what is shown while it goes on, and the summary at its end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from deepfer_yolo.stream.reader import Feed

WINDOW = 2000
"""How many of the latest times of a stage its percentiles speak of."""


class Stages:
    """Times by stage, in milliseconds: the latest ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time the body."""
        start = time.perf_counter()
        yield
        self.add(stage, 1000 * (time.perf_counter() - start))

    def add(self, stage: str, ms: float) -> None:
        """Note one time."""
        with self._lock:
            self._times.setdefault(stage, deque(maxlen=WINDOW)).append(ms)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """p50 and p99 a stage, in milliseconds."""
        with self._lock:
            times = {stage: np.array(values) for stage, values in self._times.items()}
        return {
            s: {"p50_ms": round(float(np.percentile(v, 50)), 3), "p99_ms": round(float(np.percentile(v, 99)), 3)}
            for s, v in times.items()
        }


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
    captured: int
    processed: int
    overwritten: int
    stale: int
    corrupt: int
    in_flight: int

    @classmethod
    def of(cls, feed: Feed) -> SourceSummary:
        """The summary of a feed; the caller holds the engine's lock."""
        counters = asdict(feed.buffer.counters)
        why = feed.failure
        return cls(
            source=feed.address.name,
            state=feed.state or "connecting",
            reason=why.reason if why is not None else None,
            error=why.message if why is not None else None,
            hint=why.hint if why is not None else None,
            policy=feed.buffer.policy,
            epochs=feed.epoch + 1,
            reconnects=feed.reconnects,
            **counters,
        )

    @property
    def dropped(self) -> int:
        """Pictures that were read and not processed."""
        return self.overwritten + self.stale + self.corrupt

    @property
    def has_failed(self) -> bool:
        """Whether the source ended by failing."""
        return self.state == "failed"


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
    stages: dict[str, dict[str, float]]

    @property
    def exit_code(self) -> int:
        """0 where all went well, 1 where all sources or any sink failed, 4 where some sources failed."""
        n_failed = sum(source.has_failed for source in self.sources)
        if n_failed == len(self.sources) or any(sink.error for sink in self.sinks):
            return 1
        return 4 if n_failed else 0

    def to_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        return {**asdict(self), "wall_s": round(self.wall_s, 3)}
