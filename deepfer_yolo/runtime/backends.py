"""What runs a model file: one small class a format, all keeping the same Protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from deepfer_yolo.errors import MissingDependencyError, ModelError
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.graph import INPUT, OUTPUT, card_of, check_card, io_shapes, read_graph

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Our short names for onnxruntime's execution providers."""
OPENED = {
    ".onnx": (*PROVIDERS, "tensorrt", "openvino"),
    ".xml": ("cpu", "openvino"),
    ".param": ("cpu",),
    ".tflite": ("cpu",),
    ".engine": ("tensorrt",),
}
"""Providers by suffix of the model file."""
_OUTPUTS = [OUTPUT]


class Backend(Protocol):
    """A loaded model: `run` maps uint8 (n, S, S, 3) RGB crops to float32 (n, C) probabilities."""

    card: Card
    provider: str
    threads: int

    def run(self, crops: Crops) -> Probs:
        """Probabilities of crops that `check_crops` has passed; n is 1 or more."""
        ...


def open_backend(path: Path, provider: str, threads: int, *, spin: bool = False, contacted: bool = False) -> Backend:
    """The backend for a model file, chosen by its suffix and the provider. Raises ModelError where the two do not go together.

    Where a native library could end the process, a child opens the file first (`ensure_contact`); `contacted` says that this is the child.
    """
    allowed = OPENED.get(path.suffix)
    if allowed is None:
        raise ModelError(f"{path} has no suffix that this run-time opens", "export it with: deepfer export --format onnx")
    if provider not in allowed:
        raise ModelError(f"{path} cannot run on the provider '{provider}'", f"known for {path.suffix}: {', '.join(allowed)}")
    if provider == "tensorrt":
        from deepfer_yolo.runtime.tensorrt import require_driver

        require_driver()
        if path.suffix == ".onnx":
            from deepfer_yolo.runtime.engine_cache import engine_of

            path = engine_of(path)
    if not contacted and needs_contact(path, provider):
        from deepfer_yolo.runtime.contact import ensure_contact

        ensure_contact(path, provider)
    if path.suffix == ".onnx" and provider in PROVIDERS:
        return OnnxBackend(path, provider=provider, threads=threads, spin=spin)
    if path.suffix == ".engine":
        from deepfer_yolo.runtime.tensorrt import TensorRtBackend

        return TensorRtBackend(path, threads=threads)
    if path.suffix == ".param":
        from deepfer_yolo.runtime.ncnn import NcnnBackend

        return NcnnBackend(path, threads=threads)
    if path.suffix == ".tflite":
        from deepfer_yolo.runtime.litert import LiteRtBackend

        return LiteRtBackend(path, threads=threads)
    from deepfer_yolo.runtime.openvino import OpenVinoBackend

    return OpenVinoBackend(path, threads=threads)


def needs_contact(path: Path, provider: str) -> bool:
    """Whether a child process opens the file first: always but for ONNX files in onnxruntime on the processor.

    That one is what everything here is tested on, and its start is paid by every command.
    """
    return path.suffix in OPENED and (path.suffix, provider) != (".onnx", "cpu")


class OnnxBackend:
    """An exported ONNX graph in onnxruntime. An absent provider is an error, never a silent fallback."""

    def __init__(self, path: Path, *, provider: str = "cpu", threads: int = 1, spin: bool = False) -> None:
        import onnxruntime as ort

        if PROVIDERS[provider] not in ort.get_available_providers():
            raise MissingDependencyError(f"onnxruntime here has no provider '{provider}'", "deepfer doctor shows which there are")
        model = read_graph(path)
        self.card = card_of(model, path)
        check_card(model, self.card, path)
        self.provider = provider
        self.threads = threads
        self._path = path
        self._fixed_n = io_shapes(model, path)[0][0]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Threads that wait for the next batch sleep: spinning ones take a third of the two cores from the threads that decode it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = ort.InferenceSession(model.SerializeToString(), options, providers=[PROVIDERS[provider]])
        except Exception as error:  # onnxruntime's exception types share no base class of their own
            raise ModelError(f"{path}: onnxruntime refuses the graph: {str(error).splitlines()[0]}", "export it again with: deepfer export") from None
        self._session.disable_fallback()
        used = self._session.get_providers()[0]
        if used != PROVIDERS[provider]:
            raise MissingDependencyError(f"onnxruntime could not start '{provider}' and would have used {used}", "deepfer doctor shows what is there")

    def run(self, crops: Crops) -> Probs:
        """See `Backend.run`."""
        if self._fixed_n is not None and len(crops) != self._fixed_n:
            return in_batches(self.run, crops, self._fixed_n)
        try:
            probs: Probs = self._session.run(_OUTPUTS, {INPUT: crops})[0]
        except Exception as error:
            raise ModelError(f"{self._path}: onnxruntime failed on {len(crops)} pictures: {str(error).splitlines()[0][:300]}") from None
        return probs


def in_batches(run: Callable[[Crops], Probs], crops: Crops, n: int) -> Probs:
    """Answers of a model whose batch is fixed at `n`: the last batch is padded with blank pictures, whose answers are dropped."""
    padded = np.concatenate([crops, np.zeros((-len(crops) % n, *crops.shape[1:]), np.uint8)])
    return np.concatenate([run(padded[start : start + n]) for start in range(0, len(padded), n)])[: len(crops)]


def read_onnx_card(path: Path) -> Card:
    """The card inside an ONNX file's metadata; raises ModelError where the file or its card cannot be used."""
    return card_of(read_graph(path), path)


def check_crops(crops: Crops, card: Card) -> None:
    """Raise ValueError unless `crops` is uint8 (n, S, S, 3) for the card's S."""
    size = card.input.size
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ValueError(f"crops must be uint8 (n, {size}, {size}, 3), not {crops.dtype} {crops.shape}")
