"""The arithmetic that a run-time chooses: what OpenVINO's own choice would give and cost, and 8-bit files that
onnxruntime calculates in floating point.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepfer_yolo.painted import paint_golden
from deepfer_yolo.records import Crops, Json, Probs, plain
from deepfer_yolo.runtime.backends.protocol import Backend
from deepfer_yolo.runtime.onnx_graph import INPUT, INT8, OUTPUT, UINT8, open_graph, stored_ints
from deepfer_yolo.runtime.protobuf import Message, made, parse

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


def _opened(graph: Message, threads: int) -> tuple[Callable[[Crops], Probs], int, int]:
    """The graph in onnxruntime, its convolutions, and how many of them it calculates in floating point."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="deepfer-graph-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
        session = ort.InferenceSession(bytes(graph.content), options, providers=["CPUExecutionProvider"])
        optimised = parse("Model", Path(options.optimized_model_filepath).read_bytes())
        kinds = [node.text("op_type") for node in optimised.child("graph").children("node")]
    n_float = sum("Conv" in kind and "QLinear" not in kind for kind in kinds)
    return lambda crops: session.run([OUTPUT], {INPUT: crops})[0], n_float + kinds.count("QLinearConv"), n_float


def _unsigned(model: Message) -> Message | None:
    """The same numbers with unsigned activations: zero points moved by 128; None where none are signed."""
    graph = model.child("graph")
    nodes, stored = graph.children("node"), graph.children("initializer")
    rounding = [node for node in nodes if node.text("op_type") == "QuantizeLinear"]
    rounded = {output for node in rounding for output in node.texts("output")}
    pairs = [
        node
        for node in nodes
        if node.text("op_type") == "DequantizeLinear" and rounded.intersection(node.texts("input")[:1])
    ]
    names = {name for node in (*pairs, *rounding) for name in node.texts("input")[2:3]}
    signed = {tensor.text("name") for tensor in stored if tensor.number("data_type") == INT8} & names
    moved = [_moved(tensor) if tensor.text("name") in signed else tensor for tensor in stored]
    return model.replaced("graph", [graph.replaced("initializer", moved)]) if signed else None


def _moved(tensor: Message) -> Message:
    """An int8 tensor as uint8, each number larger by 128."""
    numbers = (stored_ints(tensor).astype(np.int16) + 128).astype(np.uint8)
    dims, name = tensor.numbers("dims"), tensor.text("name")
    return made("Tensor", dims=dims, data_type=[UINT8], name=[name], raw_data=[numbers.tobytes()])
