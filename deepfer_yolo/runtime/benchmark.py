"""Latency, throughput and memory of model files: each in a child process of its own, taking turns round by round."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.records import Json, JsonValue, without_none
from deepfer_yolo.runtime.arithmetic import OwnChoice, SignedActivations, own_choice, signed_activations
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.child_process import Child, Message, answer_parent
from deepfer_yolo.runtime.classifier import meet, opened_file
from deepfer_yolo.runtime.golden import ModelFile
from deepfer_yolo.runtime.model_file import is_for_torch, locate, n_bytes
from deepfer_yolo.runtime.preprocess import to_input

if TYPE_CHECKING:
    from deepfer_yolo.config import BenchmarkConfig

OPENER = "deepfer_yolo.runtime.classifier:Classifier"
"""`module:function` that opens a model in the child."""
SOURCE_PX = 48
"""Side of the image whose resize is timed: FER2013's."""


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """Calls with `batch` images each; `speed` is how many times faster than the baseline, with its range."""

    batch: int
    n_calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    pictures_per_s: float
    speed: float | None = None
    speed_range: tuple[float, float] | None = None

    def to_json(self) -> Json:
        """The figures; without `speed` where there is nothing to compare with."""
        return without_none(self)


@dataclass(slots=True)
class Measured:
    """One model's figures; `error` says why there are none.

    `times_ms` maps a batch size to milliseconds a call, one float64 array (calls,) a round.
    """

    model: str
    name: str = ""
    precision: str = ""
    provider: str = ""
    n_bytes: int = 0
    error: str | None = None
    start_s: float = 0.0
    open_ms: float = 0.0
    first_ms: float = 0.0
    resize_ms: float = 0.0
    peak_mb: float = 0.0
    times_ms: dict[int, list[NDArray[np.float64]]] = field(default_factory=dict)
    own_choice: OwnChoice | None = None
    signed: SignedActivations | None = None

    def medians_ms(self, batch: int) -> NDArray[np.float64]:
        """Milliseconds a call, the median of each round."""
        return np.median(self.times_ms[batch], axis=1)

    def batches(self, baseline: Measured) -> list[BatchFigures]:
        """The figures of each batch size; speeds are medians over rounds of the ratio of medians to `baseline`."""
        found = []
        for batch, rounds in self.times_ms.items():
            times = np.array(rounds)
            p50, p90, p99 = (round(float(np.percentile(times, q)), 4) for q in (50, 90, 99))
            figures = BatchFigures(batch, times.size, p50, p90, p99, round(batch / float(np.median(times)) * 1000, 1))
            if baseline.error is None:
                speeds = (baseline.medians_ms(batch) / self.medians_ms(batch)).tolist()
                low, middle, high = (round(value, 3) for value in (min(speeds), median(speeds), max(speeds)))
                figures = replace(figures, speed=middle, speed_range=(low, high))
            found.append(figures)
        return found

    def to_json(self, baseline: Measured) -> Json:
        """All figures, of a model that failed its error."""
        keys = ("model", "name", "precision", "provider", "n_bytes", "error")
        shown: dict[str, JsonValue] = {key: getattr(self, key) for key in keys}
        if self.error is not None:
            return shown
        figures = ("start_s", "open_ms", "first_ms", "resize_ms", "peak_mb")
        shown |= {key: round(getattr(self, key), 4) for key in figures}
        shown["batches"] = [batch.to_json() for batch in self.batches(baseline)]
        notes = {"own_choice": self.own_choice, "signed_activations": self.signed}
        return shown | {key: note.to_json() for key, note in notes.items() if note is not None}


def benchmark(
    models: Sequence[Path], config: BenchmarkConfig, opener: str = OPENER, tick: Callable[[], None] = lambda: None
) -> list[Measured]:
    """Measure `models` side by side; a model that fails, hangs or crashes keeps its place with an error.

    `tick` is called after each round.
    """
    with ExitStack() as children:
        subjects = [_Subject(path, config) for path in models]
        for subject in subjects:
            children.callback(subject.close)
            subject.guarded(lambda subject=subject: subject.start(opener))  # type: ignore[misc]
        alive = [subject for subject in subjects if subject.found.error is None]
        for turn in range(config.rounds):
            # Who goes first changes every round, so that a slow spell does not always meet the same model.
            first = turn % max(1, len(alive))
            for subject in alive[first:] + alive[:first]:
                if subject.found.error is None:
                    subject.guarded(subject.take_turn)
            tick()
        for subject in alive:
            if subject.found.error is None:
                subject.guarded(lambda subject=subject: subject.note(subjects[0].found))  # type: ignore[misc]
    return [subject.found for subject in subjects]


class _Subject:
    """One model that is being measured, in its child."""

    def __init__(self, path: Path, config: BenchmarkConfig) -> None:
        self.found = Measured(str(path), times_ms={batch: [] for batch in config.batch})
        self._path, self._config = path, config
        self._child: Child | None = None

    def guarded(self, step: Callable[[], None]) -> None:
        """Do `step`; its error becomes the model's."""
        try:
            step()
        except DeepferError as error:
            self.found.error = error.message

    def start(self, opener: str) -> None:
        """Start the child and let it open the model."""
        file, provider = locate(self._path), self._config.provider
        self.found.n_bytes = n_bytes(file)
        if not is_for_torch(file):
            # Here, so that it is no part of the measured start.
            meet(opened_file(file, provider), provider, self._config.timeout_s)
        began = time.perf_counter()
        self._child = Child(__name__, str(self._path), self._config.timeout_s)
        self._ask({"opener": opener, "path": str(self._path), "provider": provider, "threads": self._config.threads})
        self.found.start_s = time.perf_counter() - began

    def take_turn(self) -> None:
        """One round: the calls of each batch."""
        for batch, times in self.found.times_ms.items():
            answer = self._ask({"batch": batch, "calls": self._config.calls})
            times.append(np.array(answer.head["times_ms"]))

    def note(self, baseline: Measured) -> None:
        """What OpenVINO would choose by itself, and why an int8 file is no faster than the first model."""
        found, batch = self.found, self._config.batch[-1]
        question: Json = {"note": found.provider, "batch": batch, "calls": self._config.calls}
        if found.provider == "openvino" and (said := self._ask(question).head["note"]):
            found.own_choice = OwnChoice(**said)
        is_slow = baseline.error is None and float(np.median(baseline.medians_ms(batch) / found.medians_ms(batch))) < 1
        is_int8 = found.provider == "cpu" and found.precision == "int8"
        if is_slow and is_int8 and (said := self._ask(question).head["note"]):
            found.signed = SignedActivations(**said)

    def _ask(self, question: Json) -> Message:
        assert self._child is not None
        answer = self._child.ask(question)
        for key in answer.head.keys() - {"times_ms", "note"}:
            setattr(self.found, key, answer.head[key])
        return answer

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()


class _Measurement:
    """The child's part: a model and what has been asked of it."""

    def __init__(self) -> None:
        self._model: ModelFile | None = None
        self._random = np.random.RandomState(0)
        self._crops: dict[int, NDArray[np.uint8]] = {}
        self._threads = 1

    def answer(self, question: Message) -> Json:
        """Open the model at first, then time calls of one batch, or look at its arithmetic."""
        said = question.head
        if self._model is None:
            self._threads = int(said["threads"])
            return self._open(said["opener"], Path(said["path"]), said["provider"], said["threads"])
        batch, model = said["batch"], self._model
        if "note" in said:
            look = own_choice if said["note"] == "openvino" else signed_activations
            found = look(model.path, self._threads, batch, said["calls"])
            return {"note": None if found is None else found.to_json()}
        if batch not in self._crops:
            self._crops[batch] = self._paint(model, batch)
            model.predict(self._crops[batch])
        crops = self._crops[batch]
        return {
            "times_ms": [_time_ms(lambda: model.predict(crops)) for _ in range(said["calls"])],
            "peak_mb": _peak_mb(),
        }

    def _open(self, opener: str, path: Path, provider: str, threads: int) -> Json:
        module, function = opener.split(":")
        began = time.perf_counter()
        classifier = getattr(importlib.import_module(module), function)(path, provider=provider, threads=threads)
        open_ms = (time.perf_counter() - began) * 1000
        self._model, card = classifier, classifier.card
        image = self._paint(classifier, 1)
        return {
            "name": card.name,
            "precision": card.precision,
            "provider": classifier.provider,
            "open_ms": open_ms,
            "first_ms": _time_ms(lambda: classifier.predict(image)),
            "resize_ms": _time_resize(card.input),
        }

    def _paint(self, model: Model, n: int) -> NDArray[np.uint8]:
        size = model.card.input.size
        return self._random.randint(0, 256, (n, size, size, 3)).astype(np.uint8)


def _time_ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _time_resize(spec: InputSpec) -> float:
    """Milliseconds that one small image takes from array to input, the median of 50."""
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
    answer_parent(_Measurement().answer)
