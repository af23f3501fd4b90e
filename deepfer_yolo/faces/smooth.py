"""Steady labels from noisy frames, measured in seconds so that the frame rate does not matter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.records import Event, Face, Image, Prediction, Probs

UNCERTAIN = "uncertain"
FIRST_STEP_S = 0.04
"""The time step that a track's first frame counts for."""
FULL_SIZE_PX = 48.0
"""Faces at least this wide count fully."""
LEAST_CONTRAST = 10.0
"""Standard deviation of luma below which a face cannot be read: on FER2013 images darkened to 0.15 of their values
(median 8.7) accuracy is 35 % instead of 68 %, at 47 % confidence; still darker ones are all called angry (deepfer-n,
1,500 of PublicTest).
"""
LEAST_WEIGHT = 0.05
"""A face whose frames weigh less on average shows nothing to go by."""


class Smoother:
    """The smoothed prediction and the held label of one track; gives an Event each time a label ends.

    `smooth_s` is the time constant of the average; a label must lead by `margin` for `hold_s` to change. Below
    `min_confidence` it is uncertain; a label that is held already goes only `margin` below that, or it would flicker
    around the line. It is uncertain too while the face cannot be seen well enough (LEAST_WEIGHT).
    """

    def __init__(self, track_id: int, labels: tuple[str, ...], config: StreamConfig) -> None:
        self._id = track_id
        self._labels = labels
        self._config = config
        self._sum: NDArray[np.float64] = np.zeros(len(labels))
        self._weight = self._share = 0.0
        self._time_s: float | None = None
        self.label = UNCERTAIN
        self._since_s = 0.0
        self._challenger: tuple[str, float] | None = None
        self._confidence_sum, self._n = 0.0, 0

    def add(self, probs: Probs, weight: float, time_s: float) -> tuple[Prediction, Event | None]:
        """Take in one frame's probabilities; returns the smoothed ones and the event that ended, if one did."""
        step = FIRST_STEP_S if self._time_s is None else max(0.0, time_s - self._time_s)
        if self._time_s is None:
            self._since_s = time_s
        keep = math.exp(-step / self._config.smooth_s)
        self._sum = keep * self._sum + (1 - keep) * max(weight, 1e-3) * probs
        self._weight = keep * self._weight + (1 - keep) * max(weight, 1e-3)
        self._share = keep * self._share + (1 - keep)
        average = (self._sum / self._weight).astype(np.float32) if self._weight > 0 else probs
        smoothed = Prediction(average / average.sum(), self._labels)
        event = self._hold(smoothed, time_s, is_first=self._time_s is None)
        self._time_s = time_s
        if self.label in self._labels:
            self._confidence_sum += float(smoothed.probs[self._labels.index(self.label)])
            self._n += 1
        return smoothed, event

    def end(self) -> Event | None:
        """The event that the track's end closes."""
        return self._event(self._time_s) if self._time_s is not None else None

    def _hold(self, smoothed: Prediction, time_s: float, *, is_first: bool) -> Event | None:
        wanted = self._wanted(smoothed)
        if is_first:
            self.label = wanted
            return None
        if wanted == self.label:
            self._challenger = None
            return None
        if self._challenger is None or self._challenger[0] != wanted:
            self._challenger = (wanted, time_s)
        since = self._challenger[1]
        if time_s - since < self._config.hold_s:
            return None
        event = self._event(since)
        self.label, self._since_s, self._challenger = wanted, since, None
        self._confidence_sum, self._n = 0.0, 0
        return event

    def _wanted(self, smoothed: Prediction) -> str:
        if self._weight < LEAST_WEIGHT * self._share:
            return UNCERTAIN
        best, confidence, least = smoothed.label, smoothed.confidence, self._config.min_confidence
        if self.label in self._labels:
            least -= self._config.margin
            held = float(smoothed.probs[self._labels.index(self.label)])
            if confidence - held < self._config.margin:
                best, confidence = self.label, held
        return best if confidence >= least else UNCERTAIN

    def _event(self, end_s: float) -> Event | None:
        if self.label == UNCERTAIN or end_s <= self._since_s:
            return None
        return Event(self._id, self.label, self._since_s, end_s, self._confidence_sum / max(self._n, 1))


def frame_weight(face: Face, crop: Image) -> float:
    """How much one frame counts, 0..1: small, unsure and blurred faces count less, those without contrast nothing.

    `crop` is the model's input, uint8 (S, S, 3).
    """
    width = float(face.box[2] - face.box[0])
    size = min(1.0, width / FULL_SIZE_PX)
    return size * min(1.0, max(0.1, face.score)) * _sharpness(crop)


def _sharpness(crop: Image) -> float:
    """0 without contrast, else 0.3..1 from the mean square of the horizontal and vertical steps in luma.

    About 20 is where FER2013 images begin to look blurred.
    """
    grey = crop[:, :, 1].astype(np.float32)
    if grey.std() < LEAST_CONTRAST:
        return 0.0
    energy = float(np.mean(np.diff(grey, axis=0) ** 2) + np.mean(np.diff(grey, axis=1) ** 2))
    return 0.3 + 0.7 * energy / (energy + 20.0)
