"""The engine: reader threads, one inference thread over all sources, and sinks with queues of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.buffers import Waiting
from deepfer_yolo.stream.reader import Feed, FeedRules
from deepfer_yolo.stream.records import Output, State, event_record, result_records, state_record
from deepfer_yolo.stream.scene import Scene, SceneRules
from deepfer_yolo.stream.sinks.worker import SinkWorker
from deepfer_yolo.stream.status import SourceSummary, Stages, Summary

TICK_S = 0.1
STOP_S = 0.8
"""How long a stopped run waits for its readers; one that is still connecting is left behind."""


@dataclass(frozen=True, slots=True)
class RunRules:
    """How the whole run behaves; `feed` and `scene` hold for each source."""

    feed: FeedRules
    scene: SceneRules
    max_seconds: float | None = None
    fail_fast: bool = False
    tick_s: float = TICK_S


class Pipeline:
    """One run over some sources. `detectors` holds one detector a source; `on_tick` is called every `tick_s` in the
    caller's thread.

    >>> summary = Pipeline(addresses, classifier, [detector], workers, RunRules(FeedRules(),
    SceneRules(min_score))).run()
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        model: Model,
        detectors: Sequence[Detector],
        workers: Sequence[SinkWorker],
        rules: RunRules,
        on_tick: Callable[[Pipeline], None] | None = None,
    ) -> None:
        self.lock = threading.Condition()
        self.stages = Stages()
        self.workers = list(workers)
        self._model = model
        self._rules = rules
        self._on_tick = on_tick
        self._stop = threading.Event()
        self._why = "stopped"
        self._error: BaseException | None = None
        self._started = time.monotonic()
        self.feeds = [Feed(address, rules.feed, self.lock, self._tell) for address in addresses]
        self._scenes = [Scene(detector, model.card, rules.scene) for detector in detectors]
        self._open = set(range(len(addresses)))
        self.n_faces = 0
        self._ages_ms: dict[str, float] = {}

    def run(self) -> Summary:
        """Run to the end of all sources, a limit or `stop`; returns the counters.

        An unexpected error of the model is raised here.
        """
        self._started = time.monotonic()
        for worker in self.workers:
            worker.start(self._tell, self._source_names())
        for feed in self.feeds:
            feed.start()
        inference = threading.Thread(target=self._infer_guarded, name="inference", daemon=True)
        inference.start()
        was_cut = True
        try:
            while inference.is_alive():
                inference.join(self._rules.tick_s)
                self._tick()
            was_cut = self._stop.is_set()
        finally:
            self.stop("stopped")
            inference.join(5.0)
            deadline = time.monotonic() + STOP_S
            for feed in self.feeds:
                feed.join(max(0.0, deadline - time.monotonic()))
            for worker in self.workers:
                worker.close(in_haste=was_cut)
        if self._error is not None:
            raise self._error
        return self.summary()

    def stop(self, why: str = "stopped") -> None:
        """End the run soon; what waits is counted as dropped.

        Safe from any thread and from signal handlers' exceptions.
        """
        if self._stop.is_set():
            return
        self._why = why
        self._stop.set()
        for feed in self.feeds:
            feed.stop()
        with self.lock:
            self.lock.notify_all()

    def summary(self) -> Summary:
        """The counters and states so far."""
        with self.lock:
            sources = [SourceSummary.of(feed) for feed in self.feeds]
        return Summary(
            sources,
            [worker.summary() for worker in self.workers],
            time.monotonic() - self._started,
            self.n_faces,
            self.stages.percentiles(),
        )

    @property
    def is_healthy(self) -> bool:
        """Whether some source gives pictures."""
        return any(feed.state in ("live", "frozen") for feed in self.feeds)

    def ages_ms(self) -> dict[str, float]:
        """The age of each live source's latest result."""
        return dict(self._ages_ms)

    def _source_names(self) -> list[str]:
        return [feed.address.name for feed in self.feeds]

    def _tick(self) -> None:
        for feed in self.feeds:
            feed.watch()
        limit = self._rules.max_seconds
        if limit is not None and time.monotonic() - self._started >= limit:
            self.stop("time limit")
        if self._rules.fail_fast and any(feed.failure is not None for feed in self.feeds):
            self.stop("another source failed")
        if self.workers and all(worker.has_failed for worker in self.workers):
            self.stop("no sink is left")
        if self._on_tick is not None:
            self._on_tick(self)

    def _infer_guarded(self) -> None:
        try:
            self._infer()
        except BaseException as error:
            self._error = error
            self.stop("inference failed")

    def _infer(self) -> None:
        while self._open:
            batch = self._next_batch()
            if batch:
                self._process(batch)
            for index in sorted(self._open):
                self._close_if_over(index)

    def _next_batch(self) -> list[tuple[int, Waiting]]:
        """At most one picture of each source; waits a moment where there is none."""
        with self.lock:
            batch = self._take()
            if not batch and not self._stop.is_set() and not any(self.feeds[i].is_over for i in self._open):
                self.lock.wait(TICK_S)
                batch = self._take()
        return batch

    def _take(self) -> list[tuple[int, Waiting]]:
        if self._stop.is_set():
            return []
        taken = ((index, self.feeds[index].buffer.take()) for index in sorted(self._open))
        return [(index, waiting) for index, waiting in taken if waiting is not None]

    def _process(self, batch: list[tuple[int, Waiting]]) -> None:
        found, crops = [], []
        for index, waiting in batch:
            scene = self._scenes[index]
            if waiting.epoch != scene.epoch:
                self._end_epoch(index, waiting.epoch)
            with self.stages.timed("detect"):
                tracked = scene.find(waiting)
            with self.stages.timed("crop"):
                crops += scene.crops(waiting.frame.image, tracked)
            found.append(tracked)
        size = self._model.card.input.size
        inputs = np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8)
        with self.stages.timed("classify"):
            probs = self._model.predict(inputs) if crops else np.zeros((0, len(self._model.card.labels)), np.float32)
        start = 0
        for (index, waiting), tracked in zip(batch, found, strict=True):
            rows = slice(start, start + len(tracked))
            start = rows.stop
            result = self._scenes[index].conclude(
                waiting, tracked, inputs[rows], probs[rows], self._age_ms(index, waiting)
            )
            self.n_faces += len(tracked)
            self.feeds[index].buffer.done()
            self._give(Output(result_records(result), result))

    def _age_ms(self, index: int, waiting: Waiting) -> float | None:
        feed = self.feeds[index]
        if not feed.address.is_live:
            return None
        age_ms = 1000 * (time.monotonic() - waiting.arrived_s + waiting.age_s)
        self._ages_ms[feed.address.name] = age_ms
        self.stages.add("age", age_ms)
        return age_ms

    def _end_epoch(self, index: int, epoch: int) -> None:
        scene, feed = self._scenes[index], self.feeds[index]
        old = scene.epoch
        events = scene.end(epoch)
        if events:
            clock = feed.last_clock
            self._give(Output(tuple(event_record(event, feed.address.name, old, clock) for event in events)))

    def _close_if_over(self, index: int) -> None:
        feed = self.feeds[index]
        if not self._stop.is_set() and (not feed.is_over or len(feed.buffer) > 0):
            return
        self._open.discard(index)
        feed.buffer.discard()
        self._end_epoch(index, self._scenes[index].epoch)
        feed.finish(self._why if self._stop.is_set() else None)

    def _tell(self, state: State) -> None:
        self._give(Output((state_record(state),)))

    def _give(self, output: Output) -> None:
        may_wait = not self._stop.is_set() and all(feed.buffer.policy == "lossless" for feed in self.feeds)
        for worker in self.workers:
            worker.put(output, may_wait=may_wait)
