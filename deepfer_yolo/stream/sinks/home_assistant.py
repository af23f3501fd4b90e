"""What Home Assistant reads from an MQTT broker: sensors that it finds by itself, their states and availability.

One enum sensor a source says the label of the face that has been in front longest, and one a stable face in view, by
places that are taken again: Home Assistant would keep a sensor a track for ever. All messages are retained. The formats
are those of https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery and of its MQTT sensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deepfer_yolo import __version__
from deepfer_yolo.faces.smooth import UNCERTAIN
from deepfer_yolo.records import Json
from deepfer_yolo.stream.records import LIVE_STATES, FaceRecord, Record, State

NO_FACE = "no face"
STABLE_S = 1.0
"""How long a face must be followed until it gets a place."""
GONE_S = 1.5
"""How long after its last frame a face counts as in view: longer than a track lives on without its face."""
MAX_PLACES = 16
EVERY_S = 1.0
"""How often a state may change in nothing but its numbers."""


@dataclass(slots=True)
class _Seen:
    """A face in view: when its track began, by the source's clock, and what was said of it last."""

    first_s: float
    time_s: float = 0.0
    at_s: float = 0.0
    label: str = UNCERTAIN
    confidence: float = 0.0
    area: float = 0.0

    def state(self, track: int) -> Json:
        """What a sensor's state topic holds."""
        return {"label": self.label, "confidence": round(self.confidence, 2), "track": track}


@dataclass(slots=True)
class _Source:
    name: str
    base: str
    node: str
    is_live: bool = False
    seen: dict[int, _Seen] = field(default_factory=dict)
    places: list[int | None] = field(default_factory=list)
    front: int | None = None


class HomeAssistant:
    """Keeps what Home Assistant should know, and gives the messages that say what has changed.

    `will` is the last will: topic, payload, quality of service, retained.
    """

    def __init__(self, discovery: str, prefix: str, slugs: Mapping[str, str], labels: tuple[str, ...]) -> None:
        self.will = (f"{prefix}/availability", "offline", 1, True)
        self._discovery, self._labels = discovery, labels
        self._sources = {
            name: _Source(name, f"{prefix}/{slug}", _identifier(f"deepfer_{prefix}_{slug}"))
            for name, slug in slugs.items()
        }
        self._said: dict[str, tuple[str, float]] = {}

    def forget(self) -> None:
        """Say all anew the next time: a broker that was started again may have lost what it kept."""
        self._said.clear()

    def take(self, records: Iterable[Record], now_s: float) -> dict[str, str]:
        """Take in records; returns the messages that are due, by topic. `now_s` is monotonic."""
        for record in records:
            source = self._sources.get(record.source)
            if source is not None and isinstance(record, State):
                source.is_live = record.state in LIVE_STATES
            elif source is not None and isinstance(record, FaceRecord):
                self._see(source, record, now_s)
        messages = {self.will[0]: "online"}
        for source in self._sources.values():
            _arrange(source, now_s)
            messages |= self._messages(source)
        return {topic: text for topic, text in messages.items() if self._is_due(topic, text, now_s)}

    def _see(self, source: _Source, record: FaceRecord, now_s: float) -> None:
        track = record.track
        seen = source.seen.setdefault(track.id, _Seen(record.time_s))
        seen.time_s, seen.at_s = record.time_s, now_s
        seen.label = track.label if track.label in self._labels else UNCERTAIN
        seen.confidence = track.confidence
        x1, y1, x2, y2 = (float(v) for v in track.face.box)
        seen.area = (x2 - x1) * (y2 - y1)

    def _messages(self, source: _Source) -> dict[str, str]:
        """All that should stand on the broker about one source."""
        state: Json = {"label": NO_FACE, "confidence": None, "track": None}
        if source.front is not None:
            state = source.seen[source.front].state(source.front)
        topic = f"{source.base}/expression"
        messages = {
            f"{self._discovery}/sensor/{source.node}/expression/config": self._config(source),
            f"{source.base}/availability": "online" if source.is_live else "offline",
            topic: json.dumps({**state, "faces": len(source.seen)}),
        }
        for place, track in enumerate(source.places, 1):
            messages[f"{self._discovery}/sensor/{source.node}/face_{place}/config"] = self._config(source, place)
            messages[f"{source.base}/availability/{place}"] = "offline" if track is None else "online"
            if track is not None:
                messages[f"{topic}/{place}"] = json.dumps(source.seen[track].state(track))
        return messages

    def _config(self, source: _Source, place: int | None = None) -> str:
        """The description of a sensor: a source's own, or that of a place."""
        tail = "" if place is None else f"/{place}"
        topics = [self.will[0], f"{source.base}/availability", *([f"{source.base}/availability{tail}"] if tail else [])]
        return json.dumps(
            {
                "name": "Apparent expression" if place is None else f"Face {place}",
                "unique_id": f"{source.node}_expression" if place is None else f"{source.node}_face_{place}",
                "device_class": "enum",
                "options": [*self._labels, UNCERTAIN, *([NO_FACE] if place is None else [])],
                "state_topic": f"{source.base}/expression{tail}",
                "value_template": "{{ value_json.label }}",
                "json_attributes_topic": f"{source.base}/expression{tail}",
                "availability": [{"topic": topic} for topic in topics],
                "availability_mode": "all",
                "device": {"identifiers": [source.node], "name": source.name, "manufacturer": "DeepFER"},
                "origin": {"name": "deepfer", "sw_version": __version__},
            },
            ensure_ascii=False,
        )

    def _is_due(self, topic: str, text: str, now_s: float) -> bool:
        """Whether to say `text`, which then counts as said; what changes in its numbers alone can wait a little."""
        said, at_s = self._said.get(topic, ("", -EVERY_S))
        if said == text or (now_s - at_s < EVERY_S and _label(said) == _label(text) is not None):
            return False
        self._said[topic] = (text, now_s)
        return True


def _arrange(source: _Source, now_s: float) -> None:
    """Forget who is gone, give places to faces that stay, and choose who is in front."""
    for track in [track for track, seen in source.seen.items() if now_s - seen.at_s > GONE_S or not source.is_live]:
        del source.seen[track]
    source.places = [track if track in source.seen else None for track in source.places]
    for track, seen in source.seen.items():
        if track in source.places or seen.time_s - seen.first_s < STABLE_S:
            continue
        if None in source.places:
            source.places[source.places.index(None)] = track
        elif len(source.places) < MAX_PLACES:
            source.places.append(track)
    if source.front not in source.seen:
        source.front = max(source.seen, key=lambda track: source.seen[track].area, default=None)


def _label(text: str) -> str | None:
    """The label in a state, None for other messages."""
    if not text.startswith('{"label"'):
        return None
    found: str = json.loads(text)["label"]
    return found


def _identifier(text: str) -> str:
    """Text as Home Assistant takes it in topics and identifiers."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)
