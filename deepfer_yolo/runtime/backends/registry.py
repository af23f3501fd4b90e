"""Which backend opens a model file: by its suffix and the provider."""

from __future__ import annotations

from pathlib import Path

from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.backends.onnx import PROVIDERS, OnnxBackend
from deepfer_yolo.runtime.backends.protocol import Backend

OPENED = {
    ".onnx": (*PROVIDERS, "tensorrt", "openvino"),
    ".xml": ("cpu", "openvino"),
    ".param": ("cpu",),
    ".tflite": ("cpu",),
    ".engine": ("tensorrt",),
}
"""Providers by suffix of the model file."""


def check_provider(path: Path, provider: str) -> None:
    """Raise ModelError where the suffix of `path` and the provider do not go together."""
    allowed = OPENED.get(path.suffix)
    if allowed is None:
        hint = "export it with: deepfer export --format onnx"
        raise ModelError(f"{path} has no suffix that this run-time opens", hint)
    if provider not in allowed:
        hint = f"known for {path.suffix}: {', '.join(allowed)}"
        raise ModelError(f"{path} cannot run on the provider '{provider}'", hint)


def needs_contact(path: Path, provider: str) -> bool:
    """Whether a child process opens the file first: always but for ONNX files in onnxruntime on the processor.

    That one is what everything here is tested on, and its start is paid by every command.
    """
    return path.suffix in OPENED and (path.suffix, provider) != (".onnx", "cpu")


def open_backend(path: Path, provider: str, threads: int, *, spin: bool = False) -> Backend:
    """The backend of a model file, opened in this process; see `check_provider` for what it raises."""
    check_provider(path, provider)
    if path.suffix == ".onnx" and provider in PROVIDERS:
        return OnnxBackend(path, provider=provider, threads=threads, spin=spin)
    if path.suffix == ".engine":
        from deepfer_yolo.runtime.backends.tensorrt import TensorRtBackend, require_driver

        require_driver()
        return TensorRtBackend(path, threads=threads)
    if path.suffix == ".param":
        from deepfer_yolo.runtime.backends.ncnn import NcnnBackend

        return NcnnBackend(path, threads=threads)
    if path.suffix == ".tflite":
        from deepfer_yolo.runtime.backends.litert import LiteRtBackend

        return LiteRtBackend(path, threads=threads)
    from deepfer_yolo.runtime.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(path, threads=threads)
