"""What a run would do, without doing it: the recipe, the network's size, and an estimate of the time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.records import Json, plain
from deepfer_yolo.train.device import check_device, use_bf16
from deepfer_yolo.train.losses import make_loss
from deepfer_yolo.train.schedule import freeze_first, frozen_at, side_at
from deepfer_yolo.train.splits import open_for_training
from deepfer_yolo.train.start import average_in, open_teachers, starting_model
from deepfer_yolo.train.training_run import check_start, first_notes
from deepfer_yolo.yolo import ClassificationModel, count_parameters

TIMED_STEPS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that has not begun; of a cross-validation the first fold, and the time of all."""

    recipe: TrainConfig
    runs: int
    start: list[str]
    """What there is to say of the start."""
    labels: tuple[str, ...]
    train: int
    val: int
    train_counts: dict[str, int]
    parameters: int
    gflops: float
    """Of one image's forward pass."""
    estimated_s: float

    def to_json(self) -> Json:
        """All of it, the recipe key by key."""
        return dict(plain(self)) | {"recipe": self.recipe.model_dump(mode="json")}


def plan(config: TrainConfig) -> Plan:
    """What `config` asks for, with an estimate from a few real steps on noise.

    Raises what a real run would raise for its data, models and device. Validation, saving and the one pass of teachers
    that see each image `still` are not in the estimate.
    """
    check_device(config)
    n_runs = config.n_runs
    config = config if n_runs == 1 else config.model_copy(update={"fold": 1})
    dataset = open_for_training(config)
    notes = first_notes(config, dataset)
    model = starting_model(config, dataset.labels, notes.append)
    soup = average_in(config, model, dataset.labels, notes.append)
    teachers = open_teachers(config, dataset.labels)
    notes += check_start(config, dataset, None, model, soup, teachers)[1]
    operations = flops(model, config.imgsz)  # before the estimate takes the network to its device
    n_train = len(dataset.rows("train"))
    seconds = config.time * 3600 if config.time is not None else estimate(config, model, teachers, n_train)
    return Plan(
        recipe=config,
        runs=n_runs,
        start=notes,
        labels=dataset.labels,
        train=n_train,
        val=len(dataset.rows("val")),
        train_counts=dataset.counts("train"),
        parameters=count_parameters(model),
        gflops=operations / 1e9,
        estimated_s=seconds * n_runs,
    )


def estimate(config: TrainConfig, model: ClassificationModel, teachers: Sequence[ClassificationModel], n: int) -> float:
    """Seconds for all epochs of `n` images, by the speed of a few steps at each side, with as many frozen layers, that
    the recipe has.
    """
    kinds = Counter(
        (side_at(config, epoch, config.epochs), frozen_at(config, epoch, config.epochs))
        for epoch in range(config.epochs)
    )
    asked = () if config.teacher_view == "still" else teachers
    return sum(n * epochs / images_per_s(model, asked, config, *kind) for kind, epochs in kinds.items())


def flops(model: ClassificationModel, size: int) -> float:
    """Floating-point operations of one image's forward pass, a multiplication and an addition counted as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, size, size))
    return float(counter.get_total_flops())


def images_per_s(
    model: ClassificationModel, teachers: Sequence[ClassificationModel], config: TrainConfig, size: int, frozen: int
) -> float:
    """Training speed on noise: the best of a few steps of forward, backward and update, with answers of `teachers`."""
    freeze_first(model, frozen)
    torch.set_num_threads(config.threads)
    device = torch.device(config.device if config.device in {"cpu", "mps"} else f"cuda:{config.device.split(',')[0]}")
    model = model.train().to(device, memory_format=torch.channels_last)
    for teacher in teachers:
        teacher.to(device, memory_format=torch.channels_last)
    loss = make_loss(config, torch.ones(len(model.names)))
    images = torch.rand(config.batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.full((config.batch, len(model.names)), 1 / len(model.names), device=device)
    best = float("inf")
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(config)):
            with torch.no_grad():
                for teacher in teachers:
                    teacher(images)
            logits = model(images)
        torch.autograd.backward(loss(logits.float(), targets))
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return config.batch / best
