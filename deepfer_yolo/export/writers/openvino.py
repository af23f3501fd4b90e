"""OpenVINO IR from our ONNX graph: fp32, fp16 weights, or int8 by NNCF."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.errors import DatasetError, MissingDependencyError
from deepfer_yolo.export import fp16
from deepfer_yolo.export.candidates import Candidate, Request
from deepfer_yolo.export.int8 import Quantiser, Rung, calibration_pictures, most_float, prepare
from deepfer_yolo.export.onnx import quiet
from deepfer_yolo.export.rounding import observe
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.backends.openvino import import_openvino
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.model_file import parts
from deepfer_yolo.runtime.onnx_graph import INPUT

if TYPE_CHECKING:
    import onnx


RT_INFO = "deepfer"


def candidates(graph: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The IR in the wanted precision; int8 that fails parity is followed by fp16."""
    precision = request.config.precision
    if precision == "int8":
        for name, make in ladder(graph, request):
            yield Candidate(f"int8, {name}", "int8", lambda path, make=make: write(make(), path, fp16=True))  # type: ignore[misc]
        precision = "fp16"
    yield Candidate(precision, precision, lambda path: write(convert(graph), path, fp16=precision == "fp16"))
    if precision == "fp16":
        for name, make in fp16.stored(graph):
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


N_FLOAT = (0, 2, 4, 6)
"""Noisiest blocks that stay in floating point, rung by rung."""
JUDGE = Rung("least squares")
"""The int8 graph on which the noise of blocks is measured."""
N_CONTROLLED = 4
"""Blocks that stay in floating point where NNCF's accuracy control finds the rest, layer by layer."""
MAX_DROP = 0.01
"""How much top-1 agreement with fp32 it may give up on held-out training pictures; layers return to floating point
until it is met.
"""
MAX_RESTORED, RANKED_ON = 20, 128
"""Bounds of its search: layers that return, and pictures on which each of some hundred is ranked.

Without them it took over nine minutes.
"""
BATCH = 32


def ladder(graph: onnx.ModelProto, request: Request) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and maker of each int8 model, the fastest first."""
    if request.data is None:
        raise DatasetError("int8 needs a data set to be calibrated on", "add --data DATASET")
    crops, _ = calibration_pictures(request.data, request.card.input, 2 * request.config.calibration, request.avoid)
    # Every second picture: the draw is in manifest order, label by label, so both halves hold every label.
    calibration, held_out = crops[::2], crops[1::2]
    quantiser = Quantiser(observe(prepare(graph, request.scratch), calibration), request.scratch)
    rounded = quantiser.on_grid(8)
    noisiest = [block for block in quantiser.noisiest(JUDGE) if block]
    for n in (n for n in N_FLOAT if n <= most_float(noisiest)):
        yield f"NNCF, {n} noisiest blocks in floating point", partial(_quantised, rounded, calibration, noisiest[:n])
    n = min(N_CONTROLLED, most_float(noisiest))
    name = f"NNCF with accuracy control, {n} noisiest blocks in floating point"
    yield name, partial(_controlled, graph, rounded, calibration, held_out, noisiest[:n])


def _quantised(rounded: onnx.ModelProto, calibration: Crops, kept: list[str]) -> Any:
    nncf = _import_nncf()
    with quiet():
        model = convert(rounded)
        return nncf.quantize(
            model, _batches(nncf, calibration), advanced_parameters=_extremes(nncf), **_options(nncf, calibration, kept)
        )


def _controlled(
    graph: onnx.ModelProto, rounded: onnx.ModelProto, calibration: Crops, held_out: Crops, kept: list[str]
) -> Any:
    openvino, nncf = import_openvino(), _import_nncf()
    expected = _answers(
        openvino.compile_model(convert(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), held_out
    ).argmax(1)

    def agreement(compiled: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        rows = np.concatenate(list(items))
        same = (
            _answers(compiled, rows[:, :-1].reshape(-1, *held_out.shape[1:]).astype(np.uint8)).argmax(1) == rows[:, -1]
        )
        return float(same.mean()), [float(value) for value in same]

    # NNCF draws subsets of the validation pictures, so each carries the label that fp32 gave it as a last number.
    judged = np.concatenate([held_out.reshape(len(held_out), -1).astype(np.int64), expected[:, None]], axis=1)
    with quiet():
        return nncf.quantize_with_accuracy_control(
            convert(rounded),
            _batches(nncf, calibration),
            nncf.Dataset([judged[i : i + 1] for i in range(len(judged))]),
            agreement,
            max_drop=MAX_DROP,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=MAX_RESTORED, ranking_subset_size=RANKED_ON
            ),
            advanced_quantization_parameters=_extremes(nncf),
            **_options(nncf, calibration, kept),
        )


def _options(nncf: Any, calibration: Crops, kept: list[str]) -> dict[str, Any]:
    return {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": -(-len(calibration) // BATCH),
        "ignored_scope": nncf.IgnoredScope(patterns=[f"{re.escape(block)}/.*" for block in kept], validate=False),
    }


def _extremes(nncf: Any) -> Any:
    """Ranges that hold every value seen: by default they are means over batches, which cuts off the brightest pixels."""
    whole = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    return nncf.AdvancedQuantizationParameters(activations_range_estimator_params=whole)


def _batches(nncf: Any, crops: Crops) -> Any:
    return nncf.Dataset([crops[i : i + BATCH] for i in range(0, len(crops), BATCH)])


def _answers(compiled: Any, crops: Crops) -> Probs:
    return np.concatenate([compiled({INPUT: crops[i : i + BATCH]})[0] for i in range(0, len(crops), BATCH)])


def _import_nncf() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        with quiet():
            import nncf
    except ModuleNotFoundError as error:
        raise MissingDependencyError.for_extra("openvino", error.name or "nncf") from None
    nncf.set_log_level(40)
    return nncf
