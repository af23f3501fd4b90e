"""Between reading and inference: one small buffer a source, in which no frame goes missing uncounted."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

from deepfer_yolo.records import Frame

Policy = Literal["latest", "bounded", "lossless"]
LOSSLESS_DEPTH = 4
BOUNDED_DEPTH = 32


@dataclass(slots=True)
class Counters:
    """captured = processed + overwritten + stale + corrupt + in flight, at every moment."""

    captured: int = 0
    processed: int = 0
    overwritten: int = 0
    stale: int = 0
    corrupt: int = 0
    in_flight: int = 0

    @property
    def dropped(self) -> int:
        """Frames that were read and not processed."""
        return self.overwritten + self.stale + self.corrupt


@dataclass(frozen=True, slots=True, eq=False)
class Queued:
    """A frame on its way to inference. `arrived_s` is monotonic; `age_s` is how old it was on arrival."""

    frame: Frame
    epoch: int
    arrived_s: float
    age_s: float


class Buffer:
    """The frames of one source that wait for inference; all buffers of a run share `lock`, which wakes inference.

    `latest` keeps the newest only; `bounded` drops what is older than `max_age_s` when its turn comes; `lossless` makes
    the reader wait.
    """

    def __init__(self, policy: Policy, max_age_s: float, lock: threading.Condition) -> None:
        self.policy = policy
        self.counters = Counters()
        self._max_age_s = max_age_s
        self._lock = lock
        self._queue: deque[Queued] = deque()

    def put(self, item: Queued, stop: threading.Event) -> bool:
        """Hand over a frame; False where the run was stopped while a lossless buffer was full."""
        with self._lock:
            while self.policy == "lossless" and len(self._queue) >= LOSSLESS_DEPTH:
                if stop.is_set():
                    return False
                self._lock.wait(0.2)
            depth = 1 if self.policy == "latest" else BOUNDED_DEPTH
            while self.policy != "lossless" and len(self._queue) >= depth:
                self._queue.popleft()
                self.counters.overwritten += 1
                self.counters.in_flight -= 1
            self._queue.append(item)
            self.counters.captured += 1
            self.counters.in_flight += 1
            self._lock.notify_all()
        return True

    def count_corrupt(self) -> None:
        """Count a frame that was read but cannot be used."""
        with self._lock:
            self.counters.captured += 1
            self.counters.corrupt += 1

    def take(self) -> Queued | None:
        """The next frame to process, or None. The caller holds the lock; the frame stays in flight until `done`."""
        now = time.monotonic()
        while self._queue:
            item = self._queue.popleft()
            if self.policy == "bounded" and now - item.arrived_s > self._max_age_s:
                self.counters.stale += 1
                self.counters.in_flight -= 1
                continue
            if self.policy == "lossless":
                self._lock.notify_all()
            return item
        return None

    def done(self) -> None:
        """Count one frame as processed."""
        with self._lock:
            self.counters.processed += 1
            self.counters.in_flight -= 1

    def discard(self) -> None:
        """Count what still waits as overwritten; called when a run stops."""
        with self._lock:
            self.counters.overwritten += len(self._queue)
            self.counters.in_flight -= len(self._queue)
            self._queue.clear()

    def __len__(self) -> int:
        return len(self._queue)
