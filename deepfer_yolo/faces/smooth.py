"""Steady labels from noisy frames, measured in seconds so that the frame rate does not matter."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.records import Event, Face, Lack, Prediction, Probs, Quality, Reason

UNCERTAIN = "uncertain"
FIRST_STEP_S = 0.04
"""The time step that a track's first frame counts for."""
FULL_SIZE_PX = 48.0
"""Faces at least this wide count fully."""
LEAST_WEIGHT = 0.05
"""A face whose frames weigh less on average shows nothing to go by."""
TRACED = 4.0
"""How far back a change is looked for, in time constants before it was decided: the average has forgotten the rest."""


class Smoother:
    """The smoothed prediction and the held label of one track; gives an Event each time a label ends.

    `smooth_s` is the time constant of the average; a label must lead by `margin` for `hold_s` to change. Below
    `min_confidence` it is uncertain; a label that is held already goes only `margin` below that, or it would flicker
    around the line. It is uncertain too while the face cannot be seen well enough (LEAST_WEIGHT). The average lags
    behind, so that a change is dated by the raw answers: where the sum of what speaks for the new label and against the
    held one began to rise (Page 1954).
    """

    def __init__(self, track_id: int, labels: tuple[str, ...], config: StreamConfig) -> None:
        self._id = track_id
        self._labels = labels
        self._config = config
        self._sum: NDArray[np.float64] = np.zeros(len(labels))
        self._weight = self._share = 0.0
        self._lack: Lack | None = None
        self._time_s: float | None = None
        self.label = UNCERTAIN
        self._since_s = self._decided_s = 0.0
        self._answers: deque[tuple[float, float, Probs]] = deque()
        self._challenger: tuple[str, float] | None = None
        self._confidence_sum, self._n = 0.0, 0

    def add(
        self, probs: Probs, weight: float, time_s: float, lack: Lack | None = None
    ) -> tuple[Prediction, Event | None]:
        """Take in one frame's probabilities, and what it lacks; returns the smoothed ones and the event that ended, if
        one did.
        """
        self._lack = lack or self._lack
        step = FIRST_STEP_S if self._time_s is None else max(0.0, time_s - self._time_s)
        if self._time_s is None:
            self._since_s = self._decided_s = time_s
        self._remember(probs, weight, time_s)
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

    @property
    def reason(self) -> Reason | None:
        """Why the label is uncertain: what the frames of late lacked where they show too little, else the model."""
        if self.label != UNCERTAIN:
            return None
        return self._lack if self._lack is not None and self._is_unseen else "low confidence"

    @property
    def _is_unseen(self) -> bool:
        return self._weight < LEAST_WEIGHT * self._share

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
        if time_s - self._challenger[1] < self._config.hold_s:
            return None
        onset_s = self._onset_s(wanted)
        # What the raw answers carried for less than a new label must lead was never more than the average's doubt.
        event = self._event(onset_s) if onset_s - self._since_s >= self._config.hold_s else None
        self.label, self._since_s, self._decided_s, self._challenger = wanted, onset_s, time_s, None
        self._confidence_sum, self._n = 0.0, 0
        return event

    def _remember(self, probs: Probs, weight: float, time_s: float) -> None:
        self._answers.append((time_s, weight, probs))
        oldest_s = time_s - self._config.hold_s - TRACED * self._config.smooth_s
        while self._answers[0][0] < oldest_s:
            self._answers.popleft()

    def _onset_s(self, wanted: str) -> float:
        """When the raw answers began to speak for `wanted`, at the earliest when the held label began."""
        times, weights, probs = zip(*(one for one in self._answers if one[0] >= self._since_s), strict=True)
        weight, answers = np.array(weights), np.array(probs)
        sums = np.cumsum(self._support(wanted, weight, answers) - self._support(self.label, weight, answers))
        lowest = np.concatenate([[0.0], sums[:-1]])
        return float(times[len(times) - 1 - int(np.argmin(lowest[::-1]))])

    def _support(self, label: str, weight: NDArray[np.float64], probs: Probs) -> NDArray[np.float64]:
        """How much each of some frames speaks for a label; for `uncertain` the line below which it is that."""
        is_seen = weight >= LEAST_WEIGHT
        if label == UNCERTAIN:
            return np.where(is_seen, weight * self._least_confidence, 1.0)
        return np.where(is_seen, weight * probs[:, self._labels.index(label)], 0.0)

    @property
    def _least_confidence(self) -> float:
        """Below it the label is uncertain; one that is held goes lower."""
        return self._config.min_confidence - (self._config.margin if self.label in self._labels else 0.0)

    def _wanted(self, smoothed: Prediction) -> str:
        if self._is_unseen:
            return UNCERTAIN
        best, confidence, least = smoothed.label, smoothed.confidence, self._least_confidence
        if self.label in self._labels:
            held = float(smoothed.probs[self._labels.index(self.label)])
            if confidence - held < self._config.margin:
                best, confidence = self.label, held
        return best if confidence >= least else UNCERTAIN

    def _event(self, end_s: float) -> Event | None:
        if self.label == UNCERTAIN or end_s <= self._since_s:
            return None
        mean = self._confidence_sum / max(self._n, 1)
        return Event(self._id, self.label, self._since_s, end_s, self._decided_s, mean)


def frame_weight(face: Face, quality: Quality) -> float:
    """How much one frame counts, 0..1, where it lacks nothing: small, unsure and blurred faces count less.

    The mean square of the steps is a contrast that blur takes away; 35 is where a face is hardly more than a spot.
    """
    steps = quality.sharpness * quality.contrast**2
    return (
        min(1.0, quality.size_px / FULL_SIZE_PX) * min(1.0, max(0.1, face.score)) * (0.3 + 0.7 * steps / (steps + 35))
    )
