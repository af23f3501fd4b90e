"""What the stream says: one result a picture, state changes, and both as JSON records (docs/formats.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from deepfer_yolo.records import Clock, Event, Face, Frame, Track

SCHEMA = 1
StateName = Literal["connecting", "live", "stalled", "frozen", "lost", "ended", "failed", "sink"]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Everything about one processed picture.

    `age_ms` is None for files; `hidden` holds faces that are out of sight but expected.
    """

    frame: Frame
    epoch: int
    tracks: tuple[Track, ...]
    events: tuple[Event, ...] = ()
    hidden: tuple[Face, ...] = ()
    age_ms: float | None = None
    boxes: Literal["face", "crop"] = "face"


@dataclass(frozen=True, slots=True)
class State:
    """A change of a source's state: `was` → `state`, and why."""

    source: str
    epoch: int
    time_s: float
    clock: Clock
    state: StateName
    was: str | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What sinks receive: ready records, and the picture they belong to where there is one."""

    records: tuple[dict[str, Any], ...]
    result: Result | None = field(default=None)


def face_record(result: Result, track: Track) -> dict[str, Any]:
    """One `face` record: a track in one picture."""
    frame = result.frame
    return {
        **_head("face", frame.source, result.epoch, frame.time_s, frame.clock),
        "frame": frame.index,
        "age_ms": None if result.age_ms is None else round(result.age_ms, 1),
        "track": track.id,
        "box": [round(float(v), 1) for v in track.face.box],
        "score": round(track.face.score, 4),
        "label": track.label,
        "confidence": round(track.confidence, 4),
        "probs": {
            label: round(float(p), 4) for label, p in zip(track.smoothed.labels, track.smoothed.probs, strict=True)
        },
        "raw_label": track.raw.label,
        "raw_confidence": round(track.raw.confidence, 4),
    }


def event_record(event: Event, source: str, epoch: int, clock: Clock) -> dict[str, Any]:
    """One `event` record: an expression of one track from start to end."""
    return {
        **_head("event", source, epoch, event.end_s, clock),
        "track": event.track_id,
        "label": event.label,
        "start_s": round(event.start_s, 4),
        "end_s": round(event.end_s, 4),
        "mean_confidence": round(event.mean_confidence, 4),
    }


def state_record(state: State) -> dict[str, Any]:
    """One `state` record: a transition and its reason."""
    return {
        **_head("state", state.source, state.epoch, state.time_s, state.clock),
        "state": state.state,
        "was": state.was,
        "reason": state.reason,
    }


def result_records(result: Result) -> tuple[dict[str, Any], ...]:
    """The records of one picture: its faces, then the events that ended with it."""
    faces = [face_record(result, track) for track in result.tracks]
    events = [event_record(event, result.frame.source, result.epoch, result.frame.clock) for event in result.events]
    return (*faces, *events)


def _head(kind: str, source: str, epoch: int, time_s: float, clock: Clock) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": kind,
        "source": source,
        "epoch": epoch,
        "time_s": round(time_s, 4),
        "clock": clock,
    }
