"""Ids over time from boxes alone: constant velocity, two-stage assignment, lifetimes in seconds.

The two stages are ByteTrack's (Zhang et al. 2022): sure detections first, then unsure ones for the tracks left over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.records import Face

Array = NDArray[np.float64]

POSITION_NOISE = 0.05
"""Detector noise of a box coordinate, as a share of the box height (as in SORT and DeepSORT)."""
SPEED_NOISE = 1.5
"""Change of speed, box heights per second per square-root second, that a face is expected to make."""


class Motion:
    """A constant-velocity Kalman filter on centre x, centre y, width and height; the time step may vary."""

    def __init__(self, box: Array, time_s: float) -> None:
        self._state = _to_centre(box)
        self._speed = np.zeros(4)
        spread = self._scale()
        self._p = np.full(4, spread**2)
        self._pv = np.zeros(4)
        self._v = np.full(4, (2 * spread / POSITION_NOISE * 0.5) ** 2)
        self.time_s = time_s

    def _scale(self) -> float:
        return POSITION_NOISE * max(float(self._state[3]), 1.0)

    def predict(self, time_s: float) -> Array:
        """The box, float xyxy, expected at `time_s`; the filter itself does not move."""
        ahead = self._state + self._speed * max(0.0, time_s - self.time_s)
        ahead[2:] = np.maximum(ahead[2:], self._state[2:] * 0.5)
        return _to_corners(ahead)

    def update(self, box: Array, time_s: float) -> None:
        """Take in a detected box at `time_s`."""
        dt = max(0.0, time_s - self.time_s)
        noise = (SPEED_NOISE * max(float(self._state[3]), 1.0)) ** 2
        self._state = self._state + self._speed * dt
        self._p = self._p + 2 * dt * self._pv + dt**2 * self._v + noise * dt**3 / 3
        self._pv = self._pv + dt * self._v + noise * dt**2 / 2
        self._v = self._v + noise * dt
        error = _to_centre(box) - self._state
        total = self._p + self._scale() ** 2
        gain, gain_v = self._p / total, self._pv / total
        self._state = self._state + gain * error
        self._speed = self._speed + gain_v * error
        self._v = self._v - gain_v * self._pv
        self._pv = (1 - gain) * self._pv
        self._p = (1 - gain) * self._p
        self.time_s = time_s


@dataclass(slots=True)
class Tracked:
    """One followed face: `face` is the last detection, moved to where it is expected while no new one comes."""

    id: int
    face: Face
    motion: Motion
    born_s: float
    seen_s: float
    is_seen: bool = True


class Tracker:
    """Follows the faces of one source. `update` on frames with detections, `coast` on frames without.

    Detections of `min_score` are sure and begin tracks; weaker ones only carry tracks on.
    """

    def __init__(self, config: StreamConfig, first_id: int = 1) -> None:
        self._config = config
        self.next_id = first_id
        self._tracks: list[Tracked] = []

    def update(self, faces: list[Face], time_s: float) -> list[Tracked]:
        """Match detections to tracks and return the tracks seen now; the others live on for `lost_s` seconds."""
        sure = [face for face in faces if face.score >= self._config.min_score]
        unsure = [face for face in faces if face.score < self._config.min_score]
        self._tracks = [track for track in self._tracks if time_s - track.seen_s <= self._config.lost_s]
        for track in self._tracks:
            track.is_seen = False
        waiting, rest = self._assign(self._tracks, sure, time_s, least=0.1)
        waiting, _ = self._assign(waiting, unsure, time_s, least=0.4)
        for face in rest:
            motion = Motion(face.box.astype(np.float64), time_s)
            self._tracks.append(Tracked(self.next_id, face, motion, time_s, time_s))
            self.next_id += 1
        return [track for track in self._tracks if track.is_seen]

    def coast(self, time_s: float) -> list[Tracked]:
        """The tracks seen at the last detection, moved to where they are expected at `time_s`."""
        seen = [track for track in self._tracks if track.is_seen]
        for track in seen:
            track.face = moved(track.face, track.motion.predict(time_s))
        return seen

    def hidden(self, time_s: float) -> list[Face]:
        """The tracks that are out of sight, each with a box from where it was last seen to where it is expected.

        What is anonymised covers these too: a face that the detector misses may have stayed or gone on.
        """
        unseen = [track for track in self._tracks if not track.is_seen]
        return [moved(track.face, _hull(track.face.box, track.motion.predict(time_s))) for track in unseen]

    @property
    def alive(self) -> frozenset[int]:
        """Ids of all tracks that may still come back."""
        return frozenset(track.id for track in self._tracks)

    def _assign(
        self, tracks: list[Tracked], faces: list[Face], time_s: float, least: float
    ) -> tuple[list[Tracked], list[Face]]:
        """Pair tracks with faces whose buffered overlap is at least `least`; returns what stays without a partner."""
        import lap

        if not tracks or not faces:
            return list(tracks), list(faces)
        boxes = np.stack([face.box for face in faces]).astype(np.float64)
        expected = np.stack([track.motion.predict(time_s) for track in tracks])
        cost = 1 - overlap(_buffered(expected), _buffered(boxes))
        _, columns, _ = lap.lapjv(cost, extend_cost=True, cost_limit=1 - least)
        left = []
        for track, j in zip(tracks, columns, strict=True):
            if j < 0:
                left.append(track)
                continue
            track.motion.update(boxes[j], time_s)
            track.face, track.seen_s, track.is_seen = faces[j], time_s, True
        return left, [face for j, face in enumerate(faces) if j not in columns]


def overlap(a: Array, b: Array) -> Array:
    """Intersection over union of boxes (n, 4) and (m, 4), float xyxy, as (n, m)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.prod(np.maximum(0.0, bottom_right - top_left), axis=2)
    area_a, area_b = np.prod(a[:, 2:] - a[:, :2], axis=1), np.prod(b[:, 2:] - b[:, :2], axis=1)
    return np.asarray(inside / np.maximum(area_a[:, None] + area_b[None, :] - inside, 1e-9))


def moved(face: Face, box: Array) -> Face:
    """The face with its box, and its landmarks with it, moved and scaled to `box`."""
    landmarks = None
    if face.landmarks is not None:
        old = face.box.astype(np.float64)
        ratio = (box[2:] - box[:2]) / np.maximum(old[2:] - old[:2], 1e-6)
        landmarks = ((face.landmarks - old[:2]) * ratio + box[:2]).astype(np.float32)
    return replace(face, box=box.astype(np.float32), landmarks=landmarks)


def _buffered(boxes: Array, share: float = 0.3) -> Array:
    """Boxes widened on each side: small, fast faces at low frame rates still overlap (Yang et al. 2023, C-BIoU)."""
    grow = share * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - grow, boxes[:, 2:] + grow], axis=1)


def _hull(a: NDArray[np.float32], b: Array) -> Array:
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])


def _to_centre(box: Array) -> Array:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]], np.float64)


def _to_corners(state: Array) -> Array:
    half = state[2:] / 2
    return np.concatenate([state[:2] - half, state[:2] + half])
