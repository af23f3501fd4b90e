"""What is known about one source while it runs: its detector, tracks and smoothed labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.faces.align import crop_face
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.faces.smooth import Smoother, SmoothingRule, frame_weight
from deepfer_yolo.faces.track import Tracked, Tracker
from deepfer_yolo.records import Crops, Event, Image, Prediction, Probs, Track
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.stream.buffers import Waiting
from deepfer_yolo.stream.records import Result

CUT_DIFFERENCE = 15.0
CUT_LIKENESS = 0.5
"""Two pictures are of different shots where small grey versions differ by more than the first on average and correlate
less than the second: on a stage clip the cuts reach 26 to 30 and 0.01 to 0.27, all other pairs at most 12.6 and at
least 0.69.
"""


@dataclass(frozen=True, slots=True)
class SceneRules:
    """Detections of `min_score` begin tracks. `detect_every` n-th picture is searched for faces; between them the
    tracks coast.

    `lost_s` is how long a track outlives its face.
    """

    min_score: float
    detect_every: int = 1
    lost_s: float = 1.0
    smoothing: SmoothingRule = field(default_factory=SmoothingRule)


class Scene:
    """The faces of one source over time."""

    def __init__(self, detector: Detector, card: Card, rules: SceneRules) -> None:
        self._detector = detector
        self._card = card
        self._rules = rules
        self._crop = card.crop if detector.boxes == "face" else None
        self._next_id = 1
        self._small: NDArray[np.float32] | None = None
        self._cut_events: list[Event] = []
        self._restart(0)

    def _restart(self, epoch: int) -> None:
        self.epoch = epoch
        self._tracker = Tracker(min_score=self._rules.min_score, lost_s=self._rules.lost_s, first_id=self._next_id)
        self._smoothers: dict[int, Smoother] = {}
        self._since_detection = 0

    def find(self, waiting: Waiting) -> list[Tracked]:
        """The faces of the next picture, by detection or, between detections, by their motion."""
        frame = waiting.frame
        if self._detector.boxes == "face" and self._is_cut(frame.image):
            self._cut_events += self.end(self.epoch)
        if self._since_detection % self._rules.detect_every == 0:
            tracked = self._tracker.update(self._detector.detect(frame.image), frame.time_s)
        else:
            tracked = self._tracker.coast(frame.time_s)
        self._since_detection += 1
        self._next_id = self._tracker.next_id
        return tracked

    def crops(self, image: Image, tracked: list[Tracked]) -> list[Image]:
        """One model input, uint8 (S, S, 3), a face."""
        return [crop_face(image, track.face, self._crop, self._card.input) for track in tracked]

    def conclude(
        self, waiting: Waiting, tracked: list[Tracked], crops: Crops, probs: Probs, age_ms: float | None
    ) -> Result:
        """Smooth the predictions and gather everything about one picture."""
        time_s = waiting.frame.time_s
        tracks, events = [], self._cut_events
        self._cut_events = []
        for track, crop, row in zip(tracked, crops, probs, strict=True):
            smoother = self._smoothers.get(track.id)
            if smoother is None:
                smoother = self._smoothers[track.id] = Smoother(track.id, self._card.labels, self._rules.smoothing)
            raw = Prediction(np.asarray(row, np.float32), self._card.labels)
            smoothed, event = smoother.add(raw.probs, frame_weight(track.face, crop), time_s)
            events += [event] if event is not None else []
            tracks.append(Track(track.id, track.face, raw, smoothed, time_s - track.born_s, smoother.label))
        events += self._end_lost()
        hidden = tuple(self._tracker.hidden(time_s))
        return Result(waiting.frame, waiting.epoch, tuple(tracks), tuple(events), hidden, age_ms, self._detector.boxes)

    def _is_cut(self, image: Image) -> bool:
        """Whether the picture is of another shot than the one before: nobody in it is who stood there."""
        import cv2

        before, self._small = (
            self._small,
            np.asarray(cv2.resize(image[::4, ::4, 1], (32, 18), interpolation=cv2.INTER_AREA), np.float32),
        )
        if before is None or float(np.abs(before - self._small).mean()) <= CUT_DIFFERENCE:
            return False
        one, other = before - before.mean(), self._small - self._small.mean()
        spread = float(np.sqrt((one**2).sum() * (other**2).sum()))
        return spread == 0.0 or float((one * other).sum()) / spread < CUT_LIKENESS

    def _end_lost(self) -> list[Event]:
        lost = self._smoothers.keys() - self._tracker.alive
        ended = [self._smoothers.pop(track_id).end() for track_id in sorted(lost)]
        return [event for event in ended if event is not None]

    def end(self, next_epoch: int) -> list[Event]:
        """End all tracks, at the end of the source or of an epoch; returns the events that this closes."""
        ended = [self._smoothers[track_id].end() for track_id in sorted(self._smoothers)]
        self._restart(next_epoch)
        return [event for event in ended if event is not None]
