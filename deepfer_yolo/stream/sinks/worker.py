"""A sink behind a thread and a bounded queue of its own: one that blocks or fails is reported, and stalls nothing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.files import os_reason
from deepfer_yolo.stream.records import Output, SinkReason, SinkSummary, State

PATIENCE_S = 10.0
"""How long a lossless run waits for a sink that makes no progress before its outputs are dropped."""
CLOSE_S = 30.0
"""How long the end of a run waits for a sink that still makes progress."""
BLOCKED_CLOSE_S = 0.5


def _words(error: Exception) -> str:
    if isinstance(error, DeepferError):
        return error.message
    return os_reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


class ReaderGoneError(DeepferError):
    """Nobody reads any more what a sink writes into a pipe."""


class Sink:
    """Somewhere results go. All methods run in the sink's own thread; an exception ends the sink, not the stream.

    `name` shows no credentials; `files` are those that it may write under names that are known before it starts,
    `folder` is where it writes others; `kinds` are the records that it takes, None for all. A run that is stopped does
    not wait for an `is_remote` sink whose other side keeps silent.

    A sink that delivers later counts in `n_waiting` the outputs that it took and still has, in `n_lost` those that it
    gave up; `n_deleted` are records that it wrote and deleted again. It says by `report` what a person should know, and
    has `idle` called after `idle_s` without an output.
    """

    wants: Literal["records", "images"] = "records"
    is_ledger = False
    """Whether a later run learns from it which sources are finished."""
    kinds: frozenset[str] | None = None
    depth = 4096
    is_remote = False

    def __init__(self, name: str, files: Sequence[Path] = ()) -> None:
        self.name = name
        self.files = files
        self.folder: Path | None = None
        self.n_waiting = self.n_lost = self.n_deleted = 0
        self.run = ""
        """The id of the run."""
        self.report: Callable[[str], None] = lambda _: None

    def owns(self, path: Path) -> bool:
        """Whether it may write a file of this name besides `files`."""
        return False

    def open(self) -> None:
        """Get ready."""

    def write(self, output: Output) -> None:
        """Take one output; its result is None for sinks that want records alone."""
        raise NotImplementedError

    def idle_s(self) -> float | None:
        """How long to wait for an output until `idle` is called; None for ever."""
        return None

    def idle(self) -> None:
        """Do what time asks for."""

    def close(self) -> None:
        """Finish what was written."""


class SinkWorker:
    """Runs a sink in its own thread."""

    def __init__(self, sink: Sink, *, patience_s: float = PATIENCE_S) -> None:
        self._sink = sink
        self._patience_s = patience_s
        self._queue: queue.Queue[Output | None] = queue.Queue(sink.depth)
        self._written = 0
        self._dropped = 0
        self._error: str | None = None
        self._reason: SinkReason | None = None
        self._is_blocked = False
        self._is_closed = False
        self._tell: Callable[[State], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)

    @property
    def has_failed(self) -> bool:
        """Whether the sink has given up."""
        return self._error is not None

    @property
    def is_ledger(self) -> bool:
        """Whether a later run learns from it which sources are finished."""
        return self._sink.is_ledger

    @property
    def n_dropped(self) -> int:
        """How many outputs it did not take."""
        return self._dropped

    def start(self, tell: Callable[[State], None], run: str = "") -> None:
        """Start the thread; `tell` reports trouble to all sinks, `run` is the id of the run."""
        self._tell = tell
        self._sink.run = run
        self._sink.report = self._report
        self._thread.start()

    def put(self, output: Output, *, may_wait: bool) -> None:
        """Hand over an output. A full queue drops it; where it `may_wait`, only after a time without progress."""
        records = output.records
        if self._sink.kinds is not None:
            records = tuple(record for record in records if record.kind in self._sink.kinds)
        result = output.result if self._sink.wants == "images" else None
        item = Output(records, result, output.settled)
        if not item.records and item.result is None:
            item.settled(True)
            return
        if self.has_failed:
            self._dropped += 1
            item.settled(False)
            return
        if self._offer(item, may_wait=may_wait):
            self._is_blocked = False
            return
        self._dropped += 1
        item.settled(False)
        if not self._is_blocked:
            self._is_blocked = True
            self._report("its queue is full; what comes now is dropped")

    def close(self, *, in_haste: bool = False) -> None:
        """Let the sink finish; one without progress is left behind and reported, a remote one soon where `in_haste`."""
        deadline = time.monotonic() + CLOSE_S
        self._offer(None, may_wait=not self._is_blocked)
        done, moved_at = self._progress(), time.monotonic()
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(0.05)
            if self._progress() != done:
                done, moved_at = self._progress(), time.monotonic()
            patience = BLOCKED_CLOSE_S if self._is_blocked or (in_haste and self._sink.is_remote) else self._patience_s
            if time.monotonic() - moved_at > patience:
                break
        if self._thread.is_alive() and self._error is None:
            self._error, self._reason = "it did not finish", "unfinished"
        self._is_closed = True

    def summary(self) -> SinkSummary:
        """What went through it, and what was lost; once it is closed or has failed, what still waits is lost too."""
        late = self._sink.n_waiting
        lost = self._dropped + self._sink.n_lost
        if self._is_closed or self.has_failed:
            lost += late + sum(item is not None for item in list(self._queue.queue))
        written = self._written - self._sink.n_lost - late
        return SinkSummary(self._sink.name, written, lost, self._sink.n_deleted, self._reason, self._error)

    def _progress(self) -> tuple[int, int]:
        return self._written, self._sink.n_waiting

    def _offer(self, item: Output | None, *, may_wait: bool) -> bool:
        patience_s = self._patience_s if may_wait and not self._is_blocked else 0.0
        written, since = self._written, time.monotonic()
        while True:
            try:
                self._queue.put(item, patience_s > 0, min(0.2, patience_s))
            except queue.Full:
                if self._written != written:
                    written, since = self._written, time.monotonic()
                if self.has_failed or time.monotonic() - since >= patience_s:
                    return False
            else:
                return True

    def _run(self) -> None:
        try:
            self._sink.open()
            while (item := self._next()) is not None:
                try:
                    self._sink.write(item)
                except Exception:
                    self._dropped += 1
                    item.settled(False)
                    raise
                item.settled(True)
                self._written += item.result is not None or self._sink.wants == "records"
        except Exception as error:
            self._fail(error)
        finally:
            try:
                self._sink.close()
            except Exception as error:
                self._fail(error)

    def _next(self) -> Output | None:
        """The next output, None at the end; meanwhile the sink does what time asks for."""
        while True:
            try:
                return self._queue.get(timeout=self._sink.idle_s())
            except queue.Empty:
                self._sink.idle()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._reason = "reader-gone" if isinstance(error, ReaderGoneError) else "failed"
            self._error = _words(error)
            self._report(self._error)

    def _report(self, reason: str) -> None:
        self._tell(State(self._sink.name, 0, time.time(), "arrival", "sink", None, reason))
