"""Latency, throughput and memory of model files: each in a child process of its own, all taking turns round by round.

The child: `python -m deepfer_yolo.runtime.benchmark OPENER MODEL PROVIDER THREADS`, where OPENER is `module:function`
and opens the model. It prints one JSON line when it is ready, then one for each JSON line that it reads.
"""

from __future__ import annotations

import functools
import importlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import DeepferError, ModelError
from deepfer_yolo.runtime.backends.registry import needs_contact
from deepfer_yolo.runtime.child_process import ensure_contact
from deepfer_yolo.runtime.model_file import locate, n_bytes

OPENER = "deepfer_yolo.runtime.classifier:Classifier"
SOURCE_PX = 48
"""Side of the picture whose resize is timed: FER2013's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. Each of `rounds` gives every model `calls` calls at every batch size."""

    batches: tuple[int, ...] = (1, 32)
    rounds: int = 7
    calls: int = 20
    threads: int = 1
    provider: str = "cpu"
    timeout_s: float = 120.0


@dataclass(slots=True)
class Measured:
    """One model's figures.

    `times_ms` maps a batch size to milliseconds a call, float64 (rounds, calls); `error` says why there are none.
    """

    model: str
    name: str = ""
    precision: str = ""
    provider: str = ""
    n_bytes: int = 0
    start_s: float = 0.0
    open_ms: float = 0.0
    first_ms: float = 0.0
    resize_ms: float = 0.0
    peak_mb: float = 0.0
    times_ms: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    error: str | None = None

    def summary(self, baseline: Measured | None = None) -> dict[str, Any]:
        """JSON-ready figures; `speed` is how many times faster than `baseline`, the median over rounds of medians."""
        shown = {key: getattr(self, key) for key in ("model", "name", "precision", "provider", "n_bytes", "error")}
        if self.error is not None:
            return shown
        shown |= {
            key: round(getattr(self, key), 4) for key in ("start_s", "open_ms", "first_ms", "resize_ms", "peak_mb")
        }
        shown["batches"] = [self._batch(batch, baseline) for batch in self.times_ms]
        return shown

    def _batch(self, batch: int, baseline: Measured | None) -> dict[str, Any]:
        times = self.times_ms[batch]
        found: dict[str, Any] = {"batch": batch, "n_calls": times.size}
        found |= {f"p{q}_ms": round(float(np.percentile(times, q)), 4) for q in (50, 90, 99)}
        found["pictures_per_s"] = round(batch / float(np.median(times)) * 1000, 1)
        if baseline is not None and baseline.error is None:
            ratios = np.median(baseline.times_ms[batch], axis=1) / np.median(times, axis=1)
            found["speed"] = round(float(np.median(ratios)), 3)
            found["speed_range"] = [round(float(ratios.min()), 3), round(float(ratios.max()), 3)]
        return found


def benchmark(
    models: Sequence[Path], plan: Plan, opener: str = OPENER, tick: Callable[[], None] = lambda: None
) -> list[Measured]:
    """Measure `models` side by side; a model that fails, hangs or crashes keeps its place with an error.

    `tick` is called after each round.
    """
    found = [Measured(str(path)) for path in models]
    children: dict[int, Child] = {}
    try:
        for i, path in enumerate(models):
            _guarded(found[i], lambda i=i, path=path: children.__setitem__(i, _start(path, plan, opener, found[i])))  # type: ignore[misc]
        alive = [i for i in range(len(models)) if found[i].error is None]
        for round_index in range(plan.rounds):
            # Who goes first changes every round, so that a slow spell does not always meet the same model.
            for i in alive[round_index % max(1, len(alive)) :] + alive[: round_index % max(1, len(alive))]:
                if found[i].error is None:
                    _guarded(found[i], lambda i=i: _round(children[i], plan, found[i]))  # type: ignore[misc]
            tick()
        for i in alive:
            if found[i].error is None:
                _guarded(found[i], lambda i=i: setattr(found[i], "peak_mb", children[i].ask({"quit": True})["peak_mb"]))  # type: ignore[misc]
    finally:
        for child in children.values():
            child.close()
    return found


def _guarded(measured: Measured, step: Callable[[], object]) -> None:
    try:
        step()
    except DeepferError as error:
        measured.error = error.message


def _start(path: Path, plan: Plan, opener: str, measured: Measured) -> Child:
    file = locate(path)
    measured.n_bytes = n_bytes(file)
    if needs_contact(file, plan.provider):
        ensure_contact(file, plan.provider)  # here, so that it is no part of the measured start
    began = time.perf_counter()
    child = Child([opener, str(path), plan.provider, str(plan.threads)], str(path), plan.timeout_s)
    try:
        ready = child.read()
    except DeepferError:
        child.close()
        raise
    measured.start_s = time.perf_counter() - began
    for key, value in ready.items():
        setattr(measured, key, value)
    return child


def _round(child: Child, plan: Plan, measured: Measured) -> None:
    for batch in plan.batches:
        times = np.array(child.ask({"batch": batch, "calls": plan.calls})["times_ms"])[None]
        old = measured.times_ms.get(batch)
        measured.times_ms[batch] = times if old is None else np.concatenate([old, times])


class Child:
    """One model in its own process, spoken to in JSON lines; a crash or a silence of `timeout_s` becomes a ModelError."""

    def __init__(self, arguments: list[str], what: str, timeout_s: float) -> None:
        command = [sys.executable, "-m", "deepfer_yolo.runtime.benchmark", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._what, self._timeout_s = what, timeout_s
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._pump, args=(self._process.stdout,), daemon=True).start()

    def _pump(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put("")

    def read(self) -> dict[str, Any]:
        """The next answer."""
        try:
            line = self._lines.get(timeout=self._timeout_s)
        except queue.Empty:
            raise ModelError(f"{self._what}: no answer within {self._timeout_s:.0f} s") from None
        if not line:
            code = self._process.wait()
            end = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with {code}"
            raise ModelError(f"{self._what}: the child process {end}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ModelError(answer["error"])
        return answer

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send one question and wait for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the reason is what `read` finds
        return self.read()

    def close(self) -> None:
        """End the process, however it is."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def main() -> None:
    """The child."""
    opener, path, provider, threads = sys.argv[1:5]
    module, function = opener.split(":")
    try:
        began = time.perf_counter()
        classifier = getattr(importlib.import_module(module), function)(
            Path(path), provider=provider, threads=int(threads)
        )
        open_ms = (time.perf_counter() - began) * 1000
        size = classifier.card.input.size
        random = np.random.RandomState(0)
        began = time.perf_counter()
        classifier.predict(random.randint(0, 256, (1, size, size, 3)).astype(np.uint8))
        first_ms = (time.perf_counter() - began) * 1000
        _say(
            name=classifier.card.name,
            precision=classifier.card.precision,
            provider=classifier.provider,
            open_ms=open_ms,
            first_ms=first_ms,
            resize_ms=_time_resize(classifier.card.input),
        )
        crops: dict[int, NDArray[np.uint8]] = {}
        for line in sys.stdin:
            question = json.loads(line)
            if "quit" in question:
                _say(peak_mb=_peak_mb())
                return
            batch = question["batch"]
            if batch not in crops:
                crops[batch] = random.randint(0, 256, (batch, size, size, 3)).astype(np.uint8)
                classifier.predict(crops[batch])
            call = functools.partial(classifier.predict, crops[batch])
            _say(times_ms=[_time_ms(call) for _ in range(question["calls"])])
    except DeepferError as error:
        _say(error=error.message)


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def _time_ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _time_resize(spec: Any) -> float:
    """Milliseconds that one small picture takes from array to input, the median of 50."""
    from deepfer_yolo.runtime.preprocess import to_input

    image = np.random.RandomState(1).randint(0, 256, (SOURCE_PX, SOURCE_PX, 3)).astype(np.uint8)
    return float(np.median([_time_ms(lambda: to_input(image, spec)) for _ in range(50)]))


def _peak_mb() -> float:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
