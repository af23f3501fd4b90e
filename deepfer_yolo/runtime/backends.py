"""What runs a model file: one small class a format, all keeping the same Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from deepfer_yolo.errors import MissingDependencyError, ModelError
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.card import METADATA_KEY, Card, no_card, parse_card

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""Our short names for onnxruntime's execution providers."""


class Backend(Protocol):
    """A loaded model: `run` maps uint8 (n, S, S, 3) RGB crops to float32 (n, C) probabilities."""

    card: Card
    provider: str
    threads: int

    def run(self, crops: Crops) -> Probs: ...


class OnnxBackend:
    """An exported ONNX graph in onnxruntime. An absent provider is an error, never a silent fallback."""

    def __init__(self, path: Path, *, provider: str = "cpu", threads: int = 1) -> None:
        import onnxruntime as ort

        if provider not in PROVIDERS:
            raise ModelError(f"unknown provider '{provider}' for {path}", f"known: {', '.join(PROVIDERS)}")
        if PROVIDERS[provider] not in ort.get_available_providers():
            raise MissingDependencyError(f"onnxruntime here has no provider '{provider}'", "deepfer doctor shows which there are")
        self.card = read_onnx_card(path)
        self.provider = provider
        self.threads = threads
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(path), options, providers=[PROVIDERS[provider]])

    def run(self, crops: Crops) -> Probs:
        probs: Probs = self._session.run(["probs"], {"image": crops})[0]
        return probs


def read_onnx_card(path: Path) -> Card:
    """The card inside an ONNX file's metadata; raises ModelError where the file or its card cannot be used."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf raises its own types, which differ by version
        raise ModelError(f"{path} is not a readable ONNX file: {error}", "export it again with: deepfer export") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in metadata:
        raise no_card(path)
    return parse_card(metadata[METADATA_KEY], str(path))


def check_crops(crops: Crops, card: Card) -> None:
    """Raise ValueError unless `crops` is uint8 (n, S, S, 3) for the card's S."""
    size = card.input.size
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ValueError(f"crops must be uint8 (n, {size}, {size}, 3), not {crops.dtype} {crops.shape}")
