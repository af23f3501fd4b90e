"""Which network a run starts from, and how it says so."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.leaks import Hashes, LeakGuard
from deepfer_yolo.errors import ConfigError, TrainingError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.presets import find_preset
from deepfer_yolo.runtime.model_file import DEFAULT, by_name
from deepfer_yolo.train.decoded_split import Faces
from deepfer_yolo.train.splits import open_for_training
from deepfer_yolo.yolo import (
    TRAINED_HASHES,
    ClassificationModel,
    build_model,
    load_checkpoint,
    remember,
    trained_hashes,
    transfer,
)

Say = Callable[[str], None]


def named_model(config: TrainConfig) -> str:
    """What `model` means: a checkpoint's path where it is one or a shipped model's name, else the name or yaml of an
    architecture.
    """
    return str(by_name(Path(config.model or DEFAULT), ".pt"))


def starting_model(config: TrainConfig, labels: tuple[str, ...], say: Say) -> ClassificationModel:
    """The network to train, by `model` and `pretrained`; what it starts from is said through `say`.

    Raises ConfigError for an unknown name, ModelError for a file that cannot be used and TrainingError where nothing of
    `pretrained` fits.
    """
    spec = named_model(config)
    if spec.endswith(".pt"):
        checkpoint = load_checkpoint(Path(spec))
        model = _rebuild(checkpoint, labels, Path(spec))
        _take(checkpoint, model, labels, Path(spec), say)
    else:
        model = build_model(_own_yaml(spec), len(labels))
        if config.pretrained is None:
            say(f"{spec}: training from scratch (no --pretrained)")
    if config.pretrained is not None:
        _take(load_checkpoint(Path(config.pretrained)), model, labels, Path(config.pretrained), say)
    model.names = dict(enumerate(labels))
    return model


def open_teachers(config: TrainConfig, labels: tuple[str, ...]) -> tuple[ClassificationModel, ...]:
    """The networks whose answers are learned as well, frozen. Raises ConfigError where the labels of one are others."""
    return tuple(_open_teacher(str(by_name(Path(path), ".pt")), labels) for path in config.teacher)


def _open_teacher(path: str, labels: tuple[str, ...]) -> ClassificationModel:
    teacher = load_checkpoint(Path(path))
    names = tuple(str(teacher.names[index]) for index in range(len(teacher.names)))
    if names != labels:
        raise ConfigError(
            f"the teacher {path} knows {', '.join(names)}, not {', '.join(labels)}", "use a teacher of the same labels"
        )
    remember(teacher, trained_hashes(teacher, Path(path)))
    return teacher.requires_grad_(False)


def _own_yaml(spec: str) -> str:
    """The path of one of our model yamls for its bare name; anything else unchanged."""
    try:
        return spec if spec.endswith((".yaml", ".yml")) else str(find_preset("models", spec))
    except ConfigError:
        return spec


def _rebuild(checkpoint: ClassificationModel, labels: tuple[str, ...], path: Path) -> ClassificationModel:
    layers = {**checkpoint.yaml, "nc": len(labels)}
    try:
        return ClassificationModel(layers, nc=len(labels), ch=3, verbose=False)
    except Exception as error:  # the parser raises whatever the layer's constructor raises
        raise TrainingError(
            f"{path}: its architecture cannot be built again: {type(error).__name__}: {error}"
        ) from None


def _take(
    source: ClassificationModel, model: ClassificationModel, labels: tuple[str, ...], path: Path, say: Say
) -> None:
    names = tuple(str(source.names[index]) for index in range(len(source.names)))
    matched, total = transfer(source, model)
    remember(model, trained_hashes(model), trained_hashes(source, path))
    head = model.model[-1].linear
    same_shape = source.model[-1].linear.weight.shape == head.weight.shape
    if same_shape and names != labels:
        # A head for other labels, or the same in another order, is a wrong start that looks like a right one.
        head.reset_parameters()
        matched -= 1
    if matched <= 0:
        raise TrainingError(
            f"no layer of {path} matches the model: not one of {total} has its name and shape",
            "name another --pretrained",
        )
    fresh = (
        ""
        if matched == total
        else f"; {total - matched} fresh" + ("" if names == labels else " (the head: its labels differ)")
    )
    say(f"{path}: {matched} of {total} layers taken as the start{fresh}")


KEPT = 2
_NAME = re.compile(r"state-(\d{5})-(\d{7})-([0-9a-f]{16})\.pt")


def save_state(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state`, which holds `epoch` and `batch`, and delete all but the two newest; return its path."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = folder / f"state-{state['epoch']:05d}-{state['batch']:07d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    write_atomic(path, content)
    for old in _states(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest state in `folder` whose checksum holds; None where there is none."""
    for path in _states(folder):
        match = _NAME.fullmatch(path.name)
        content = path.read_bytes()
        if match and hashlib.sha256(content).hexdigest().startswith(match[3]):
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return state
    return None


def drop_states(folder: Path) -> None:
    """Delete all states of a run that has finished."""
    for path in _states(folder):
        path.unlink(missing_ok=True)


def _states(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("state-*.pt") if _NAME.fullmatch(path.name)), reverse=True)


def check_start(
    config: TrainConfig,
    dataset: Dataset,
    val: Faces,
    model: ClassificationModel,
    teachers: tuple[ClassificationModel, ...],
) -> tuple[dict[str, Any], list[str]]:
    """What the start and the teachers have learned of val and test: the record of the run, and lines to show; see
    `LeakGuard.check`.

    A start from scratch is not in the record. Raises LeakError for a leak, unless the recipe allows it.
    """
    models: dict[str, Hashes | None] = {}
    start = config.pretrained or named_model(config)
    if start.endswith(".pt"):
        models[f"the start {Path(start).name}"] = trained_hashes(model)
    models |= {
        f"the teacher {Path(path).name}": trained_hashes(teacher)
        for path, teacher in zip(config.teacher, teachers, strict=True)
    }
    whole = dataset if config.exclude is None else open_for_training(config.model_copy(update={"exclude": None}))
    guard = LeakGuard(dataset, whole, {} if val.hashes is None else {"val": val.hashes})
    learned = guard.check(models, dataset.splits, allow=config.allow_leak)
    silent = [
        f"{name} does not say which pictures it has learned, so leaks from it cannot be seen"
        for name, known in models.items()
        if known is None
    ]
    return dict(learned.to_json()), [*learned.lines, *silent]


def remember_all(model: ClassificationModel, teachers: tuple[ClassificationModel, ...], train: Faces) -> None:
    """Let `model`, and so every checkpoint of it, carry the pictures it learns now, those its start has learned and
    those of its teachers.
    """
    remember(model, trained_hashes(model), *map(trained_hashes, teachers), train.hashes)


def recall(model: ClassificationModel, state: dict[str, Any]) -> dict[str, Any]:
    """Give `model`, built anew for a run that goes on from `state`, what it had learned; returns the run's record of
    `check_start`.
    """
    held = state.get(TRAINED_HASHES)
    remember(model, None if held is None else held.numpy().view(np.uint64))
    return dict(state.get("leaks", {}))
