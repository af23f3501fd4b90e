"""What a run would do, without doing it: the recipe, the network's size, and an estimate of the time."""

from __future__ import annotations

import time
from typing import Any

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.train.device import check_device, use_bf16
from deepfer_yolo.train.losses import make_loss
from deepfer_yolo.train.splits import open_for_training
from deepfer_yolo.train.start import starting_model
from deepfer_yolo.yolo import ClassificationModel

TIMED_STEPS = 4


def plan(config: TrainConfig) -> dict[str, Any]:
    """The resolved recipe, pictures a split, parameters, GFLOPs a picture, and an estimate from a few real steps on
    noise.

    Raises what a real run would raise for its data, model and device. Validation and saving are not in the estimate; of
    a cross-validation the first fold is described and all are in the estimate.
    """
    check_device(config.device)
    n_runs = config.folds if config.folds is not None and config.fold is None else 1
    config = config if n_runs == 1 else config.model_copy(update={"fold": 1})
    dataset = open_for_training(config)
    notes: list[str] = []
    model = starting_model(config, dataset.labels, notes.append)
    train, val = len(dataset.rows("train")), len(dataset.rows("val"))
    seconds = config.time * 3600 if config.time is not None else estimate(config, model, train)
    return {
        "recipe": config.model_dump(mode="json"),
        "runs": n_runs,
        "start": notes,
        "labels": list(dataset.labels),
        "train": train,
        "val": val,
        "train_counts": dataset.counts("train"),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops": flops(model, config.imgsz) / 1e9,
        "estimated_s": seconds * n_runs,
    }


def estimate(config: TrainConfig, model: ClassificationModel, n: int) -> float:
    """Seconds for all epochs of `n` pictures, by the speed of a few steps at each side that the recipe has."""
    early = round(config.start_share * config.epochs) if config.start_imgsz else 0
    seconds = n * (config.epochs - early) / images_per_s(model, config, config.imgsz)
    if config.start_imgsz and early:
        seconds += n * early / images_per_s(model, config, config.start_imgsz)
    return seconds


def flops(model: ClassificationModel, size: int) -> float:
    """Floating-point operations of one picture's forward pass, a multiplication and an addition counted as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, size, size))
    return float(counter.get_total_flops())


def images_per_s(model: ClassificationModel, config: TrainConfig, size: int) -> float:
    """Training speed on noise: the best of a few steps of forward, backward and update."""
    torch.set_num_threads(config.threads)
    device = torch.device(config.device if config.device in {"cpu", "mps"} else f"cuda:{config.device.split(',')[0]}")
    model = model.train().to(device, memory_format=torch.channels_last)
    loss = make_loss(config, torch.ones(len(model.names)))
    images = torch.rand(config.batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.full((config.batch, len(model.names)), 1 / len(model.names), device=device)
    best = float("inf")
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(config)):
            logits = model(images)
        torch.autograd.backward(loss(logits.float(), targets))
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return config.batch / best
