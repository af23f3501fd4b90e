"""DeepFER: train, prove, export and stream YOLO classifiers of apparent facial expression."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepfer_yolo.emotions import EMOTIONS
    from deepfer_yolo.errors import DeepferError
    from deepfer_yolo.records import Event, Face, Frame, Prediction, Track
    from deepfer_yolo.runtime.card import Card
    from deepfer_yolo.runtime.classifier import Classifier

__version__ = "0.1.0"
__all__ = ["EMOTIONS", "Card", "Classifier", "DeepferError", "Event", "Face", "Frame", "Prediction", "Track"]

_HOMES = {
    "EMOTIONS": "emotions",
    "Card": "runtime.card",
    "Classifier": "runtime.classifier",
    "DeepferError": "errors",
    "Event": "records",
    "Face": "records",
    "Frame": "records",
    "Prediction": "records",
    "Track": "records",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deepfer_yolo' has no attribute '{name}'")
    return getattr(importlib.import_module(f"deepfer_yolo.{_HOMES[name]}"), name)
