"""Which class opens a model file: the command line alone chooses, by suffix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepfer_yolo.runtime.classifier import Classifier

TORCH_SUFFIXES = (".pt", ".torchscript")


def open_classifier(path: Path | None, *, provider: str = "cpu", threads: int = 1) -> Classifier:
    """The model at `path`, or the shipped one for None; `.pt` and `.torchscript` open through torch, everything else without it.

    Raises ModelError for a file that cannot be used.
    """
    from deepfer_yolo.runtime.modelfile import DEFAULT, STEM

    path = Path(DEFAULT) if path is None else path
    if path.suffix in TORCH_SUFFIXES or (path / f"{STEM}.torchscript").is_file():
        from deepfer_yolo.yolo import TorchClassifier

        return TorchClassifier(path, provider=provider, threads=threads)
    from deepfer_yolo.runtime.classifier import Classifier

    return Classifier(path, provider=provider, threads=threads)
