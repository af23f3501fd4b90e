"""Smaller numbers in the ONNX graph: fp16 weights, or int8 by a ladder of calibrations that ends where parity is met."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.export.onnx import save, strip
from deepfer_yolo.export.pictures import stratify
from deepfer_yolo.records import Crops
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.graph import INPUT
from deepfer_yolo.runtime.preprocess import to_inputs

if TYPE_CHECKING:
    import onnx

    from deepfer_yolo.export.formats import Request

BATCH = 32
SPLIT = "train"
KEPT_FP32 = ("Softmax", "Div", "Cast", "Transpose")
"""Left in fp32 in a fp16 graph: the scaling of the pixels and the softmax, which cost nothing and would cost accuracy."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One way of int8: how the ranges are found, the bits of the weights, and how many of the noisiest layers stay in floating point.

    Weights are signed with 7 bits, or unsigned with 8: signed ones with 8 bits saturate in 16-bit sums on x86 processors without VNNI, so
    that the file would answer differently by machine (13 of 100 labels of FER2013 changed, where unsigned ones changed 7).
    """

    name: str
    method: str
    bits: int = 7
    n_excluded: int = 0


LADDER = (
    Rung("min-max", "MinMax"),
    Rung("entropy", "Entropy"),
    Rung("percentile", "Percentile"),
    Rung("min-max, 8-bit weights", "MinMax", 8),
    Rung("min-max, 8-bit weights, 6 noisiest layers in fp32", "MinMax", 8, 6),
    Rung("min-max, 8-bit weights, 14 noisiest layers in fp32", "MinMax", 8, 14),
)
"""Fastest first: 7-bit weights ran 1.45 times as fast as fp32 on one AVX2 core, unsigned 8-bit ones 1.1 times."""


def ladder(model: onnx.ModelProto, request: Request) -> Iterator[tuple[str, Callable[[], onnx.ModelProto]]]:
    """Name and maker of each int8 graph, the smallest first; all are calibrated on the same training pictures."""
    if request.data is None:
        raise DatasetError("int8 needs a data set to be calibrated on", "add --data DATASET")
    crops, n_left_out = calibration_pictures(request.data, request.card.input, request.config.calibration, request.avoid)
    seen = f"{len(crops)} training pictures" + (f", {n_left_out} others left out as equal to evaluated ones" if n_left_out else "")
    for rung in LADDER:
        yield f"{rung.name}, {seen}", partial(to_int8, model, crops, rung, request.scratch)


def calibration_pictures(folder: Path, spec: InputSpec, n: int, avoid: frozenset[str], seed: int = 0) -> tuple[Crops, int]:
    """`n` stratified training pictures as crops (n, S, S, 3), and how many were left out since they are among the evaluated ones.

    `avoid` holds SHA-256 of file contents. Raises DatasetError where too few are left.
    """
    dataset = open_dataset(folder)
    rows = dataset.rows(SPLIT)
    allowed = [row for row in rows if row.sha256 not in avoid]
    if len(allowed) < min(n, 32):
        raise DatasetError(f"{folder}: {len(allowed)} training pictures are too few to calibrate int8", "use a data set with a train split")
    chosen = stratify(allowed, n, seed)[:n]
    return to_inputs(list(load_images(dataset, chosen)), spec), len(rows) - len(allowed)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with fp16 weights and arithmetic, fp32 at both ends."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with quiet():
        converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True, op_block_list=list(KEPT_FP32))
    return strip(converted)


def to_int8(model: onnx.ModelProto, crops: Crops, rung: Rung, folder: Path, *, symmetric: bool = False) -> onnx.ModelProto:
    """`model` in static QDQ int8, per channel, calibrated on `crops`; `folder` holds the intermediate files."""
    import onnx

    prepared, quantised = folder / "prepared.onnx", folder / "int8.onnx"
    with quiet():
        _prepare(model, prepared)
        excluded = noisiest(prepared, crops, rung.n_excluded, folder) if rung.n_excluded else []
        _quantise(prepared, quantised, crops, rung, excluded, symmetric=symmetric)
    return strip(onnx.load(str(quantised)))


def _quantise(source: Path, target: Path, crops: Crops, rung: Rung, excluded: list[str], *, symmetric: bool = False) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # TensorRT knows no zero points and keeps biases in floating point.
    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False} if symmetric else {}
    quantize_static(
        str(source),
        str(target),
        Reader(crops),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        reduce_range=rung.bits == 7 and not symmetric,
        weight_type=QuantType.QInt8 if symmetric or rung.bits == 7 else QuantType.QUInt8,
        nodes_to_exclude=excluded,
        calibrate_method=CalibrationMethod[rung.method],
        op_types_to_quantize=SYMMETRIC_QUANTISED if symmetric else QUANTISED,
        extra_options=options,
    )


QUANTISED = ["Conv", "MatMul", "Gemm", "Add", "Mul", "Sigmoid", "Concat", "Split", "GlobalAveragePool", "Reshape"]
"""All but what scales the pixels, which arrive as uint8 already, and the softmax."""
MAX_KEPT_WEIGHTS = 40_000
"""A layer with more weights than this is never left in fp32."""
SYMMETRIC_QUANTISED = ["Conv", "MatMul", "Gemm"]


def noisiest(prepared: Path, crops: Crops, n: int, folder: Path) -> list[str]:
    """Names of the nodes of the `n` small convolutions whose output loses most to rounding: the lowest signal-to-noise ratio.

    Only those whose weights are few count, since each one that stays in fp32 takes four times its room.
    """
    import onnx
    from onnxruntime.quantization import qdq_loss_debug

    quantised = folder / "probe.onnx"
    _quantise(prepared, quantised, crops, Rung("probe", "MinMax", 8), [])
    found = []
    for source in (prepared, quantised):
        shown = folder / f"{source.stem}-shown.onnx"
        qdq_loss_debug.modify_model_output_intermediate_tensors(str(source), str(shown))
        found.append(qdq_loss_debug.collect_activations(str(shown), Reader(crops[:64])))
    errors = qdq_loss_debug.compute_activation_error(qdq_loss_debug.create_activation_matching(found[1], found[0]))
    graph = onnx.load(str(prepared)).graph
    elements = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    small = {node.output[0]: node.name for node in graph.node if node.op_type == "Conv" and elements.get(node.input[1], 0) <= MAX_KEPT_WEIGHTS}
    ranked = sorted((error["qdq_err"], name) for name, error in errors.items() if name in small)
    # With its activation: a module of the network is a folder in the names of its nodes, `…/cv1/conv/Conv` beside `…/cv1/act/Mul`.
    modules = tuple(small[name].rsplit("/", 2)[0] + "/" for _, name in ranked[:n])
    return [node.name for node in graph.node if node.name.startswith(modules)]


class Reader:
    """Calibration batches in the form that onnxruntime asks for; can be read again."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops
        self.rewind()

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None after the last."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._batches

    def rewind(self) -> None:
        """Start again."""
        self._batches: Iterator[dict[str, Any]] = iter({INPUT: self.crops[i : i + BATCH]} for i in range(0, len(self.crops), BATCH))


def _prepare(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` with shapes inferred and layers fused, as the quantiser wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # From a file: given a model in memory it moves the weights into a temporary file and then loses that.
    source = path.with_name("source.onnx")
    save(model, source)
    quant_pre_process(str(source), str(path), skip_symbolic_shape=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' log lines and warnings: what matters of them is measured afterwards."""
    import warnings

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        # The calibrators print their progress to stdout, which belongs to results.
        with warnings.catch_warnings(), np.errstate(all="ignore"), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
