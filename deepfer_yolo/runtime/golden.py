"""The golden self-test: inputs painted from a seed, and the probabilities that a model file must give for them
anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from deepfer_yolo.errors import ModelError
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.runtime.card import Card, Golden, another_card

SEED = 2013
N = 8
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 0.05, "int8": 0.05}
"""The largest difference of a probability, by the card's precision, that another machine may show."""
FP16 = {"fp32": 1e-4, "fp16": 0.02, None: 5e-3}
"""The same of a file in fp16, by what it calculates in; x86 processors give what GPUs and newer ARM cores round."""
SAME_LABEL = 0.01
"""From this tolerance on the label must agree too."""


class ModelFile(Model, Protocol):
    """A model that says where its file is."""

    path: Path


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """What the self-test found.

    `n_changed` counts labels that differ though the card's margin is above the tolerance.
    """

    n: int
    max_diff: float
    tolerance: float
    n_changed: int
    passed: bool

    @property
    def difference(self) -> str:
        """The largest difference and the allowed one, as error messages say them."""
        return f"max |Δp| {self.max_diff:.1e}, allowed {self.tolerance:.0e}"


def make_golden(run: Callable[[Crops], Probs], size: int, *, seed: int = SEED, n: int = N) -> Golden:
    """The golden part of a card: what `run` answers to `n` painted (size, size) inputs.

    Raises ModelError for NaN or sums that are not 1.
    """
    inputs = paint_golden(seed, n, size)
    probs = run(inputs)
    check_probs(probs, "the model")
    rows = [[round(float(p), 8) for p in row] for row in probs]
    return Golden(seed=seed, n=n, inputs_sha256=_digest(inputs), probs=rows)


def check_golden(model: ModelFile) -> GoldenResult:
    """Paint the golden inputs again, check their SHA-256, run the model on them and compare.

    Raises ModelError where the card has no golden part, the painted inputs differ (then the painting is at fault, not
    the model), or the model answers with NaN.
    """
    card = model.card
    if card.golden is None:
        raise ModelError(
            f"the card of {model.path} has no golden part to verify against",
            another_card(model.path),
        )
    probs = model.predict(golden_inputs(card))
    check_probs(probs, str(model.path))
    return held_against(card.golden, probs, tolerance_of(card))


def held_against(golden: Golden, probs: Probs, tolerance: float) -> GoldenResult:
    """Answers to the golden inputs against those of the card."""
    expected = np.array(golden.probs, np.float64)
    diff = float(np.abs(probs - expected).max())
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > tolerance
    n_changed = int(((probs.argmax(1) != expected.argmax(1)) & clear).sum())
    passed = diff <= tolerance and not (tolerance >= SAME_LABEL and n_changed)
    return GoldenResult(golden.n, diff, tolerance, n_changed, passed)


def tolerance_of(card: Card) -> float:
    """The largest difference of a probability that a machine may show from the card's golden answers."""
    return FP16[card.arithmetic] if card.precision == "fp16" else TOLERANCES[card.precision]


def golden_inputs(card: Card) -> Crops:
    """The inputs of the card's golden part, uint8 (n, S, S, 3); raises ModelError where this machine paints other
    bytes.
    """
    if card.golden is None:
        raise ModelError(f"the card of {card.name} has no golden part")
    inputs = paint_golden(card.golden.seed, card.golden.n, card.input.size)
    digest = _digest(inputs)
    if digest != card.golden.inputs_sha256:
        found = f"SHA-256 {digest[:12]}… against {card.golden.inputs_sha256[:12]}…"
        raise ModelError(
            f"the golden inputs painted here are not the card's: {found}",
            "the card was written by another version of the painting, or damaged; fetch or export the model again",
        )
    return inputs


def check_probs(probs: Probs, where: str) -> None:
    """Raise ModelError unless every row is finite, in 0..1 and sums to 1."""
    if not np.isfinite(probs).all():
        raise ModelError(f"{where} answers with NaN or infinite probabilities: its weights are broken")
    sums = probs.sum(1)
    worst = sums[np.abs(sums - 1).argmax()]
    if probs.min() < -1e-6 or abs(worst - 1) > 1e-2:
        raise ModelError(f"{where} does not answer with probabilities: a row sums to {worst:.4f}")


def _digest(inputs: Crops) -> str:
    return hashlib.sha256(inputs.tobytes()).hexdigest()
