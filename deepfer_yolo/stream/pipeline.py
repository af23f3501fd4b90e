"""The engine: reader threads, one inference thread over all sources, and sinks with queues of their own.

Live sources are all read at once, files in turn: as many as `jobs` says.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.faces.detect import Detector, open_detector
from deepfer_yolo.runs import cores
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.buffers import Queued
from deepfer_yolo.stream.completion import Completion
from deepfer_yolo.stream.reader import Reader
from deepfer_yolo.stream.records import LIVE_STATES, NO_SINK, Output, StageTime, State, Summary, event_records
from deepfer_yolo.stream.scene import Scene, probs_of
from deepfer_yolo.stream.sinks.images import REFRESH_S
from deepfer_yolo.stream.sinks.worker import SinkWorker

WINDOW = 2000
"""How many of the latest times of a stage its percentiles speak of."""
TICK_S = 0.1
STOP_S = 0.8
"""How long a stopped run waits for its readers; a camera that is still connecting is left behind."""
MIN_JOBS, MAX_JOBS = 2, 8
"""Files that are read at once unless `jobs` says it: two, so that one is opened while another is looked at; at most
eight, since a full-HD file that is open takes tens of MB.
"""
LAST_BATCH_S = 30.0
"""How long a stopped run waits for the batch that is under way: Haar on a busy machine takes seconds."""


class Pipeline:
    """One run over some sources; `on_tick` is called many times a second in the caller's thread.

    A run that `needs_sinks` ends where none is left. `n_done` further sources were finished by an earlier run. Where
    others use this machine's cores as well, `decoder_threads` says how many a file's decoder takes.

    >>> summary = Pipeline(addresses, classifier, [SinkWorker(sink)], StreamConfig()).run()
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        model: Model,
        workers: Sequence[SinkWorker],
        config: StreamConfig,
        on_tick: Callable[[Pipeline], None] | None = None,
        *,
        needs_sinks: bool = True,
        n_done: int = 0,
        decoder_threads: int | None = None,
    ) -> None:
        self.run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"
        self.lock = threading.Condition()
        self.stages = StageTimes()
        self.workers = list(workers)
        self._model = model
        self._config = config
        self._on_tick = on_tick
        self._needs_sinks, self._n_done = needs_sinks, n_done
        self._stop = threading.Event()
        self._why = "stopped"
        self._is_whole = False
        self._error: BaseException | None = None
        self._started = time.monotonic()
        self._completion = Completion(self.workers)
        n_files = sum(address.is_file for address in addresses)
        self._jobs = min(config.jobs or min(MAX_JOBS, max(MIN_JOBS, cores())), max(n_files, 1))
        # Each thread of a decoder holds frames of its own; files side by side keep the cores busy without.
        threads = 0 if self._jobs == 1 else max(1, cores() // self._jobs)
        threads = threads if decoder_threads is None else decoder_threads
        self.readers = [Reader(one, config, self.lock, self._tell, threads if one.is_file else 0) for one in addresses]
        self._live = [reader for reader in self.readers if not reader.address.is_file]
        self._waiting = deque(reader for reader in self.readers if reader.address.is_file)
        self._detectors: list[Detector] = [open_detector(config, "video")]
        """Those that no source uses; a wrong file shows here."""
        self._open: list[tuple[Reader, Scene]] = []
        for reader in [*self._live, *(self._waiting.popleft() for _ in range(min(self._jobs, n_files)))]:
            self._prepare(reader)
        self.n_faces = 0
        self._ages_ms: dict[str, float] = {}

    def run(self) -> Summary:
        """Run to the end of all sources, a limit or `stop`. An unexpected error of the model is raised here."""
        self._started = time.monotonic()
        inference = threading.Thread(target=self._infer, name="inference", daemon=True)
        try:
            for worker in self.workers:
                worker.start(self._tell, self.run_id)
            for reader, _ in self._open:
                reader.start()
            inference.start()
            while inference.is_alive():
                inference.join(REFRESH_S if self._config.show else TICK_S)
                self._tick()
            self._is_whole = not self._stop.is_set()
        finally:
            self.stop("stopped")
            if inference.ident is not None:
                inference.join(LAST_BATCH_S)
            deadline = time.monotonic() + STOP_S
            for reader in self.readers:
                reader.join(max(0.0, deadline - time.monotonic()))
            for worker in self._completion.others:
                worker.close(in_haste=not self._is_whole)
            self._completion.flush()
            for worker in self._completion.ledgers:
                worker.close(in_haste=not self._is_whole)
        if self._error is not None:
            raise self._error
        return self.summary()

    def stop(self, why: str = "stopped") -> None:
        """End the run soon; what waits is counted as dropped. Safe from any thread and from signals' exceptions."""
        if self._stop.is_set():
            return
        self._why = why
        self._stop.set()
        for reader in self.readers:
            reader.stop()
        with self.lock:
            self.lock.notify_all()

    def summary(self) -> Summary:
        """The counters and states so far."""
        with self.lock:
            sources = [reader.summary() for reader in self.readers]
        sinks, wall_s = [worker.summary() for worker in self.workers], time.monotonic() - self._started
        was_cut = self._stop.is_set() and not self._is_whole
        stopped = NO_SINK if self._is_unheard else self._why if was_cut else None
        percentiles = self.stages.percentiles()
        return Summary(self.run_id, sources, sinks, wall_s, self.n_faces, percentiles, stopped, self._n_done)

    @property
    def _is_unheard(self) -> bool:
        return self._needs_sinks and bool(self.workers) and all(worker.has_failed for worker in self.workers)

    @property
    def reading(self) -> list[Reader]:
        """The readers of the sources that are open."""
        return [reader for reader, _ in list(self._open)]

    @property
    def is_healthy(self) -> bool:
        """Whether some source gives frames."""
        return any(reader.state in LIVE_STATES for reader in self.reading)

    def ages_ms(self) -> dict[str, float]:
        """The age of each live source's latest result."""
        return dict(self._ages_ms)

    def _tick(self) -> None:
        for reader in self._live:
            reader.watch()
        limit = self._config.max_seconds
        if limit is not None and time.monotonic() - self._started >= limit:
            self.stop("time limit")
        if self._config.fail_fast and any(reader.failure is not None for reader in self.readers):
            self.stop("another source failed")
        if self._is_unheard:
            self.stop(NO_SINK)
        if self._on_tick is not None:
            self._on_tick(self)

    def _infer(self) -> None:
        try:
            while self._open:
                batch = self._next_batch()
                if batch:
                    self._process(batch)
                for reader, scene in list(self._open):
                    if self._stop.is_set() or (reader.is_over and len(reader.buffer) == 0):
                        self._close(reader, scene)
        except BaseException as error:
            self._error = error
            self.stop("inference failed")

    def _next_batch(self) -> list[tuple[Reader, Scene, Queued]]:
        """At most one frame of each source; waits a moment where there is none."""
        with self.lock:
            batch = self._take()
            if not batch and not self._stop.is_set() and not any(reader.is_over for reader, _ in self._open):
                self.lock.wait(TICK_S)
                batch = self._take()
        return batch

    def _take(self) -> list[tuple[Reader, Scene, Queued]]:
        if self._stop.is_set():
            return []
        taken = ((reader, scene, reader.buffer.take()) for reader, scene in self._open)
        return [(reader, scene, queued) for reader, scene, queued in taken if queued is not None]

    def _process(self, batch: list[tuple[Reader, Scene, Queued]]) -> None:
        found, crops = [], []
        for reader, scene, queued in batch:
            if queued.epoch != scene.epoch:
                self._end_epoch(reader, scene, queued.epoch)
            with self.stages.timed("detect"):
                tracked = scene.find(queued.frame)
            with self.stages.timed("crop"):
                crops.append(scene.crops(queued.frame.image, tracked))
            found.append(tracked)
        with self.stages.timed("classify"):
            inputs = np.concatenate(crops)
            probs = probs_of(inputs, self._model)
        start = 0
        for (reader, scene, queued), tracked in zip(batch, found, strict=True):
            rows = slice(start, start + len(tracked))
            start = rows.stop
            age_ms = self._age_ms(reader.address, queued)
            result = scene.conclude(queued.frame, tracked, inputs[rows], probs[rows], age_ms)
            self.n_faces += len(tracked)
            reader.buffer.done()
            self._give(Output(result.records(), result))

    def _age_ms(self, address: Address, queued: Queued) -> float | None:
        if not address.is_live:
            return None
        age_ms = 1000 * (time.monotonic() - queued.arrived_s + queued.age_s)
        self._ages_ms[address.name] = age_ms
        self.stages.add("age", age_ms)
        return age_ms

    def _end_epoch(self, reader: Reader, scene: Scene, next_epoch: int) -> None:
        epoch = scene.epoch
        records = event_records(scene.end(next_epoch), reader.address.name, epoch, reader.last_clock)
        if records:
            self._give(Output(records))

    def _prepare(self, reader: Reader) -> None:
        """Make ready for a source, which is not read yet."""
        detector = self._detectors.pop() if self._detectors else open_detector(self._config, "video")
        self._completion.begin(reader.address.name)
        self._open.append((reader, Scene(detector, self._model.card, self._config)))

    def _close(self, reader: Reader, scene: Scene) -> None:
        """End a source; after a file the next one begins."""
        self._open.remove((reader, scene))
        self._detectors.append(scene.detector)
        reader.buffer.discard()
        self._end_epoch(reader, scene, scene.epoch)
        reader.finish(self._why if self._stop.is_set() else None)
        if reader.address.is_file and self._waiting and not self._stop.is_set():
            following = self._waiting.popleft()
            self._prepare(following)
            following.start()

    def _tell(self, state: State) -> None:
        if state.complete:
            self._completion.conclude(state, may_wait=self._may_wait)
        else:
            self._give(Output((state,)))

    def _give(self, output: Output) -> None:
        may_wait = self._may_wait
        for worker in self.workers:
            worker.put(output, may_wait=may_wait)

    @property
    def _may_wait(self) -> bool:
        """Whether nothing is lost where sinks make us wait."""
        return not self._stop.is_set() and all(reader.buffer.policy == "lossless" for reader in self.reading)


class StageTimes:
    """The latest times of each stage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms: dict[str, deque[float]] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time the body."""
        start = time.perf_counter()
        yield
        self.add(stage, 1000 * (time.perf_counter() - start))

    def add(self, stage: str, ms: float) -> None:
        """Note one time."""
        with self._lock:
            self._ms.setdefault(stage, deque(maxlen=WINDOW)).append(ms)

    def percentiles(self) -> dict[str, StageTime]:
        """What each stage takes."""
        with self._lock:
            times = {stage: np.array(values) for stage, values in self._ms.items()}
        return {s: StageTime(*(round(float(p), 3) for p in np.percentile(ms, (50, 99)))) for s, ms in times.items()}
