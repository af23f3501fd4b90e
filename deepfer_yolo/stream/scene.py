"""What is known about one source while it runs: its detector, tracks and smoothed labels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.faces.align import crop_faces
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.faces.quality import lack_of, quality_of
from deepfer_yolo.faces.smooth import Smoother, frame_weight
from deepfer_yolo.faces.track import Tracked, Tracker
from deepfer_yolo.records import Crops, Event, Frame, Image, Prediction, Probs, Track
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.stream.records import Result

CUT_DIFFERENCE = 15.0
CUT_LIKENESS = 0.5
"""Two images are of different shots where small grey versions differ by more than the first on average and correlate
less than the second: on a stage clip the cuts reach 26 to 30 and 0.01 to 0.27, all other pairs at most 12.6 and at
least 0.69.
"""


class Scene:
    """The faces of one source over time: every `detect_every`-th frame is searched, between them the tracks coast."""

    def __init__(self, detector: Detector, card: Card, config: StreamConfig) -> None:
        self.detector = detector
        self._card = card
        self._config = config
        self._next_id = 1
        self._small: NDArray[np.float32] | None = None
        self._cut_events: list[Event] = []
        self._restart(0)

    def _restart(self, epoch: int) -> None:
        self.epoch = epoch
        self._tracker = Tracker(self._config, self._next_id)
        self._smoothers: dict[int, Smoother] = {}
        self._since_detection = 0

    def label(self, frame: Frame, model: Model) -> Result:
        """Everything about the next frame, where no other source shares the model's batch."""
        tracked = self.find(frame)
        crops = self.crops(frame.image, tracked)
        return self.conclude(frame, tracked, crops, probs_of(crops, model))

    def find(self, frame: Frame) -> list[Tracked]:
        """The faces of the next frame, by detection or, between detections, by their motion."""
        if self.detector.boxes == "face" and self._is_cut(frame.image):
            self._cut_events += self.end(self.epoch)
        if self._since_detection % self._config.detect_every == 0:
            tracked = self._tracker.update(self.detector.detect(frame.image), frame.time_s)
        else:
            tracked = self._tracker.coast(frame.time_s)
        self._since_detection += 1
        self._next_id = self._tracker.next_id
        return tracked

    def crops(self, image: Image, tracked: list[Tracked]) -> Crops:
        """One model input a face."""
        return crop_faces(image, (track.face for track in tracked), self.detector.boxes, self._card)

    def conclude(
        self, frame: Frame, tracked: list[Tracked], crops: Crops, probs: Probs, age_ms: float | None = None
    ) -> Result:
        """Smooth the predictions and gather everything about the frame."""
        tracks, events = [], self._cut_events
        self._cut_events = []
        for track, crop, row in zip(tracked, crops, probs, strict=True):
            smoother = self._smoothers.get(track.id)
            if smoother is None:
                smoother = self._smoothers[track.id] = Smoother(track.id, self._card.labels, self._config)
            raw = Prediction(np.asarray(row, np.float32), self._card.labels)
            quality = quality_of(track.face, crop)
            lack = lack_of(quality, self._config)
            weight = 0.0 if lack else frame_weight(track.face, quality)
            smoothed, event = smoother.add(raw.probs, weight, frame.time_s, lack)
            events += [event] if event is not None else []
            age_s, seen = frame.time_s - track.born_s, (smoother.label, smoother.reason, quality)
            tracks.append(Track(track.id, track.face, raw, smoothed, age_s, *seen))
        events += self._end(self._smoothers.keys() - self._tracker.alive)
        hidden = tuple(self._tracker.hidden(frame.time_s))
        return Result(frame, self.epoch, tuple(tracks), tuple(events), hidden, age_ms, self.detector.boxes)

    def end(self, next_epoch: int) -> list[Event]:
        """End all tracks, at the end of the source or of an epoch; returns the events that this closes."""
        events = self._end(list(self._smoothers))
        self._restart(next_epoch)
        return events

    def _end(self, track_ids: Iterable[int]) -> list[Event]:
        ended = [self._smoothers.pop(track_id).end() for track_id in sorted(track_ids)]
        return [event for event in ended if event is not None]

    def _is_cut(self, image: Image) -> bool:
        """Whether the image is of another shot than the one before: nobody in it is who stood there."""
        import cv2

        small = cv2.resize(image[::4, ::4, 1], (32, 18), interpolation=cv2.INTER_AREA)
        before, self._small = self._small, np.asarray(small, np.float32)
        if before is None or float(np.abs(before - self._small).mean()) <= CUT_DIFFERENCE:
            return False
        one, other = before - before.mean(), self._small - self._small.mean()
        spread = float(np.sqrt((one**2).sum() * (other**2).sum()))
        return spread == 0.0 or float((one * other).sum()) / spread < CUT_LIKENESS


def probs_of(crops: Crops, model: Model) -> Probs:
    """The model's probabilities; it is not asked where there is no face."""
    return model.predict(crops) if len(crops) else np.zeros((0, len(model.card.labels)), np.float32)
