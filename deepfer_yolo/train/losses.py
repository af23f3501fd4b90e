"""What the network is told to reduce: cross-entropy against soft targets, and its answers to imbalance and to a teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.config import TrainConfig

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From logits (b, C) and target probabilities (b, C) to one number."""


def make_loss(config: TrainConfig, counts: torch.Tensor) -> Loss:
    """The loss that `config` names, for a training split with `counts` (C,) pictures a class."""
    weights = class_weights(config.class_weights, counts)
    prior = (counts / counts.sum()).log() if config.loss == "logit_adjust" else torch.zeros(len(counts))
    gamma = config.focal_gamma if config.loss == "focal" else 0.0

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # Logit adjustment (Menon et al., 2021): the network learns what is left once the class frequencies are known.
        log_probs = (logits + prior.to(logits.device)).log_softmax(1)
        terms = targets * weights.to(logits.device)
        if gamma:
            terms = terms * (1 - log_probs.exp()).pow(gamma)  # Lin et al., 2017
        return -(terms * log_probs).sum(1).mean()

    return loss


def class_weights(kind: str, counts: torch.Tensor) -> torch.Tensor:
    """Weights (C,) whose mean over the pictures is 1: equal, by the inverse count, or by its square root."""
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[kind]
    weights = counts.double().pow(-power)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """How far the student is from the teacher's softened answers (Hinton et al., 2015); both logits (b, C)."""
    wanted = (teacher / temperature).softmax(1)
    gap = wanted * (wanted.clamp_min(1e-9).log() - (student / temperature).log_softmax(1))
    return gap.sum(1).mean() * temperature**2
