"""OpenVINO IR from our ONNX graph, in fp32 or with fp16 weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfer_yolo.export.candidates import Arithmetic, Candidate, Request
from deepfer_yolo.export.fp16 import stored
from deepfer_yolo.runtime.backends.openvino import import_openvino
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.model_file import attach, parts

if TYPE_CHECKING:
    import onnx

RT_INFO = "deepfer"


def candidates(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The IR in fp32, or with fp16 weights."""
    precision = request.config.precision

    def write_ir(path: Path) -> None:
        write(convert(graph), path, fp16=precision == "fp16")

    arithmetic: Arithmetic | None = "fp32" if precision == "fp16" else None
    yield Candidate(precision, precision, write_ir, arithmetic, finish=put_rt_info)
    if precision == "fp16":
        name, make = stored(graph)
        yield Candidate(name, "fp16", lambda path: write(convert(make()), path, fp16=False), "fp32", finish=put_rt_info)


def put_rt_info(path: Path, card: Card) -> None:
    """Write the card into the IR's own `rt_info` too, without the hash of the file that it becomes part of; then attach
    it again, since the file has changed.
    """
    openvino = import_openvino()
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the weights are written back over the file they were read from
    model = core.read_model(*map(str, parts(path)))
    model.set_rt_info(card.model_copy(update={"file_sha256": None}).to_json(), RT_INFO)
    write(model, path, fp16=False)
    attach(card, path)


def convert(graph: onnx.ModelProto) -> Any:
    """OpenVINO's form of an ONNX graph."""
    return import_openvino().Core().read_model(graph.SerializeToString(), b"")


def write(model: Any, path: Path, *, fp16: bool) -> None:
    """Write an OpenVINO model as IR."""
    import_openvino().save_model(model, str(path), compress_to_fp16=fp16)
