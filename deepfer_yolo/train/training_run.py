"""All that one run is made of: recipe, data, networks, and the state that it goes on from."""

from __future__ import annotations

import hashlib
import importlib
import io
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.data.corrected import corrections_line
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.leaks import Hashes, LeakGuard
from deepfer_yolo.errors import TrainingError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.records import Json
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.train.decoded_split import DecodedSplit, FilePixels
from deepfer_yolo.train.device import free_memory, use_bf16
from deepfer_yolo.train.splits import open_for_training, read_splits
from deepfer_yolo.train.start import average_in, named_model, open_teachers, starting_model
from deepfer_yolo.yolo import ClassificationModel, count_parameters, remember, trained_hashes

KEPT = 2
_NAME = re.compile(r"state-(\d{5})-(\d{7})-([0-9a-f]{16})\.pt")

Weights = dict[str, torch.Tensor]
Numbers = dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """All that a run needs to go on, at `batch` of `epoch`, as if it had not been interrupted; full precision."""

    epoch: int
    batch: int
    fingerprint: str
    """Of the data set that the run was begun with."""
    leaks: Json
    trained_hashes: torch.Tensor | None
    model: Weights
    ema: Weights
    updates: int
    optimizer: dict[str, object]
    best_fitness: float | None
    stopper: Numbers
    torch_rng: torch.Tensor
    plateau: Numbers
    spent_s: float
    epochs: int
    done: bool
    """Whether the last epoch is over, and only best.pt has to be measured."""
    corrections: str = ""
    """SHA-256 of the file of corrections that the run was begun with; empty without one."""

    @property
    def place(self) -> str:
        """Where the run goes on, in words."""
        return "its last epoch, to measure it" if self.done else f"epoch {self.epoch + 1}, batch {self.batch + 1}"

    def save(self, folder: Path) -> Path:
        """Write the state, delete all but the two newest in `folder`, and return its path."""
        buffer = io.BytesIO()
        torch.save({field.name: getattr(self, field.name) for field in fields(self)}, buffer)
        content = buffer.getvalue()
        path = folder / f"state-{self.epoch:05d}-{self.batch:07d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
        write_atomic(path, content)
        for old, _ in list(_states(folder))[KEPT:]:
            old.unlink(missing_ok=True)
        return path

    @classmethod
    def read(cls, content: bytes | None) -> Self | None:
        """The state that a file holds; None for None."""
        if content is None:
            return None
        return cls(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def newest_state(folder: Path) -> bytes | None:
    """The newest file of a state in `folder` whose checksum holds; None where there is none."""
    for path, checksum in _states(folder):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest().startswith(checksum):
            return content
    return None


def drop_states(folder: Path) -> None:
    """Delete all states of a run that has finished."""
    for path, _ in _states(folder):
        path.unlink(missing_ok=True)


def _states(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every state in `folder` with the beginning of its SHA-256, the newest first."""
    for path in sorted(folder.glob("state-*.pt"), reverse=True):
        if match := _NAME.fullmatch(path.name):
            yield path, match[3]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRun:
    """What a run learns from and with; opened before its folder is made, so that bad input leaves no folder behind."""

    config: TrainConfig
    dataset: Dataset
    train: DecodedSplit
    val: DecodedSplit
    spec: InputSpec
    """What the network is fed."""
    model: ClassificationModel
    teachers: tuple[ClassificationModel, ...]
    leaks: Json
    """What start and teachers have learned of the held-out splits, for the record."""
    notes: tuple[str, ...]
    """What there is to say of the start."""
    state: RunState | None
    bf16: bool
    """Whether the forward pass runs in bfloat16."""
    read_s: float

    @classmethod
    def open(cls, config: TrainConfig, state: RunState | None = None) -> Self:
        """Read everything that `config` names; a run that goes on from `state` is given what it knew.

        Raises DatasetError (LeakError where the start has learned held-out images), ConfigError, ModelError, or
        TrainingError where the data set is not the one that the run was begun with.
        """
        dataset = open_for_training(config)
        if state is not None and state.corrections != corrections_of(config, dataset):
            raise TrainingError(
                f"{config.corrections} has changed since the run began", "put the file back, or start a new run"
            )
        if state is not None and state.fingerprint != dataset.fingerprint:
            raise TrainingError(f"the data set {dataset.root} has changed since the run began", "start a new run")
        notes = first_notes(config, dataset)
        torch.manual_seed(config.seed)  # before the network draws its first weights
        start = config if state is None else config.model_copy(update={"pretrained": None, "soup": ()})
        model = starting_model(start, dataset.labels, notes.append)
        soup = average_in(start, model, dataset.labels, notes.append)
        began = time.perf_counter()
        # The first optimiser of a process imports torch's compiler, which takes two seconds: now, while files are read.
        importing = threading.Thread(target=importlib.import_module, args=("torch._dynamo",), daemon=True)
        importing.start()
        teachers = open_teachers(config, dataset.labels)
        train, val, spec = read_splits(dataset, config)
        read_s = time.perf_counter() - began
        importing.join()  # two threads inside its circle of imports see modules half made (torch 2.11)
        if state is None:
            leaks, lines = check_start(config, dataset, val.hashes, model, soup, teachers)
            notes += lines
        else:
            leaks = state.leaks
            remember(model, None if state.trained_hashes is None else state.trained_hashes.numpy().view(np.uint64))
        # Every checkpoint carries what is learned now, and what start and teachers had learned.
        remember(model, trained_hashes(model), *map(trained_hashes, (*soup, *teachers)), train.hashes)
        bf16 = use_bf16(config)
        return cls(config, dataset, train, val, spec, model, teachers, leaks, tuple(notes), state, bf16, read_s)

    @property
    def precision(self) -> str:
        """bf16 or fp32."""
        return "bf16" if self.bf16 else "fp32"

    def describe(self) -> list[str]:
        """Lines that say what is about to be trained."""
        config = self.config
        lines = [
            f"{len(self.train):,} train and {len(self.val):,} val images, {self.spec.colour}, "
            f"{count_parameters(self.model):,} parameters, {config.device}, {self.precision}, "
            f"{config.threads} threads; read in {self.read_s:.1f} s"
        ]
        if self.teachers and config.teacher_view == "still":
            lines.append("the teachers answer each training image once, before the first epoch")
        if isinstance(self.train.pixels, FilePixels):
            why = f"since {free_memory() / 1e9:.1f} GB of free memory would not hold them"
            why = "as the recipe asks" if config.cache == "files" else why
            lines.append(f"images are decoded from their files for every batch, {why}")
        return lines


def first_notes(config: TrainConfig, dataset: Dataset) -> list[str]:
    """What there is to say before anything is opened: corrections, and keys that nothing comes of."""
    return [f"corrected: {corrections_line(one)}" for one in dataset.corrections] + config.idle_keys()


def corrections_of(config: TrainConfig, dataset: Dataset) -> str:
    """SHA-256 of the file of corrections that `config` names; empty without one."""
    return "" if config.corrections is None else dataset.corrections[-1].sha256


def check_start(
    config: TrainConfig,
    dataset: Dataset,
    val: Hashes | None,
    model: ClassificationModel,
    soup: Sequence[ClassificationModel],
    teachers: Sequence[ClassificationModel],
) -> tuple[Json, list[str]]:
    """What the start, the soup and the teachers have learned of val and test: the record of the run, and lines to show;
    see `LeakGuard.check`.

    A start from scratch is not in the record. Raises LeakError for a leak, unless the recipe allows it.
    """
    models: dict[str, Hashes | None] = {}
    start = config.pretrained or named_model(config)
    if config.pretrained is not None or start.endswith(".pt"):
        models[f"the start {Path(start).name}"] = trained_hashes(model)
    for path, member in zip(config.soup, soup, strict=True):
        models[f"the checkpoint {path} of the soup"] = trained_hashes(member)
    for path, teacher in zip(config.teacher, teachers, strict=True):
        models[f"the teacher {path}"] = trained_hashes(teacher)
    whole = dataset if config.exclude is None else open_for_training(config.model_copy(update={"exclude": None}))
    guard = LeakGuard(dataset, whole, {} if val is None else {"val": val})
    learned = guard.check(models, dataset.splits, allow=config.allow_leak)
    silent = [name for name, known in models.items() if known is None]
    unseen = "does not say which images it has learned, so leaks from it cannot be seen"
    return learned.to_json(), [*learned.lines, *(f"{name} {unseen}" for name in silent)]
