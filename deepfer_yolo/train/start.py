"""Which network a run starts from, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepfer_yolo.config import TrainConfig, find_preset
from deepfer_yolo.errors import ConfigError, TrainingError
from deepfer_yolo.runtime.modelfile import DEFAULT, by_name
from deepfer_yolo.yolo import ClassificationModel, build_model, load_checkpoint, remember, trained_hashes, transfer

Say = Callable[[str], None]


def named_model(config: TrainConfig) -> str:
    """What `model` means: a checkpoint's path where it is one or a shipped model's name, else the name or yaml of an architecture."""
    return str(by_name(Path(config.model or DEFAULT), ".pt"))


def starting_model(config: TrainConfig, labels: tuple[str, ...], say: Say) -> ClassificationModel:
    """The network to train, by `model` and `pretrained`; what it starts from is said through `say`.

    Raises ConfigError for an unknown name, ModelError for a file that cannot be used and TrainingError where nothing of `pretrained` fits.
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
        raise ConfigError(f"the teacher {path} knows {', '.join(names)}, not {', '.join(labels)}", "use a teacher of the same labels")
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
        raise TrainingError(f"{path}: its architecture cannot be built again: {type(error).__name__}: {error}") from None


def _take(source: ClassificationModel, model: ClassificationModel, labels: tuple[str, ...], path: Path, say: Say) -> None:
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
        raise TrainingError(f"no layer of {path} matches the model: not one of {total} has its name and shape", "name another --pretrained")
    fresh = "" if matched == total else f"; {total - matched} fresh" + ("" if names == labels else " (the head: its labels differ)")
    say(f"{path}: {matched} of {total} layers taken as the start{fresh}")
