"""OpenVINO IR from our ONNX graph: fp32, fp16 weights, or int8 by NNCF with accuracy control."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.errors import DatasetError, MissingDependencyError
from deepfer_yolo.export.formats import Candidate, Request
from deepfer_yolo.export.quantize import calibration_pictures
from deepfer_yolo.export.quiet import quiet
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.graph import INPUT
from deepfer_yolo.runtime.modelfile import parts
from deepfer_yolo.runtime.openvino import import_openvino

if TYPE_CHECKING:
    import onnx

MAX_DROP = 0.01
"""How much top-1 agreement with fp32 NNCF may give up on held-out training pictures; layers return to fp until it is met."""
RT_INFO = "deepfer"


def candidates(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The IR in the wanted precision; int8 that fails parity is followed by fp16."""
    precision = request.config.precision
    if precision == "int8":
        yield Candidate("int8, NNCF with accuracy control", "int8", lambda path: _write_int8(graph, request, path))
        precision = "fp16"
    yield Candidate(precision, precision, lambda path: _write(_convert(graph), path, fp16=precision == "fp16"))


def put_rt_info(path: Path, card: Card) -> None:
    """Write the card into the IR's own `rt_info` too, without the hash of the file that it becomes part of."""
    openvino = import_openvino()
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the weights are written back over the file they were read from
    model = core.read_model(*map(str, parts(path)))
    model.set_rt_info(card.model_copy(update={"file_sha256": None}).to_json(), RT_INFO)
    _write(model, path, fp16=False)


def _convert(graph: onnx.ModelProto) -> Any:
    return import_openvino().Core().read_model(graph.SerializeToString(), b"")


def _write(model: Any, path: Path, *, fp16: bool) -> None:
    import_openvino().save_model(model, str(path), compress_to_fp16=fp16)


def _write_int8(graph: onnx.ModelProto, request: Request, path: Path) -> None:
    openvino, nncf = import_openvino(), _import_nncf()
    if request.data is None:
        raise DatasetError("int8 needs a data set to be calibrated on", "add --data DATASET")
    n = request.config.calibration
    crops, _ = calibration_pictures(request.data, request.card.input, 2 * n, request.avoid)
    # Every second picture: the draw is in manifest order, label by label, so both halves hold every label.
    calibration, held_out = crops[::2], crops[1::2]
    model = _convert(graph)
    expected = _answers(openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), held_out).argmax(1)

    def agreement(compiled: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        rows = np.concatenate(list(items))
        same = _answers(compiled, rows[:, :-1].reshape(-1, *held_out.shape[1:]).astype(np.uint8)).argmax(1) == rows[:, -1]
        return float(same.mean()), [float(value) for value in same]

    # NNCF draws subsets of the validation pictures, so each carries the label that fp32 gave it as a last number.
    judged = np.concatenate([held_out.reshape(len(held_out), -1).astype(np.int64), expected[:, None]], axis=1)
    with quiet():
        quantised = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset([calibration[i : i + 1] for i in range(len(calibration))]),
            nncf.Dataset([judged[i : i + 1] for i in range(len(judged))]),
            agreement,
            max_drop=MAX_DROP,
            subset_size=len(calibration),
        )
    _write(quantised, path, fp16=True)


def _answers(compiled: Any, crops: Crops, batch: int = 32) -> Probs:
    return np.concatenate([compiled({INPUT: crops[i : i + batch]})[0] for i in range(0, len(crops), batch)])


def _import_nncf() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise MissingDependencyError.for_extra("openvino", error.name or "nncf") from None
    nncf.set_log_level(40)
    return nncf
