"""int8 for OpenVINO by NNCF: a ladder of ever more blocks in floating point, and NNCF's accuracy control, within bounds, at its end."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.errors import DatasetError, MissingDependencyError
from deepfer_yolo.export.formats import Request
from deepfer_yolo.export.observe import observe
from deepfer_yolo.export.openvino import convert
from deepfer_yolo.export.quantize import Quantiser, Rung, calibration_pictures, most_float, prepare
from deepfer_yolo.export.quiet import quiet
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.graph import INPUT
from deepfer_yolo.runtime.openvino import import_openvino

if TYPE_CHECKING:
    import onnx

N_FLOAT = (0, 2, 4, 6)
"""Noisiest blocks that stay in floating point, rung by rung."""
JUDGE = Rung("least squares")
"""The int8 graph on which the noise of blocks is measured."""
N_CONTROLLED = 4
"""Blocks that stay in floating point where NNCF's accuracy control finds the rest, layer by layer."""
MAX_DROP = 0.01
"""How much top-1 agreement with fp32 it may give up on held-out training pictures; layers return to floating point until it is met."""
MAX_RESTORED, RANKED_ON = 20, 128
"""Bounds of its search: layers that return, and pictures on which each of some hundred is ranked. Without them it took over nine minutes."""
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
        return nncf.quantize(model, _batches(nncf, calibration), advanced_parameters=_extremes(nncf), **_options(nncf, calibration, kept))


def _controlled(graph: onnx.ModelProto, rounded: onnx.ModelProto, calibration: Crops, held_out: Crops, kept: list[str]) -> Any:
    openvino, nncf = import_openvino(), _import_nncf()
    expected = _answers(openvino.compile_model(convert(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), held_out).argmax(1)

    def agreement(compiled: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        rows = np.concatenate(list(items))
        same = _answers(compiled, rows[:, :-1].reshape(-1, *held_out.shape[1:]).astype(np.uint8)).argmax(1) == rows[:, -1]
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
