"""A sink behind a thread and a bounded queue of its own: one that blocks or fails is reported, and stalls nothing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.stream.records import Output, SinkSummary, State

PATIENCE_S = 10.0
"""How long a lossless run waits for a sink that makes no progress before its outputs are dropped."""
CLOSE_S = 30.0
"""How long the end of a run waits for a sink that still makes progress."""
BLOCKED_CLOSE_S = 0.5


class Sink:
    """Somewhere results go. All methods run in the sink's own thread; an exception ends the sink, not the stream.

    `name` shows no credentials; `files` are those that it may write under names that are known before it starts,
    `folder` is where it writes others. A run that is stopped does not wait for an `is_remote` sink whose other side
    keeps silent.
    """

    wants: Literal["records", "images"] = "records"
    depth = 4096
    is_remote = False

    def __init__(self, name: str, files: Sequence[Path] = ()) -> None:
        self.name = name
        self.files = files
        self.folder: Path | None = None

    def open(self) -> None:
        """Get ready."""

    def write(self, output: Output) -> None:
        """Take one output; its result is None for sinks that want records alone."""
        raise NotImplementedError

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
        self._is_blocked = False
        self._tell: Callable[[State], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)

    @property
    def has_failed(self) -> bool:
        """Whether the sink has given up."""
        return self._error is not None

    def start(self, tell: Callable[[State], None]) -> None:
        """Start the thread; `tell` reports trouble to all sinks."""
        self._tell = tell
        self._thread.start()

    def put(self, output: Output, *, may_wait: bool) -> None:
        """Hand over an output. A full queue drops it; where it `may_wait`, only after a time without progress."""
        if self.has_failed:
            self._dropped += 1
            return
        item = output if self._sink.wants == "images" else Output(output.records)
        if not item.records and item.result is None:
            return
        if self._offer(item, may_wait=may_wait):
            self._is_blocked = False
            return
        self._dropped += 1
        if not self._is_blocked:
            self._is_blocked = True
            self._report("its queue is full; what comes now is dropped")

    def close(self, *, in_haste: bool = False) -> None:
        """Let the sink finish; one without progress is left behind and reported, a remote one soon where `in_haste`."""
        deadline = time.monotonic() + CLOSE_S
        self._offer(None, may_wait=not self._is_blocked)
        written, moved_at = self._written, time.monotonic()
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(0.05)
            if self._written != written:
                written, moved_at = self._written, time.monotonic()
            patience = BLOCKED_CLOSE_S if self._is_blocked or (in_haste and self._sink.is_remote) else self._patience_s
            if time.monotonic() - moved_at > patience:
                break
        if self._thread.is_alive() and self._error is None:
            self._error = "it did not finish"

    def summary(self) -> SinkSummary:
        """What went through it."""
        return SinkSummary(self._sink.name, self._written, self._dropped, self._error)

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
            while (item := self._queue.get()) is not None:
                self._sink.write(item)
                self._written += item.result is not None or self._sink.wants == "records"
        except Exception as error:
            self._fail(error)
        finally:
            try:
                self._sink.close()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error.message if isinstance(error, DeepferError) else f"{type(error).__name__}: {error}"
            self._report(self._error)

    def _report(self, reason: str) -> None:
        self._tell(State(self._sink.name, 0, time.time(), "arrival", "sink", None, reason))
