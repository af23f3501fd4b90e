"""int8 in the ONNX graph: a ladder of calibrations that ends where parity is met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.export.fp16 import blocks, in_float, noise
from deepfer_yolo.export.onnx import quiet, save, strip
from deepfer_yolo.export.parity import stratify
from deepfer_yolo.export.rewrite import shorten
from deepfer_yolo.export.rounding import Floats, Observed, best_range, full_range, observe, round_weights, steps_of
from deepfer_yolo.records import Crops
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.onnx_graph import INPUT
from deepfer_yolo.runtime.preprocess import to_inputs

if TYPE_CHECKING:
    import onnx

    from deepfer_yolo.export.candidates import Request

Overrides = dict[str, list[dict[str, Any]]]
"""onnxruntime's word for what one tensor's quantisation shall be."""
BATCH = 32
SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Rung:
    """One way of int8: how the ranges of activations are found, the bits of the weights, and how many of the noisiest
    blocks stay in floating point.

    Weights have 7 bits, since with 8 the 16-bit sums of x86 processors without VNNI saturate, so that the file would
    answer differently by machine (13 of 100 labels of FER2013 changed). Unsigned weights do not, and are as slow as
    fp32. In floating point they have 8 bits.
    """

    name: str
    ranges: str = "least squares"
    bits: int = 7
    n_float: int = 0


LADDER = (
    Rung("min-max", "min-max"),
    Rung("least squares"),
    *(Rung(f"least squares, {n} noisiest blocks in floating point", n_float=n) for n in (2, 3, 4, 6, 8)),
)
"""Fastest first. The files are all about as large, since weights are stored in 8 bits whatever calculates with them."""


def ladder(model: onnx.ModelProto, request: Request) -> Iterator[tuple[str, Callable[[], onnx.ModelProto]]]:
    """Name and maker of each int8 graph, the fastest first; all are calibrated on the same training pictures."""
    if request.data is None:
        raise DatasetError("int8 needs a data set to be calibrated on", "add --data DATASET")
    crops, n_left_out = calibration_pictures(
        request.data, request.card.input, request.config.calibration, request.avoid
    )
    seen = f"{len(crops)} training pictures" + (
        f", {n_left_out} others left out as equal to evaluated ones" if n_left_out else ""
    )
    quantiser = Quantiser(observe(prepare(model, request.scratch), crops), request.scratch)
    for rung in LADDER:
        if rung.n_float > most_float(quantiser.blocks):
            break
        yield f"{rung.name}, {seen}", partial(_made, quantiser, rung)


def most_float(blocks: Sequence[str]) -> int:
    """How many of the blocks may stay in floating point: with nearly all of them a file is int8 in name alone."""
    return 3 * len(blocks) // 4


def _made(quantiser: Quantiser, rung: Rung) -> onnx.ModelProto:
    return shorten(quantiser.make(rung))


def calibration_pictures(
    folder: Path, spec: InputSpec, n: int, avoid: frozenset[str], seed: int = 0
) -> tuple[Crops, int]:
    """`n` stratified training pictures as crops (n, S, S, 3), and how many were left out since they are among the
    evaluated ones.

    `avoid` holds SHA-256 of file contents. Raises DatasetError where too few are left.
    """
    dataset = open_dataset(folder)
    rows = dataset.rows(SPLIT)
    allowed = [row for row in rows if row.sha256 not in avoid]
    if len(allowed) < min(n, 32):
        raise DatasetError(
            f"{folder}: {len(allowed)} training pictures are too few to calibrate int8",
            "use a data set with a train split",
        )
    chosen = stratify(allowed, n, seed)[:n]
    return to_inputs(list(load_images(dataset, chosen)), spec), len(rows) - len(allowed)


class Quantiser:
    """Static QDQ int8 graphs of one observed float graph, weights per channel; what rungs have in common is worked out
    once.

    `folder` holds the intermediate files. `symmetric` is TensorRT's form: no zero points, and rounding in front of
    convolutions and matrix products only.
    """

    def __init__(self, observed: Observed, folder: Path, *, symmetric: bool = False) -> None:
        from onnx import numpy_helper

        self._observed, self._folder, self._symmetric = observed, folder, symmetric
        stored = {tensor.name: tensor for tensor in observed.graph.graph.initializer}
        self._layers = {
            node.input[1]: (numpy_helper.to_array(stored[node.input[1]]), observed.products[node.name])
            for node in observed.graph.graph.node
            if node.op_type == "Conv"
        }
        self._block_of = blocks(observed.graph)
        self.blocks = sorted(set(self._block_of.values()))
        self._weights: dict[tuple[str, int], NDArray[np.float32]] = {}
        self._whole: dict[tuple[str, int], onnx.ModelProto] = {}
        self._noise: dict[tuple[str, int], dict[str, float]] = {}

    def make(self, rung: Rung) -> onnx.ModelProto:
        """The graph of one rung."""
        key = rung.ranges, rung.bits
        if key not in self._whole:
            self._whole[key] = self._quantised(rung)
        if not rung.n_float:
            return self._whole[key]
        worst = self.noisiest(rung)[: rung.n_float]
        return strip(in_float(self._whole[key], self._block_of, lambda block: block in worst, self._fine))

    def noisiest(self, rung: Rung) -> list[str]:
        """All blocks, the one first whose rounded activations move the answers most."""
        key = rung.ranges, rung.bits
        if key not in self._noise:
            some = slice(0, N_JUDGED)
            whole = self.make(replace(rung, n_float=0))
            self._noise[key] = noise(whole, self._block_of, self._observed.crops[some], self._observed.probs[some])
        found = self._noise[key]
        return sorted(found, key=lambda block: -found[block])

    def on_grid(self, bits: int) -> onnx.ModelProto:
        """The float graph with its convolutions' weights rounded to `bits`; a quantiser that rounds them again changes
        nothing.
        """
        return self._on_grid(bits)[0]

    def _quantised(self, rung: Rung) -> onnx.ModelProto:
        import onnx

        source, target = self._folder / "rounded.onnx", self._folder / "int8.onnx"
        graph, grids = self._on_grid(rung.bits)
        save(graph, source)
        with quiet():
            _quantise(source, target, self._observed, grids | self._ranges(rung.ranges), symmetric=self._symmetric)
        return strip(onnx.load(str(target)))

    def _on_grid(self, bits: int) -> tuple[onnx.ModelProto, Overrides]:
        """The graph with its convolutions' weights rounded to `bits`, and the grids, which the quantiser would
        otherwise guess again.
        """
        import onnx
        from onnx import numpy_helper
        from onnxruntime.quantization import QuantType

        graph = onnx.ModelProto()
        graph.CopyFrom(self._observed.graph)
        stored = {tensor.name: tensor for tensor in graph.graph.initializer}
        grids: Overrides = {}
        for name in self._layers:
            weights, steps = self._round(name, bits)
            stored[name].CopyFrom(numpy_helper.from_array(weights, name))
            grids[name] = [
                {"axis": 0, "scale": step, "zero_point": np.int8(0), "quant_type": QuantType.QInt8} for step in steps
            ]
        return graph, grids

    def _round(self, name: str, bits: int) -> tuple[Floats, Floats]:
        """A convolution's weights on the grid of `bits`, and the grid's step for each output channel."""
        n_levels = 2 ** (bits - 1) - 1
        weights, products = self._layers[name]
        steps = steps_of(weights, n_levels)
        if (name, bits) not in self._weights:
            self._weights[name, bits] = round_weights(weights, steps, products, n_levels)
        return self._weights[name, bits], steps

    def _fine(self, name: str) -> tuple[NDArray[np.int8], Floats]:
        """Levels and steps of a convolution's weights in all 8 bits."""
        weights, steps = self._round(name, 8)
        return np.round(weights / steps.reshape(-1, *[1] * (weights.ndim - 1))).astype(np.int8), steps

    def _ranges(self, how: str) -> Overrides:
        silus = _before_silu(self._observed.graph)
        found = {
            name: full_range(values) if how == "min-max" else best_range(values, before_silu=name in silus)
            for name, values in self._observed.values.items()
        }
        return {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in found.items()}


def _before_silu(model: onnx.ModelProto) -> set[str]:
    """Activations that only a SiLU takes: a sigmoid, and the product with it."""
    users: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    return {name for name, kinds in users.items() if sorted(kinds) == ["Mul", "Sigmoid"]}


def _quantise(source: Path, target: Path, observed: Observed, overrides: Overrides, *, symmetric: bool) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    # TensorRT knows no zero points and keeps biases in floating point.
    options = {"ActivationSymmetric": True, "QuantizeBias": False} if symmetric else {}
    quantize_static(
        str(source),
        str(target),
        Reader(observed.crops[:BATCH]),  # it insists on calibrating too, though every range is given
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_behind_last_convolution(observed.graph),
        op_types_to_quantize=SYMMETRIC_QUANTISED if symmetric else QUANTISED,
        extra_options=options | {"TensorQuantOverrides": overrides},
    )


QUANTISED = ["Conv", "MatMul", "Gemm", "Add", "Mul", "Sigmoid", "Concat", "Split", "GlobalAveragePool", "Reshape"]
"""All but what scales the pixels, which arrive as uint8 already, and the softmax."""
SYMMETRIC_QUANTISED = ["Conv", "MatMul", "Gemm"]
N_JUDGED = 256
"""Calibration pictures on which the noise of blocks is measured."""


def _behind_last_convolution(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that follow the last convolution: little work, and what is lost there is in the answer at
    once.
    """
    nodes = list(model.graph.node)
    last = max((i for i, node in enumerate(nodes) if node.op_type == "Conv"), default=-1)
    reached = set(nodes[last].output) if last >= 0 else set()
    found = []
    for node in nodes[last + 1 :]:
        if reached & set(node.input):
            reached |= set(node.output)
            found.append(node.name)
    return found


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
        self._batches: Iterator[dict[str, Any]] = iter(
            {INPUT: self.crops[i : i + BATCH]} for i in range(0, len(self.crops), BATCH)
        )


def prepare(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """`model` with shapes inferred and layers fused, as the quantiser wants it."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # From a file: given a model in memory it moves the weights into a temporary file and then loses that.
    source, target = folder / "source.onnx", folder / "prepared.onnx"
    save(model, source)
    with quiet():
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    return onnx.load(str(target))
