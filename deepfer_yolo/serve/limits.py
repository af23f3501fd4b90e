"""Bookkeeping of what clients may ask for: rate, concurrency and memory."""

from __future__ import annotations

import ctypes
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deepfer_yolo.serve.problems import too_many

MAX_CLIENTS = 4096
"""Clients whose rate is remembered; the longest silent one is forgotten first."""


class Rate:
    """A token bucket a client: `per_s` requests a second, `burst` at once. 0 allows everything."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, client: str) -> None:
        """Count one request. Raises Problem where the client's bucket is empty."""
        if self._per_s == 0:
            return
        now = self._clock()
        level, since = self._buckets.pop(client, (float(self._burst), now))
        level = min(float(self._burst), level + (now - since) * self._per_s)
        allowed = level >= 1
        self._buckets[client] = (level - 1 if allowed else level, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise too_many(f"more than {self._per_s:g} requests a second", math.ceil((1 - level) / self._per_s))


class Slots:
    """How many of something may be under way at once."""

    def __init__(self, limit: int, what: str) -> None:
        self.limit = limit
        self.in_use = 0
        self._what = what

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Take one for the time of the body. Raises Problem where none is free."""
        if self.in_use >= self.limit:
            raise too_many(f"{self.limit} {self._what} are under way already")
        self.in_use += 1
        try:
            yield
        finally:
            self.in_use -= 1


class Budget:
    """Bytes that all request bodies together may take at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_use = 0

    def take(self, n: int) -> None:
        """Count `n` bytes. Raises Problem where they do not fit; the caller gives back what it took with `give`."""
        if self.in_use + n > self._limit:
            raise too_many("the uploads under way take all the memory that they may", 2.0)
        self.in_use += n

    def give(self, n: int) -> None:
        """Give back `n` bytes."""
        self.in_use -= n


def return_memory() -> None:
    """Let the allocator give what was freed back to the system; glibc keeps what large bodies took for ever. Elsewhere nothing happens."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
