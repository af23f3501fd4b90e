"""The records that flow through the program: Frame → Face → crop → Prediction → Track → Event."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 RGB, shape (height, width, 3)."""
Crops = NDArray[np.uint8]
"""Face crops ready for a model: uint8 RGB, shape (n, S, S, 3)."""
Probs = NDArray[np.float32]
"""Class probabilities: float32, shape (n, C) or (C,), each row summing to 1."""

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
Json: TypeAlias = Mapping[str, JsonValue]
"""A JSON object, as every `to_json` returns it."""

Clock = Literal["pts", "derived", "rtcp", "arrival"]
"""Where a frame's time came from: the source's stamps, a frame rate, the camera's wall clock, or ours on arrival."""
Lack = Literal["small", "dark", "flat", "blurred", "noisy"]
Reason = Literal["small", "dark", "flat", "blurred", "noisy", "low confidence"]
"""Why a label is uncertain: what the image lacks, or what the model does."""
Boxes = Literal["face", "crop"]
"""What a detector's boxes are: faces, or crops that need no crop rule."""

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may be from 1; fp16 graphs reach 5e-4."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of a source. `image` is uint8 RGB (H, W, 3); `clock` says where `time_s` came from."""

    index: int
    time_s: float
    clock: Clock
    image: Image
    source: str

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(f"Frame.image must be uint8 (H, W, 3), not {self.image.dtype} {self.image.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face in a frame. `box` is float xyxy in frame pixels; `landmarks` is float (5, 2) or None."""

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.box.shape != (4,) or not bool(np.isfinite(self.box).all()):
            raise ValueError(f"Face.box must be four finite numbers (x1, y1, x2, y2), not {self.box!r}")
        if self.landmarks is not None and self.landmarks.shape != (5, 2):
            raise ValueError(f"Face.landmarks must have shape (5, 2), not {self.landmarks.shape}")

    def to_json(self) -> Json:
        """Box, to a tenth of a pixel, and score."""
        return {"box": [round(float(v), 1) for v in self.box], "score": round(self.score, 4)}


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a face can be seen: its shorter side in pixels of the image, and of its crop at 48 pixels the mean grey
    value, their standard deviation, and the mean square of the steps between neighbours as a share of their variance.
    """

    size_px: float
    brightness: float
    contrast: float
    sharpness: float

    def to_json(self) -> Json:
        """The figures, rounded."""
        figures = {"size_px": self.size_px, "brightness": self.brightness, "contrast": self.contrast}
        return {name: round(value, 1) for name, value in figures.items()} | {"sharpness": round(self.sharpness, 3)}


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Probabilities over labels for one face; float32 that sum to 1, checked here."""

    probs: Probs
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.probs.shape != (len(self.labels),) or self.probs.dtype != np.float32:
            raise ValueError(
                f"Prediction needs float32 ({len(self.labels)},), not {self.probs.dtype} {self.probs.shape}"
            )
        total = float(self.probs.sum())
        if not abs(total - 1.0) <= SUM_TOLERANCE:
            raise ValueError(f"Prediction.probs must sum to 1, not {total}")

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.labels[int(self.probs.argmax())]

    @property
    def confidence(self) -> float:
        """The probability of `label`."""
        return float(self.probs.max())

    def top(self, k: int) -> list[tuple[str, float]]:
        """The k most probable labels with their probabilities, best first."""
        order = np.argsort(-self.probs, kind="stable")[:k]
        return [(self.labels[i], float(self.probs[i])) for i in order]

    def by_label(self, digits: int) -> dict[str, float]:
        """All probabilities by label, rounded."""
        return {label: round(float(p), digits) for label, p in zip(self.labels, self.probs, strict=True)}


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One face followed over time: the raw prediction stays next to the smoothed one.

    `age_s` counts from its first frame; `label` is the steady label after hysteresis, which may be ``uncertain``, for
    a `reason`. `quality` is this frame's.
    """

    id: int
    face: Face
    raw: Prediction
    smoothed: Prediction
    age_s: float
    label: str = "uncertain"
    reason: Reason | None = None
    quality: Quality | None = None

    @property
    def confidence(self) -> float:
        """The smoothed probability of `label`; of the best one where that is uncertain."""
        labels, probs = self.smoothed.labels, self.smoothed.probs
        return float(probs[labels.index(self.label)]) if self.label in labels else self.smoothed.confidence

    def to_json(self) -> Json:
        """What a `face` record tells of it."""
        return {
            "track": self.id,
            **self.face.to_json(),
            "label": self.label,
            "confidence": round(self.confidence, 4),
            "probs": self.smoothed.by_label(4),
            "raw_label": self.raw.label,
            "raw_confidence": round(self.raw.confidence, 4),
            "reason": self.reason,
            **(self.quality.to_json() if self.quality else {}),
        }


@dataclass(frozen=True, slots=True)
class Event:
    """One apparent expression of one track from `start_s` to `end_s`, by the raw answers.

    `decided_s` is when the steady label took it up, some tenths of a second after it began.
    """

    track_id: int
    label: str
    start_s: float
    end_s: float
    decided_s: float
    mean_confidence: float

    def to_json(self) -> Json:
        """What an `event` record tells of it."""
        return {
            "track": self.track_id,
            "label": self.label,
            "start_s": round(self.start_s, 4),
            "end_s": round(self.end_s, 4),
            "decided_s": round(self.decided_s, 4),
            "mean_confidence": round(self.mean_confidence, 4),
        }


def parse_json(text: str) -> Any:
    """What a JSON text holds. Raises ValueError where it is none, or a key stands twice in one object."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            key = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
            raise ValueError(f"the key '{key[:80]}' stands twice")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("nested too deep") from None


def plain(value: Any) -> Any:
    """`value` as JSON knows it: records by field, arrays and tuples as lists, paths as text, NaN and infinity None.

    Records inside of it are what their own `to_json` says.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _inside(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _inside(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_inside(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _inside(value: Any) -> Any:
    return value.to_json() if hasattr(value, "to_json") else plain(value)


def without_none(record: Any) -> dict[str, JsonValue]:
    """`plain` of a record or mapping without the keys that hold None."""
    return {key: value for key, value in plain(record).items() if value is not None}
