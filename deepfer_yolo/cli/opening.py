"""What commands share: which class opens a model file, chosen by suffix, and the note where Haar stands in for YuNet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepfer_yolo.config import FaceConfig
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


def note_haar(config: FaceConfig) -> None:
    """Say on stderr where `auto` falls back to Haar."""
    from deepfer_yolo.faces.detect import HAAR_NOTE, find_face_model

    if config.detector == "auto" and find_face_model(config.face_model) is None:
        print(HAAR_NOTE, file=sys.stderr)
