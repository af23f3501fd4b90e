"""What changes while a run goes on: the side of the images, the frozen layers, the learning rate, and how far the
average of the weights looks back.

Side, frozen layers and rate follow from the place in the run alone, so a resumed run has what an unbroken one has.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.recipe import TrainConfig

_LAYER = re.compile(r"model\.(\d+)\.")


def side_at(config: TrainConfig, epoch: int, epochs: int) -> int:
    """The side in pixels that images have in `epoch` of `epochs`; smaller at first where the recipe says so."""
    is_early = epoch < config.start_share * epochs
    return config.start_imgsz if config.start_imgsz is not None and is_early else config.imgsz


def frozen_at(config: TrainConfig, epoch: int, epochs: int) -> int:
    """How many of the first layers are kept as they are in `epoch` of `epochs`."""
    return config.freeze if epoch < config.freeze_share * epochs else 0


def is_judged(config: TrainConfig, epoch: int, epochs: int) -> bool:
    """Whether `epoch` of `epochs` ends with a validation; the last one always does."""
    return epoch >= min(config.val_from * epochs, epochs - 1)


def warm_up_steps(config: TrainConfig, steps_per_epoch: int, epochs: int) -> int:
    """Steps in which the rate rises; the last epoch is never one of warm-up."""
    return round(min(config.warmup_epochs, max(epochs - 1, 0)) * steps_per_epoch)


def linear_share(step: int, warm_up: int, steps: int, lrf: float) -> float:
    """The share of lr0 after the warm-up where the rate falls evenly from step to step, to `lrf` at the end."""
    fallen = min(1.0, max(0, step - warm_up) / max(1, steps - warm_up))
    return 1 - fallen * (1 - lrf)


@dataclass
class Plateau:
    """The share of lr0 in force: times `factor` after `patience` epochs without a better fitness, down to `floor`."""

    patience: int
    factor: float
    floor: float
    share: float = 1.0
    best: float = -math.inf
    waited: int = 0

    def update(self, fitness: float) -> None:
        """Take one epoch's fitness."""
        if fitness > self.best:
            self.best, self.waited = fitness, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.share, self.waited = max(self.floor, self.share * self.factor), 0


def layer_of(parameter: str) -> int | None:
    """The number of the layer in the model yaml that owns a parameter, by its name; None for what is in no layer."""
    match = _LAYER.match(parameter)
    return int(match[1]) if match else None


def freeze_first(model: torch.nn.Module, layers: int) -> None:
    """Let all parameters learn but those of the first `layers`."""
    for name, parameter in model.named_parameters():
        layer = layer_of(name)
        parameter.requires_grad_(layer is None or layer >= layers)


def decay_by_layer(optimizer: torch.optim.Optimizer, model: torch.nn.Module, decay: float) -> None:
    """Split the optimiser's groups so that each layer learns at `decay` times the rate of the layer above it; the head
    keeps its rate.

    Layers are those of the model yaml (``model.<n>.``). The idea: what the lower layers know of any image is worth
    keeping (Howard and Ruder, 2018, discriminative fine-tuning).
    """
    layers = {
        id(parameter): layer for name, parameter in model.named_parameters() if (layer := layer_of(name)) is not None
    }
    top = max(layers.values())
    groups, optimizer.param_groups = optimizer.param_groups, []
    for group in groups:
        by_layer: dict[int, list[torch.Tensor]] = {}
        for parameter in group["params"]:
            by_layer.setdefault(layers.get(id(parameter), top), []).append(parameter)
        for layer, parameters in sorted(by_layer.items(), reverse=True):
            optimizer.add_param_group({**group, "params": parameters, "lr": group["lr"] * decay ** (top - layer)})


def ema_decay(steps_per_epoch: int, epochs: float, steps: int) -> float:
    """The decay of the weights' moving average whose memory is `epochs` epochs, shortened while few `steps` have been
    made.

    Ultralytics' own (0.9999, warmed up over 2,000 steps) still averages over ten steps when a run of 20 short epochs
    ends.
    """
    reach = (1 + steps) / (10 + steps) if steps else 0.0
    return min(math.exp(-1 / max(1.0, steps_per_epoch * epochs)), reach)
