"""One reader thread a source: connect, read, stamp with the true time, hand over; after a loss connect again."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.records import Clock, Frame, Image
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.buffers import Buffer, Queued
from deepfer_yolo.stream.records import LIVE_STATES, SourceSummary, State, StateName
from deepfer_yolo.stream.source_errors import SLOW_REASONS, SourceReadError, explain
from deepfer_yolo.stream.source_process import SourceProcess
from deepfer_yolo.stream.sources import Source, open_source

MAX_GAP_S = 10.0
"""A step forward beyond this, or any step back, starts a new epoch: no track lives across it."""
FIRST_WAIT_S, FIRST_SLOW_WAIT_S, MAX_WAIT_S = 0.5, 10.0, 30.0
MAX_CLOCK_ERROR_S = 60.0
"""A source whose wall clock is further than this from ours when it is first heard of has not set it."""
HEALTHY_S = 10.0
"""A connection that lasted this long forgets the failures before it."""
LIVE_PACE = 1.001
"""How fast a live stream that comes in bursts is played: a sender's clock may be that much faster than ours."""
SLACK_S = 0.2
"""How late an image of a live stream may be without the plan moving: a busy machine wakes its threads that late."""
FIRST_RETRIES = 4
"""How often a live source is tried again that has never given a frame, where `retries` is not set."""


class Reader:
    """Reads one source in a thread of its own; its frames wait in `buffer`, its changes of state are told to `tell`."""

    def __init__(
        self,
        address: Address,
        config: StreamConfig,
        lock: threading.Condition,
        tell: Callable[[State], None],
        threads: int = 0,
    ) -> None:
        self.address = address
        self.buffer = Buffer(config.policy or ("latest" if address.is_live else "lossless"), config.max_age_s, lock)
        self.epoch = 0
        self.reconnects = 0
        self.state: StateName | None = None
        self.failure: SourceReadError | None = None
        self.is_over = self._is_finished = False
        self._config = config
        self._threads = threads
        self._lock = lock
        self._tell = tell
        self._stop = threading.Event()
        self._process: SourceProcess | None = None
        self._state_lock = threading.Lock()
        self._last_at = time.monotonic()
        self._last_stamp: tuple[float, Clock] | None = None
        self._mark, self._changed_at = 0, time.monotonic()
        self._index = 0
        self._is_finite, self._was_live, self._period_s = False, False, 0.0
        self._shape: tuple[int, ...] | None = None
        self._thread: threading.Thread | None = None
        self._last_summary: SourceSummary | None = None

    def start(self) -> None:
        """Begin reading."""
        self._thread = threading.Thread(target=self._run, name=f"read {self.address.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the reader to end; it is not waited for, since opening a camera may block until its timeout."""
        self._stop.set()
        if (process := self._process) is not None:
            process.interrupt()

    def join(self, timeout_s: float) -> None:
        """Wait for the reader's end; a process that it reads from gets no longer than that."""
        thread = self._thread
        if thread is None:
            return
        thread.join(timeout_s)
        if thread.is_alive() and (process := self._process) is not None:
            process.kill()
            thread.join(timeout_s)

    @property
    def has_frames(self) -> bool:
        """Whether any frame ever came."""
        return self._index > 0

    @property
    def last_clock(self) -> Clock:
        """The clock of the last frame."""
        return self._last_stamp[1] if self._last_stamp else "pts"

    def summary(self) -> SourceSummary:
        """The source so far, `waiting` before it is its turn; the caller holds the lock."""
        if self._last_summary is not None:
            return self._last_summary
        why = self.failure
        summary = SourceSummary(
            source=self.address.name,
            state=self.state or "waiting",
            reason=why.reason if why is not None else None,
            error=why.message if why is not None else None,
            hint=why.hint if why is not None else None,
            policy=self.buffer.policy,
            epochs=self.epoch + 1,
            reconnects=self.reconnects,
            counters=replace(self.buffer.counters),
        )
        if self._is_finished:
            self._last_summary = summary
        return summary

    def finish(self, stopped: str | None) -> None:
        """Enter the last state: failed where the source broke for good or never gave a frame, else ended.

        `stopped` is why the run was ended before the source was.
        """
        self._stop.set()
        if self.failure is not None and (stopped is None or not self.has_frames):
            self.change("failed", f"{self.failure.reason}: {self.failure.message}")
        else:
            why = "frame limit" if self._is_at_limit else "end of source"
            self.change("ended", stopped or why, complete=stopped is None)
        self._is_finished = True
        if self.is_over:
            self._thread = None  # it is at its end; 100,000 of them would be kept

    def watch(self) -> None:
        """Report a stall or a frozen image; called a few times a second by the pipeline."""
        if self.state not in LIVE_STATES or not self.address.is_live:
            return
        now = time.monotonic()
        if now - self._last_at > self._config.stall_s + self._period_s:
            self.change("stalled", f"no frame for {self._config.stall_s + self._period_s:g} s")
        elif self.state == "live" and now - self._changed_at > self._config.frozen_s + self._period_s:
            self.change("frozen", f"the same image for {self._config.frozen_s:g} s")

    def change(self, state: StateName, reason: str, *, complete: bool = False) -> None:
        """Enter a state and tell it; nothing where the source is in it already."""
        with self._state_lock:
            if state == self.state:
                return
            was, self.state = self.state, state
            time_s, clock = self._now()
        self._tell(State(self.address.name, self.epoch, time_s, clock, state, was, reason, complete))

    def _now(self) -> tuple[float, Clock]:
        if not self.address.is_live:
            return self._last_stamp or (0.0, "pts")
        return time.time(), "arrival"

    @property
    def _is_at_limit(self) -> bool:
        return self._config.max_frames is not None and self._index >= self._config.max_frames

    def _run(self) -> None:
        try:
            self._connect_until_over()
        finally:
            with self._lock:
                self.is_over = True
                self._lock.notify_all()

    def _connect_until_over(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            self.change("connecting", f"attempt {attempts + 1}")
            started = time.monotonic()
            try:
                self._read_once(self._open())
                return
            except Exception as error:
                # Whatever a library raises, a reader that is gone must never look like a source that has ended.
                failure = explain(error, self.address, "reading")
                if self._stop.is_set():
                    return
                self.failure = failure
                attempts = 1 if time.monotonic() - started > HEALTHY_S else attempts + 1
                if not self._may_retry(failure, attempts):
                    return
                self.change("lost", f"{failure.reason}: {failure.message}")
                self.reconnects += 1
                self._stop.wait(backoff_s(attempts - 1, is_slow=failure.reason in SLOW_REASONS))

    def _open(self) -> Source | SourceProcess:
        if self.address.kind != "network" or not self._config.isolate:
            return open_source(self.address, self._config, self._threads)
        self._process = process = SourceProcess(self.address, self._config)
        try:
            if self._stop.is_set():  # `stop` may have looked before there was a process
                process.interrupt()
            process.open()
        except BaseException:
            process.close()
            raise
        return process

    def _may_retry(self, failure: SourceReadError, attempts: int) -> bool:
        is_hopeless = failure.reason == "forbidden" or (failure.reason == "invalid" and not self.has_frames)
        if is_hopeless or self.address.kind not in ("network", "camera"):
            return False
        if failure.reason == "crashed" and self._is_finite:
            return False  # it would come to the same place again
        if self._config.retries is None:
            return self.has_frames or attempts <= FIRST_RETRIES
        return attempts <= self._config.retries

    def _read_once(self, source: Source | SourceProcess) -> None:
        """Read one connection to its end. Raises SourceReadError where it breaks, or where a live source just ends."""
        if source.is_finite and self._was_live:
            # A playlist that has got its end mark is whole now; what it holds has been seen.
            source.close()
            self.failure = None
            return
        self._is_finite, self._was_live, self._period_s = source.is_finite, source.is_bursty, source.period_s
        if self._config.policy is None and source.is_finite:
            self.buffer.policy = "lossless"
        timeline = Timeline(
            has_pts=source.has_pts,
            is_live=self.address.is_live,
            starts_at_zero=source.is_finite and self._config.clock == "start",
            named=source.clock,
        )
        is_first = True
        pace = None
        if self.buffer.policy != "lossless" and (source.is_finite or source.is_bursty):
            pace = Pace(is_live=source.is_bursty)
        try:
            for grab in source.grabs():
                if self._stop.is_set():
                    return
                if grab.image is None:
                    self.buffer.count_corrupt()
                    continue
                stamp = timeline.stamp(grab.pts_s, grab.offset_s, time.time())
                self._enter_epoch(grab.image, stamp, source.notes, is_first=is_first)
                is_first = False
                if pace is not None:
                    pace.wait(stamp.time_s, self._stop)
                if not self._hand_over(grab.image, stamp):
                    return
        finally:
            source.close()
        if not self._stop.is_set():
            self._check_end(source, is_empty=is_first)

    def _check_end(self, source: Source | SourceProcess, *, is_empty: bool) -> None:
        if not source.is_finite and self.address.kind != "pattern":
            raise SourceReadError(f"{self.address.name} ended", "eof")
        if is_empty:
            raise SourceReadError(f"{self.address.name} holds no image that can be decoded", "unreadable")
        self.failure = None

    def _enter_epoch(self, image: Image, stamp: Stamp, notes: Sequence[str], *, is_first: bool) -> None:
        """Start a new epoch at a reconnection, a jump of the clock or a change of size; `notes` are told at the first
        image.
        """
        is_resized = self._shape is not None and image.shape != self._shape
        if self._index > 0 and (is_first or stamp.is_new_epoch or is_resized):
            self.epoch += 1
        self._shape = image.shape
        self._last_stamp = (stamp.time_s, stamp.clock)
        now = self._last_at = time.monotonic()
        mark = zlib.crc32(image[::16, ::16].tobytes()) if self.address.is_live else self._index
        if mark != self._mark or is_first:
            self._mark, self._changed_at = mark, now
        if self.state != "frozen" or self._changed_at == now:
            self.change("live", "; ".join([f"{image.shape[1]}×{image.shape[0]}", *notes]))

    def _hand_over(self, image: Image, stamp: Stamp) -> bool:
        """Whether there is more to read."""
        frame = Frame(self._index, stamp.time_s, stamp.clock, image, self.address.name)
        self._index += 1
        queued = Queued(frame, self.epoch, time.monotonic(), stamp.age_s)
        return self.buffer.put(queued, self._stop) and not self._is_at_limit


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
    PTS it is the source's own time, and by arrival it is Unix time of arrival. With `starts_at_zero` the source's own
    time counts from its first image; `named` is what such times are called in records.
    """

    def __init__(self, *, has_pts: bool, is_live: bool, starts_at_zero: bool = False, named: Clock = "pts") -> None:
        self._has_pts = has_pts
        self._is_live = is_live
        self._named = named
        self._start_s: float | None = None if starts_at_zero else 0.0
        self._clock: Clock | None = None
        self._last: tuple[float, float] | None = None
        self._is_set: bool | None = None

    def stamp(self, pts_s: float | None, offset_s: float | None, now_s: float) -> Stamp:
        """The time of one frame; `now_s` is Unix time of its arrival."""
        if offset_s is not None and pts_s is not None and self._is_set is None:
            self._is_set = abs(now_s - (pts_s + offset_s)) <= MAX_CLOCK_ERROR_S
        offset_s = offset_s if self._is_set else None
        if self._clock is None:
            has_no_time = not self._has_pts or (pts_s is None and self._is_live)
            self._clock = "arrival" if has_no_time else self._named if offset_s is None else "rtcp"
        age_s = 0.0
        if self._clock == "arrival":
            time_s = now_s
        elif pts_s is None:
            time_s = 0.0 if self._last is None else self._last[0] + 0.04
        else:
            self._start_s = pts_s if self._start_s is None else self._start_s
            time_s = pts_s + (offset_s or 0.0) if self._clock == "rtcp" else pts_s - self._start_s
            if offset_s is not None:
                age_s = max(0.0, now_s - (pts_s + offset_s))
        is_new = self._jumped(time_s, now_s)
        self._last = (time_s, now_s)
        return Stamp(time_s, self._clock, is_new, age_s)

    def _jumped(self, time_s: float, now_s: float) -> bool:
        if self._last is None:
            return False
        step = time_s - self._last[0]
        waited = now_s - self._last[1] if self._is_live else 0.0
        return step < 0 or step - waited > MAX_GAP_S


class Pace:
    """Plays a source at its own speed: a recording behaves like a camera, and bursts of a live stream like one too.

    A recording that is late catches up at once. A live stream that is late has none to catch up with: what comes later
    is played later, so that as much waits as its bursts need.
    """

    def __init__(self, *, is_live: bool = False) -> None:
        self._is_live = is_live
        self._start: tuple[float, float] | None = None

    def wait(self, time_s: float, stop: threading.Event) -> None:
        """Wait until it is the turn of the frame at `time_s`."""
        now = time.monotonic()
        wait_s = 0.0
        if self._start is not None:
            since_s = time_s - self._start[0]
            wait_s = (since_s / LIVE_PACE if self._is_live else since_s) - (now - self._start[1])
        is_off = self._is_live and not -SLACK_S <= wait_s <= MAX_GAP_S
        if self._start is None or time_s < self._start[0] or is_off:
            self._start, wait_s = (time_s, now), 0.0
        stop.wait(max(0.0, wait_s))


def backoff_s(attempts: int, *, is_slow: bool = False) -> float:
    """How long to wait after so many failed attempts: doubled up to a cap, half of it random; more where `is_slow`."""
    full_s = min(MAX_WAIT_S, (FIRST_SLOW_WAIT_S if is_slow else FIRST_WAIT_S) * 2.0 ** min(attempts, 20))
    return full_s * random.uniform(0.5, 1.0)  # noqa: S311 (spreads reconnects, hides nothing)
