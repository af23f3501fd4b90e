"""OpenVINO IR from our ONNX graph: fp32, fp16 weights, or int8 by NNCF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfer_yolo.export import half
from deepfer_yolo.export.formats import Candidate, Request
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.modelfile import parts
from deepfer_yolo.runtime.openvino import import_openvino

if TYPE_CHECKING:
    import onnx

RT_INFO = "deepfer"


def candidates(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The IR in the wanted precision; int8 that fails parity is followed by fp16."""
    precision = request.config.precision
    if precision == "int8":
        from deepfer_yolo.export.openvino_int8 import ladder

        for name, make in ladder(graph, request):
            yield Candidate(f"int8, {name}", "int8", lambda path, make=make: write(make(), path, fp16=True))  # type: ignore[misc]
        precision = "fp16"
    yield Candidate(precision, precision, lambda path: write(convert(graph), path, fp16=precision == "fp16"))
    if precision == "fp16":
        for name, make in half.stored(graph):
            yield Candidate(name, "fp16", lambda path, make=make: write(convert(make()), path, fp16=False))  # type: ignore[misc]


def put_rt_info(path: Path, card: Card) -> None:
    """Write the card into the IR's own `rt_info` too, without the hash of the file that it becomes part of."""
    openvino = import_openvino()
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the weights are written back over the file they were read from
    model = core.read_model(*map(str, parts(path)))
    model.set_rt_info(card.model_copy(update={"file_sha256": None}).to_json(), RT_INFO)
    write(model, path, fp16=False)


def convert(graph: onnx.ModelProto) -> Any:
    """OpenVINO's form of an ONNX graph."""
    return import_openvino().Core().read_model(graph.SerializeToString(), b"")


def write(model: Any, path: Path, *, fp16: bool) -> None:
    """Write an OpenVINO model as IR."""
    import_openvino().save_model(model, str(path), compress_to_fp16=fp16)
