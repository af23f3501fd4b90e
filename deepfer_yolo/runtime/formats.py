"""The formats of a model file, shared by run-time and export: a new one is a row here, a backend and a writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deepfer_yolo.errors import ModelError


@dataclass(frozen=True, slots=True)
class Library:
    """What runs a model: a distribution, and the backend that drives it as `module:name`."""

    distribution: str
    backend: str


ONNXRUNTIME = Library("onnxruntime", "deepfer_yolo.runtime.backends.onnx:OnnxBackend")
OPENVINO = Library("openvino", "deepfer_yolo.runtime.backends.openvino:OpenVinoBackend")
TENSORRT = Library("tensorrt", "deepfer_yolo.runtime.backends.tensorrt:TensorRtBackend")
NCNN = Library("ncnn", "deepfer_yolo.runtime.backends.ncnn:NcnnBackend")
LITERT = Library("ai-edge-litert", "deepfer_yolo.runtime.backends.litert:LiteRtBackend")


@dataclass(frozen=True, slots=True)
class Format:
    """One format of a model.

    `suffix` is that of the file that names the model, `companion` that of a second file with the weights; a card that
    is not `inside` lies beside them. `libraries` are what each provider runs the file with, the usual one first; none
    where torch alone opens it. `precisions` are those that an export can make, by the function `writer`
    (`module:name`), with distributions whose versions belong into the card.
    """

    suffix: str
    libraries: Mapping[str, Library] = field(default_factory=dict)
    precisions: tuple[str, ...] = ()
    writer: str = ""
    distributions: tuple[str, ...] = ()
    companion: str | None = None
    card_inside: bool = False


_WRITERS = "deepfer_yolo.export.writers."
FORMATS = {
    "onnx": Format(
        ".onnx",
        {"cpu": ONNXRUNTIME, "cuda": ONNXRUNTIME, "tensorrt": TENSORRT, "openvino": OPENVINO},
        ("fp32", "fp16", "int8"),
        "deepfer_yolo.export.onnx:candidates",
        card_inside=True,
    ),
    "openvino": Format(
        ".xml",
        {"cpu": OPENVINO, "openvino": OPENVINO},
        ("fp32", "fp16"),
        f"{_WRITERS}openvino:candidates",
        ("openvino",),
        companion=".bin",
    ),
    "engine": Format(".engine", {"tensorrt": TENSORRT}, ("fp32", "fp16", "int8"), f"{_WRITERS}tensorrt:candidates"),
    "ncnn": Format(
        ".param", {"cpu": NCNN}, ("fp32", "fp16"), f"{_WRITERS}torch_formats:ncnn", ("ncnn", "pnnx"), companion=".bin"
    ),
    "litert": Format(
        ".tflite", {"cpu": LITERT}, ("fp32",), f"{_WRITERS}torch_formats:litert", ("litert-torch", "ai-edge-litert")
    ),
    "torchscript": Format(".torchscript", {}, ("fp32",), f"{_WRITERS}torch_formats:torchscript"),
    "pt": Format(".pt"),
}
FORMATS["tflite"] = FORMATS["litert"]
"""The name that LiteRT had until 2024."""
BY_SUFFIX = {found.suffix: found for found in FORMATS.values()}


def library_of(path: Path, provider: str) -> Library:
    """What runs the model file on the provider; raises ModelError where the two do not go together."""
    found = BY_SUFFIX.get(path.suffix)
    if found is None or not found.libraries:
        hint = "export it with: deepfer export --format onnx"
        raise ModelError(f"{path} has no suffix that this run-time opens", hint)
    if provider not in found.libraries:
        hint = f"known for {path.suffix}: {', '.join(found.libraries)}"
        raise ModelError(f"{path} cannot run on the provider '{provider}'", hint)
    return found.libraries[provider]
