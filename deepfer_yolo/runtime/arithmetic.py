"""The arithmetic that a run-time chooses: what OpenVINO's own choice would give and cost, and 8-bit files that
onnxruntime calculates in floating point.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepfer_yolo.painted import paint_golden
from deepfer_yolo.records import Crops, Json, Probs, plain
from deepfer_yolo.runtime.backends.protocol import Backend
from deepfer_yolo.runtime.onnx_graph import INPUT, OUTPUT, open_graph

if TYPE_CHECKING:
    import onnx

N_FACES, SEED = 64, 2013


@dataclass(frozen=True, slots=True)
class OwnChoice:
    """OpenVINO without our fp32 hint: `speed` is how many times faster, in processor time at `batch`; `max_diff` and
    `n_changed` are of the probabilities and labels of `n` painted faces.
    """

    arithmetic: str
    batch: int
    speed: float
    max_diff: float
    n_changed: int
    n: int

    @property
    def line(self) -> str:
        """As `benchmark` prints it."""
        moved = f"moves a probability by up to {self.max_diff:.1e} and {self.n_changed} of {self.n} labels"
        return f"fp32 by our hint; OpenVINO's own choice, {self.arithmetic}, is {self.speed:.2f} × as fast and {moved}"

    def to_json(self) -> Json:
        """All of it."""
        shown: Json = plain(self)
        return shown


@dataclass(frozen=True, slots=True)
class SignedActivations:
    """An int8 file with signed activations: `n_float` of its `n` convolutions run in floating point, `n_float_unsigned`
    with the same numbers unsigned, which is `speed` times as fast, in processor time at `batch`.
    """

    n: int
    n_float: int
    n_float_unsigned: int
    batch: int
    speed: float

    @property
    def line(self) -> str:
        """As `benchmark` prints it."""
        what = f"cause: signed activations (S8S8) leave {self.n_float} of {self.n} convolutions in floating point here"
        fix = "quantise them unsigned (QuantType.QUInt8), as deepfer export --precision int8 does"
        return f"{what}; unsigned it is {self.speed:.2f} × as fast: {fix}"

    def to_json(self) -> Json:
        """All of it."""
        shown: Json = plain(self)
        return shown


def own_choice(path: Path, threads: int, batch: int, calls: int) -> OwnChoice | None:
    """What OpenVINO does without our hint; None where it chooses fp32 by itself."""
    from deepfer_yolo.runtime.backends.openvino import OpenVinoBackend

    ours, free = (OpenVinoBackend(path, threads=threads, precision=hint) for hint in ("f32", None))
    if free.arithmetic == ours.arithmetic:
        return None
    size = ours.card.input.size
    left, right = (_in_parts(backend, paint_golden(SEED, N_FACES, size)) for backend in (ours, free))
    crops = _repeated(size, batch)
    return OwnChoice(
        free.arithmetic,
        batch,
        round(_ratio(lambda: ours.run(crops), lambda: free.run(crops), calls), 3),
        float(np.abs(left - right).max()),
        int((left.argmax(1) != right.argmax(1)).sum()),
        N_FACES,
    )


def signed_activations(path: Path, threads: int, batch: int, calls: int) -> SignedActivations | None:
    """What an int8 ONNX file loses by signed activations in onnxruntime on this processor; None where it loses
    nothing by them.
    """
    graph, card = open_graph(path)
    unsigned = _unsigned(graph)
    if unsigned is None:
        return None
    (left, n, n_float), (right, _, n_less) = (_opened(one, threads) for one in (graph, unsigned))
    if n_less >= n_float:
        return None
    crops = _repeated(card.input.size, batch)
    return SignedActivations(
        n, n_float, n_less, batch, round(_ratio(lambda: left(crops), lambda: right(crops), calls), 3)
    )


def _ratio(slow: Callable[[], object], fast: Callable[[], object], calls: int) -> float:
    """Processor time of one call of the first over that of the second, medians of calls in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(calls + 1):
        for call, spent in zip((slow, fast), times, strict=True):
            began = time.process_time()
            call()
            spent.append(time.process_time() - began)
    return float(np.median(times[0][1:])) / max(float(np.median(times[1][1:])), 1e-9)


def _repeated(size: int, batch: int) -> Crops:
    return np.resize(paint_golden(SEED, min(batch, 8), size), (batch, size, size, 3))


def _in_parts(backend: Backend, crops: Crops) -> Probs:
    return np.concatenate([backend.run(crops[start : start + 8]) for start in range(0, len(crops), 8)])


def _opened(graph: onnx.ModelProto, threads: int) -> tuple[Callable[[Crops], Probs], int, int]:
    """The graph in onnxruntime, its convolutions, and how many of them it calculates in floating point."""
    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="deepfer-graph-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
        session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    n_float = sum("Conv" in kind and "QLinear" not in kind for kind in kinds)
    return lambda crops: session.run([OUTPUT], {INPUT: crops})[0], n_float + kinds.count("QLinearConv"), n_float


def _unsigned(graph: onnx.ModelProto) -> onnx.ModelProto | None:
    """The same numbers with unsigned activations: zero points moved by 128; None where none are signed."""
    from onnx import TensorProto, numpy_helper

    copy = type(graph)()
    copy.CopyFrom(graph)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    rounded = {node.output[0]: node for node in copy.graph.node if node.op_type == "QuantizeLinear"}
    pairs = [node for node in copy.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in rounded]
    names = {node.input[2] for node in (*pairs, *rounded.values()) if len(node.input) > 2}
    signed = {name for name in names if name in stored and stored[name].data_type == TensorProto.INT8}
    for name in signed:
        moved = numpy_helper.to_array(stored[name]).astype(np.int16) + 128
        stored[name].CopyFrom(numpy_helper.from_array(moved.astype(np.uint8), name))
    return copy if signed else None
