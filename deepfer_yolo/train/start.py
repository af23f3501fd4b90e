"""Which network a run starts from, and by which teachers it learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch  # noqa: TID253  (this package exists to run torch)
from torch.nn import functional  # noqa: TID253

from deepfer_yolo.emotions import difference, meeting
from deepfer_yolo.errors import ConfigError, TrainingError, listed
from deepfer_yolo.presets import find_preset
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.model_file import DEFAULT, by_name, card_beside
from deepfer_yolo.yolo import (
    ClassificationModel,
    build_layers,
    build_model,
    labels_of,
    load_checkpoint,
    look_at_one_plane,
    remember,
    trained_hashes,
    transfer,
)

Say = Callable[[str], None]


def named_model(config: TrainConfig) -> str:
    """What `model` means: the path of a checkpoint or of a shipped one, else the name or yaml of an architecture."""
    return str(by_name(Path(config.model or DEFAULT), ".pt"))


def starting_model(config: TrainConfig, labels: tuple[str, ...], say: Say) -> ClassificationModel:
    """The network to train, by `model` and `pretrained`; what it starts from is said through `say`.

    Raises ConfigError for an unknown name, ModelError for a file that cannot be used and TrainingError where nothing of
    `pretrained` fits.
    """
    spec = named_model(config)
    if spec.endswith(".pt"):
        checkpoint = load_checkpoint(Path(spec))
        model = build_layers(checkpoint.yaml, len(labels), Path(spec))
        _take(checkpoint, model, labels, Path(spec), say)
    else:
        model = build_model(_own_yaml(spec), len(labels))
        if config.pretrained is None:
            say(f"{spec}: training from scratch (no --pretrained)")
    if config.pretrained is not None:
        path = by_name(Path(config.pretrained), ".pt")
        _take(load_checkpoint(path), model, labels, path, say)
    if model.yaml.get("colour") == "grey":
        look_at_one_plane(model)
    model.names = dict(enumerate(labels))
    return model


def open_teachers(config: TrainConfig, labels: tuple[str, ...]) -> tuple[ClassificationModel, ...]:
    """The networks whose answers are learned as well, frozen. Raises ConfigError where the labels of one are others."""
    return tuple(_open_teacher(by_name(Path(path), ".pt"), labels) for path in config.teacher)


def average_in(
    config: TrainConfig, model: ClassificationModel, labels: tuple[str, ...], say: Say
) -> tuple[ClassificationModel, ...]:
    """Give `model` the mean, weight by weight, of the checkpoint that it starts from and those of `soup`: a model soup
    (Wortsman et al., 2022). Returns those of `soup`.

    Raises ConfigError where one is another network or knows other labels, or where the start is no checkpoint.
    """
    if not config.soup:
        return ()
    spec = named_model(config)
    if not spec.endswith(".pt"):
        raise ConfigError(f"soup averages the weights of checkpoints, and {spec} is none", "name a .pt with --model")
    if config.pretrained is not None:
        raise ConfigError("soup and pretrained both say where the training starts", "leave one of them out")
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    members = []
    for path in (Path(spec), *(by_name(Path(name), ".pt") for name in config.soup)):
        member = _with_labels(path, labels, "checkpoint")
        if {key: value.shape for key, value in member.state_dict().items()} != shapes:
            raise ConfigError(f"soup: {path} is another network than the one to train", "average those of one network")
        members.append(member)
    weights = [member.state_dict() for member in members]
    mean = {key: torch.stack([each[key].float() for each in weights]).mean(0) for key in shapes}
    model.load_state_dict({key: mean[key].to(value.dtype) for key, value in model.state_dict().items()})
    say(f"the start is the mean of {len(members)} checkpoints")
    return tuple(members[1:])


def _open_teacher(path: Path, labels: tuple[str, ...]) -> ClassificationModel:
    teacher = _with_labels(path, labels, "teacher")
    card = card_beside(path)
    if card is not None:
        side = card.input.size
        teacher.register_forward_pre_hook(lambda _, inputs: (_enlarged(inputs[0], side), *inputs[1:]))
    return teacher.requires_grad_(False)


def _with_labels(path: Path, labels: tuple[str, ...], role: str) -> ClassificationModel:
    """The network of a checkpoint with its classes in the order of `labels`, and what it has learned. Raises
    ConfigError where it knows others.
    """
    model = load_checkpoint(path)
    known = _labels_of(model, path)
    if differs := difference(known, labels, (f"the {role} {path}", "the data set")):
        raise ConfigError(differs, f"use a {role} of the same labels, or convert the data with --map OLD=NEW")
    _keep_rows(model, known, model, labels)
    remember(model, trained_hashes(model, card_beside(path)))
    return model


def _enlarged(images: torch.Tensor, side: int) -> torch.Tensor:
    """`images` (b, c, h, w) at the size that a teacher knows, where the student's is smaller."""
    if images.shape[-1] >= side:
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)


def _own_yaml(spec: str) -> str:
    """The path of one of our model yamls for its bare name; anything else unchanged."""
    try:
        return spec if spec.endswith((".yaml", ".yml")) else str(find_preset("models", spec))
    except ConfigError:
        return spec


def _take(
    source: ClassificationModel, model: ClassificationModel, labels: tuple[str, ...], path: Path, say: Say
) -> None:
    """Start `model` from the layers of `source` that fit, from the rows of its head for labels that both know, and
    from what it has learned.
    """
    matched, total = transfer(source, model)
    remember(model, trained_hashes(model), trained_hashes(source, card_beside(path)))
    head, known = model.model[-1].linear, _labels_of(source, path)
    is_copied = source.model[-1].linear.weight.shape == head.weight.shape
    if is_copied and known != labels:
        # A head for other labels, or the same in another order, is a wrong start that looks like a right one.
        head.reset_parameters()
    kept = _keep_rows(source, known, model, labels)
    matched += (len(kept) == len(labels)) - is_copied
    if matched <= 0:
        raise TrainingError(
            f"no layer of {path} matches the model: not one of {total} has its name and shape",
            "name another --pretrained",
        )
    fresh = f"; {total - matched} fresh" if matched < total else ""
    if len(kept) < len(labels):
        others = listed([label for label in labels if label not in kept])
        fresh += f" (the head is new for {others}, and kept for {listed(list(kept)) or 'no label'})"
    say(f"{path}: {matched} of {total} layers taken as the start{fresh}")


def _labels_of(model: ClassificationModel, path: Path) -> tuple[str, ...]:
    """The labels of a network: those of its card, which may have other names, or its own."""
    card = card_beside(path)
    return labels_of(model) if card is None else card.labels


def _keep_rows(
    source: ClassificationModel, known: tuple[str, ...], model: ClassificationModel, labels: tuple[str, ...]
) -> list[str]:
    """Give the head of `model`, whose classes are `labels`, the rows that that of `source` has of the labels `known`;
    return those that it got, none where the heads see other features.
    """
    old, new = source.model[-1].linear, model.model[-1].linear
    if old.in_features != new.in_features:
        return []
    names = meeting(labels, known)
    places, rows = [labels.index(label) for label in names], [known.index(name) for name in names.values()]
    with torch.no_grad():
        new.weight[places], new.bias[places] = old.weight[rows], old.bias[rows]
    return list(names)
