"""Time: from a source's own stamps to one clock an epoch, and how long to wait before the next attempt."""

from __future__ import annotations

import random
from dataclasses import dataclass

from deepfer_yolo.records import Clock

MAX_GAP_S = 10.0
"""A step forward beyond this, or any step back, starts a new epoch: no track lives across it."""
FIRST_WAIT_S, FIRST_SLOW_WAIT_S, MAX_WAIT_S = 0.5, 10.0, 30.0
MAX_CLOCK_ERROR_S = 60.0
"""A source whose wall clock is further than this from ours when it is first heard of has not set it."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a frame was taken. `age_s` is how old it was on arrival where the source's wall clock is known, else 0."""

    time_s: float
    clock: Clock
    is_new_epoch: bool
    age_s: float = 0.0


class Timeline:
    """Stamps the frames of one connection. `offset_s` is the wall-clock time of PTS 0 where RTCP tells it.

    The clock is chosen at the first frame and kept for the epoch: with RTCP `time_s` is Unix time of capture, with
    PTS it is the source's own time, and by arrival it is Unix time of arrival.
    """

    def __init__(self, *, has_pts: bool, is_live: bool) -> None:
        self._has_pts = has_pts
        self._is_live = is_live
        self._clock: Clock | None = None
        self._last: tuple[float, float] | None = None
        self._is_set: bool | None = None

    def stamp(self, pts_s: float | None, offset_s: float | None, now_s: float) -> Stamp:
        """The time of one frame; `now_s` is Unix time of its arrival."""
        if offset_s is not None and pts_s is not None and self._is_set is None:
            self._is_set = abs(now_s - (pts_s + offset_s)) <= MAX_CLOCK_ERROR_S
        offset_s = offset_s if self._is_set else None
        if self._clock is None:
            self._clock = self._choose(pts_s, offset_s)
        age_s = 0.0
        if self._clock == "arrival" or pts_s is None:
            time_s = now_s if self._clock == "arrival" else self._after_last()
        else:
            time_s = pts_s + (offset_s or 0.0) if self._clock == "rtcp" else pts_s
            if offset_s is not None:
                age_s = max(0.0, now_s - (pts_s + offset_s))
        is_new = self._jumped(time_s, now_s)
        self._last = (time_s, now_s)
        return Stamp(time_s, self._clock, is_new, age_s)

    def _choose(self, pts_s: float | None, offset_s: float | None) -> Clock:
        if not self._has_pts or (pts_s is None and self._is_live):
            return "arrival"
        return "rtcp" if offset_s is not None else "pts"

    def _after_last(self) -> float:
        return 0.0 if self._last is None else self._last[0] + 0.04

    def _jumped(self, time_s: float, now_s: float) -> bool:
        if self._last is None:
            return False
        step = time_s - self._last[0]
        waited = now_s - self._last[1] if self._is_live else 0.0
        return step < 0 or step - waited > MAX_GAP_S


def backoff_s(attempts: int, *, is_slow: bool = False) -> float:
    """How long to wait after so many failed attempts: doubled up to a cap, half of it random; more where `is_slow`."""
    full_s = min(MAX_WAIT_S, (FIRST_SLOW_WAIT_S if is_slow else FIRST_WAIT_S) * 2.0 ** min(attempts, 20))
    return full_s * random.uniform(0.5, 1.0)  # noqa: S311 (spreads reconnects, hides nothing)
