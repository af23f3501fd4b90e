"""When the results of a file are final: its last record is written once every other sink has all of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from deepfer_yolo.stream.records import Output, State
from deepfer_yolo.stream.sinks.worker import SinkWorker


@dataclass(slots=True)
class _Last:
    """The last state of a source on its way: how many sinks have not answered, and whether all that did have it."""

    state: State
    n_open: int
    is_whole: bool = True


class Completion:
    """Gives the last state of a source to the ledgers, the sinks that `--resume` reads, after all other sinks."""

    def __init__(self, workers: Sequence[SinkWorker]) -> None:
        self.ledgers = [worker for worker in workers if worker.is_ledger]
        self.others = [worker for worker in workers if not worker.is_ledger]
        self._lock = threading.Lock()
        self._last: dict[str, _Last] = {}
        self._dropped: dict[str, int] = {}

    def begin(self, source: str) -> None:
        """Note that a source begins: what sinks drop from now on may be of it."""
        self._dropped[source] = self._n_dropped()

    def conclude(self, state: State, *, may_wait: bool) -> None:
        """Give the last state of a source that was read whole to all sinks."""
        state = replace(state, complete=self._n_dropped() == self._dropped.pop(state.source, 0))
        if not self.others:
            self._write(state, may_wait=may_wait)
            return
        with self._lock:
            self._last[state.source] = _Last(state, len(self.others))
        output = Output((state,), settled=partial(self._settle, state.source))
        for worker in self.others:
            worker.put(output, may_wait=may_wait)

    def flush(self) -> None:
        """Give the ledgers what waits for sinks that do not answer; called when those are closed."""
        with self._lock:
            left, self._last = list(self._last.values()), {}
        for last in left:
            self._write(replace(last.state, complete=False), may_wait=False)

    def _settle(self, source: str, is_written: bool) -> None:
        """Note the answer of one sink; the last to answer passes the state on."""
        with self._lock:
            last = self._last.get(source)
            if last is None:
                return
            last.n_open -= 1
            last.is_whole &= is_written
            if last.n_open > 0:
                return
            del self._last[source]
        self._write(replace(last.state, complete=last.state.complete and last.is_whole), may_wait=True)

    def _write(self, state: State, *, may_wait: bool) -> None:
        for worker in self.ledgers:
            worker.put(Output((state,)), may_wait=may_wait)

    def _n_dropped(self) -> int:
        return sum(worker.n_dropped for worker in [*self.ledgers, *self.others])
