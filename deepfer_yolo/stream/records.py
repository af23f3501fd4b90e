"""What the stream says: results and records while it runs (docs/formats.md), and the summary of what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from deepfer_yolo.errors import EXIT_READER_GONE, EXIT_SOME_SOURCES_FAILED
from deepfer_yolo.records import Boxes, Clock, Event, Face, Frame, Json, Track
from deepfer_yolo.stream.buffers import Counters

SCHEMA = 1
NO_SINK = "no sink is left"
StateName = Literal["connecting", "live", "stalled", "frozen", "lost", "ended", "failed", "sink"]
SinkReason = Literal["failed", "reader-gone", "unfinished"]
LIVE_STATES = frozenset({"live", "frozen"})
"""States in which frames come."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One line of the stream: what was found or happened, in which source, and when."""

    kind: ClassVar[Literal["face", "event", "state"]]
    source: str
    epoch: int
    time_s: float
    clock: Clock

    def to_json(self, run: str) -> Json:
        """What all kinds have, `run` being the id of the run, then what is this kind's own."""
        head: Json = {"schema": SCHEMA, "kind": self.kind, "run": run, "source": self.source, "epoch": self.epoch}
        return {**head, "time_s": round(self.time_s, 4), "clock": self.clock, **self._own()}

    def _own(self) -> Json:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class FaceRecord(Record):
    """A track in one frame; `age_ms` is None for files."""

    kind = "face"
    frame: int
    age_ms: float | None
    track: Track

    def _own(self) -> Json:
        age_ms = None if self.age_ms is None else round(self.age_ms, 1)
        return {"frame": self.frame, "age_ms": age_ms, **self.track.to_json()}


@dataclass(frozen=True, slots=True, eq=False)
class EventRecord(Record):
    """An expression of one track from start to end."""

    kind = "event"
    event: Event

    def _own(self) -> Json:
        return self.event.to_json()


@dataclass(frozen=True, slots=True, eq=False)
class State(Record):
    """A change of a source's state, or trouble of a sink: `was` → `state`, and why.

    The last state of a source is `complete` where it was read to its end, or to `max_frames`, and every sink has all of
    its results.
    """

    kind = "state"
    state: StateName
    was: str | None
    reason: str
    complete: bool = False

    @property
    def is_last(self) -> bool:
        """Whether nothing of the source follows."""
        return self.state in ("ended", "failed")

    def _own(self) -> Json:
        return {"state": self.state, "was": self.was, "reason": self.reason, "complete": self.complete}


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Everything about one frame. `age_ms` is None for files; `hidden` are faces out of sight but expected."""

    frame: Frame
    epoch: int
    tracks: tuple[Track, ...]
    events: tuple[Event, ...] = ()
    hidden: tuple[Face, ...] = ()
    age_ms: float | None = None
    boxes: Boxes = "face"

    def records(self) -> tuple[Record, ...]:
        """The frame's faces, then the events that ended with it."""
        frame = self.frame
        at = (frame.source, self.epoch, frame.time_s, frame.clock)
        faces = [FaceRecord(*at, frame.index, self.age_ms, track) for track in self.tracks]
        return (*faces, *event_records(self.events, frame.source, self.epoch, frame.clock))


def event_records(events: Iterable[Event], source: str, epoch: int, clock: Clock) -> tuple[Record, ...]:
    """The records of events, each at its end."""
    return tuple(EventRecord(source, epoch, event.end_s, clock, event) for event in events)


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What sinks receive: records, and the result that they belong to where there is one.

    `settled` is called once: by a sink's thread when it has written them, else with False.
    """

    records: tuple[Record, ...]
    result: Result | None = None
    settled: Callable[[bool], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a stage takes: the median and the 99th percentile."""

    p50_ms: float
    p99_ms: float


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
    """One sink at the end, or so far; `deleted` are records in full files that `keep` did not keep."""

    sink: str
    written: int
    dropped: int
    deleted: int
    reason: SinkReason | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole run; `stopped` is why it ended before its sources did, None where it did not. `n_done` sources were
    finished by an earlier run, and are not among `sources`.
    """

    run: str
    sources: list[SourceSummary]
    sinks: list[SinkSummary]
    wall_s: float
    faces: int
    stages: dict[str, StageTime]
    stopped: str | None = None
    n_done: int = 0

    @property
    def states(self) -> dict[str, int]:
        """How many sources are in each state; `done` are those that an earlier run finished."""
        done = {"done": self.n_done} if self.n_done else {}
        return {**Counter(source.state for source in self.sources), **done}

    @property
    def is_unread(self) -> bool:
        """Whether the run ended because nobody reads its results any more."""
        return self.stopped == NO_SINK and {sink.reason for sink in self.sinks} == {"reader-gone"}

    @property
    def exit_code(self) -> int:
        """0 where all went well, 1 where all sources or any sink failed, 4 where some sources failed; 141 where nobody
        reads the results any more.
        """
        if self.is_unread:
            return EXIT_READER_GONE
        n_failed = sum(source.has_failed for source in self.sources)
        is_lost = n_failed == len(self.sources) + self.n_done > 0
        if is_lost or any(sink.error for sink in self.sinks):
            return 1
        return EXIT_SOME_SOURCES_FAILED if n_failed else 0

    @property
    def processed(self) -> int:
        """Frames of all sources that were processed."""
        return sum(source.counters.processed for source in self.sources)

    def to_json(self) -> Json:
        """What `--json` and `--stats-json` give."""
        values = {**asdict(self), "sources": [one.to_json() for one in self.sources], "wall_s": round(self.wall_s, 3)}
        del values["n_done"]
        return {**values, "states": self.states}
