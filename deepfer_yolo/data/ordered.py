"""Work in threads, results in order, memory bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WAITING_PER_WORKER = 16


def map_in_order(function: Callable[[T], R], items: Iterable[T], workers: int, waiting_per_worker: int = WAITING_PER_WORKER) -> Iterator[R]:
    """`function` of each item, computed by `workers` threads, in the order of `items`.

    With 0 workers it is a plain map. At most `waiting_per_worker` results a worker wait to be fetched.
    An exception of `function` is raised at its item's place.
    """
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= workers * waiting_per_worker:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
