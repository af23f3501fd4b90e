"""What every backend keeps, what the rest of the program asks of a model, and how a backend is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

import numpy as np

from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.formats import ONNXRUNTIME, library_of


class Backend(Protocol):
    """A loaded model: `run` maps uint8 (n, S, S, 3) RGB crops to float32 (n, C) probabilities."""

    card: Card
    provider: str
    threads: int

    def run(self, crops: Crops) -> Probs:
        """Probabilities of crops that `check_crops` has passed; n is 1 or more."""
        ...


class Model(Protocol):
    """What answers for crops; `runtime.Classifier` is one."""

    @property
    def card(self) -> Card:
        """The model's card."""
        ...

    def predict(self, crops: Crops) -> Probs:
        """Probabilities, float32 (n, C), for uint8 crops (n, S, S, 3)."""
        ...


def open_backend(path: Path, provider: str, threads: int, *, spin: bool = False) -> Backend:
    """The backend of a model file, opened in this process; `spin` is for the threads of onnxruntime.

    Raises ModelError for a file that the provider does not run, MissingDependencyError where its library is absent.
    """
    library = library_of(path, provider)
    options: dict[str, object] = {"provider": provider, "spin": spin} if library is ONNXRUNTIME else {}
    backend: Backend = resolve_name(library.backend)(path, threads=threads, **options)
    return backend


def in_batches(run: Callable[[Crops], Probs], crops: Crops, n: int) -> Probs:
    """Answers of a model whose batch is fixed at `n`: the last batch is padded with blank images, whose answers are
    dropped.
    """
    padded = np.concatenate([crops, np.zeros((-len(crops) % n, *crops.shape[1:]), np.uint8)])
    return np.concatenate([run(padded[start : start + n]) for start in range(0, len(padded), n)])[: len(crops)]


def first_line(error: BaseException) -> str:
    """The first line of what a library says, cut to what a message can hold."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def check_crops(crops: Crops, card: Card) -> None:
    """Raise ValueError unless `crops` is uint8 (n, S, S, 3) for the card's S."""
    size = card.input.size
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ValueError(f"crops must be uint8 (n, {size}, {size}, 3), not {crops.dtype} {crops.shape}")
