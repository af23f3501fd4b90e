"""The formats that a checkpoint can become, and for each the candidates to try, best first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepfer_yolo.export.candidates import Candidate, Request
from deepfer_yolo.export.onnx import save
from deepfer_yolo.runtime.card import Card

if TYPE_CHECKING:
    import onnx


Candidates = Callable[["onnx.ModelProto", Request], Iterator[Candidate]]


def _nothing(model: Path, card: Card) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Format:
    """A format: the suffix of its file, what runs it, the precisions it has, and the libraries whose versions belong
    into the card.
    """

    suffix: str
    provider: str
    precisions: tuple[str, ...]
    candidates: Candidates
    libraries: tuple[str, ...] = ()
    finish: Callable[[Path, Card], None] = _nothing
    describe: Callable[[Request], dict[str, str]] = lambda request: {}


def _onnx(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    precision = request.config.precision
    if precision == "fp32":
        yield Candidate("fp32", "fp32", lambda path: save(graph, path))
        return
    from deepfer_yolo.export import fp16, int8

    if precision == "int8":
        for name, make in int8.ladder(graph, request):
            yield Candidate(f"int8, {name}", "int8", lambda path, make=make: save(make(), path))  # type: ignore[misc]
    for name, make in fp16.ladder(graph):
        yield Candidate(name, "fp16", lambda path, make=make: save(make(), path))  # type: ignore[misc]


def _openvino(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    from deepfer_yolo.export.writers.openvino import candidates

    return candidates(graph, request)


def _finish_openvino(model: Path, card: Card) -> None:
    from deepfer_yolo.export.writers.openvino import put_rt_info
    from deepfer_yolo.runtime.model_file import attach

    put_rt_info(model, card)
    attach(card, model)


def _torchscript(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    from deepfer_yolo.export.writers.torch_formats import torchscript

    return torchscript(graph, request)


def _ncnn(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    from deepfer_yolo.export.writers.torch_formats import ncnn

    return ncnn(graph, request)


def _litert(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    from deepfer_yolo.export.writers.torch_formats import litert

    return litert(graph, request)


def _engine(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    from deepfer_yolo.export.writers.tensorrt import candidates

    return candidates(graph, request)


def _describe_engine(request: Request) -> dict[str, str]:
    from deepfer_yolo.export.writers.tensorrt import describe

    return describe(request)


FORMATS = {
    "onnx": Format(".onnx", "cpu", ("fp32", "fp16", "int8"), _onnx),
    "openvino": Format(".xml", "openvino", ("fp32", "fp16", "int8"), _openvino, ("openvino",), _finish_openvino),
    "engine": Format(".engine", "tensorrt", ("fp32", "fp16", "int8"), _engine, describe=_describe_engine),
    "ncnn": Format(".param", "cpu", ("fp32", "fp16"), _ncnn, ("ncnn", "pnnx")),
    "torchscript": Format(".torchscript", "torch", ("fp32",), _torchscript),
    "litert": Format(".tflite", "cpu", ("fp32",), _litert, ("litert-torch", "ai-edge-litert")),
}
FORMATS["tflite"] = FORMATS["litert"]
"""The name that it had until 2024."""
