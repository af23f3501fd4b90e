"""How the learning rate goes: layer by layer, and over the epochs where it does not follow the cosine."""

from __future__ import annotations

import re

import torch  # noqa: TID253  (this package exists to run torch)

_LAYER = re.compile(r"model\.(\d+)\.")


class Plateau:
    """The share of lr0 that is in force: multiplied by `factor` after `patience` epochs without a better fitness, never below `floor`."""

    def __init__(self, patience: int, factor: float, floor: float) -> None:
        self.patience, self.factor, self.floor = patience, factor, floor
        self.share, self.best, self.waited = 1.0, float("-inf"), 0

    def update(self, fitness: float) -> None:
        """Take one epoch's fitness."""
        if fitness > self.best:
            self.best, self.waited = fitness, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.share, self.waited = max(self.floor, self.share * self.factor), 0

    def state(self) -> dict[str, float]:
        """All that a resumed run needs to go on alike."""
        return {"share": self.share, "best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` returned."""
        self.share, self.best, self.waited = state["share"], state["best"], int(state["waited"])


def decay_by_layer(optimizer: torch.optim.Optimizer, model: torch.nn.Module, decay: float) -> None:
    """Split the optimiser's groups so that each layer learns at `decay` times the rate of the layer above it; the head keeps its rate.

    Layers are those of the model yaml (``model.<n>.``). The idea: what the lower layers know of any picture is worth keeping
    (Howard and Ruder, 2018, discriminative fine-tuning).
    """
    layer_of = {id(parameter): int(match[1]) for name, parameter in model.named_parameters() if (match := _LAYER.match(name))}
    top = max(layer_of.values())
    groups, optimizer.param_groups = optimizer.param_groups, []
    for group in groups:
        by_layer: dict[int, list[torch.Tensor]] = {}
        for parameter in group["params"]:
            by_layer.setdefault(layer_of.get(id(parameter), top), []).append(parameter)
        for layer, parameters in sorted(by_layer.items(), reverse=True):
            optimizer.add_param_group({**group, "params": parameters, "lr": group["lr"] * decay ** (top - layer)})
