"""int8 in the ONNX graph: a ladder of calibrations that ends where parity is met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.export.calibration import BATCH, Observed, answers, calibration_images, observe, prepare
from deepfer_yolo.export.candidates import Candidate, Request, of_graph
from deepfer_yolo.export.graph import attribute, blocks_of_activations, copied, keep, quiet, save, shorten, strip
from deepfer_yolo.export.rounding import Floats, best_range, full_range, round_weights, steps_of
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.records import Crops, JsonValue, Probs
from deepfer_yolo.runtime.card import Golden
from deepfer_yolo.runtime.golden import SEED, TOLERANCES, make_golden
from deepfer_yolo.runtime.onnx_graph import INPUT

if TYPE_CHECKING:
    import onnx

Overrides = dict[str, list[dict[str, object]]]
"""onnxruntime's word for what one tensor's quantisation shall be."""
Exact = Callable[[str], tuple[NDArray[np.int8], Floats]]
"""From the name of a convolution's weights to their levels and the step of each output channel."""
STORED_MARK = "_quantized"
"""What onnxruntime's quantiser adds to the name of stored weights."""
QUANTISED = ["Conv", "MatMul", "Gemm", "Add", "Mul", "Sigmoid", "Concat", "Split", "GlobalAveragePool", "Reshape"]
"""All but what scales the pixels, which arrive as uint8 already, and the softmax."""
SYMMETRIC_QUANTISED = ["Conv", "MatMul", "Gemm"]
N_SEEDS, ROOM = 16, 5
"""Seeds of golden inputs that are tried, until other arithmetic stays within a fifth of what `verify` allows."""
N_JUDGED = 256
"""Calibration images on which the noise of blocks is measured."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One way of int8: how the ranges of activations are found, and how many of the noisiest blocks stay in floating
    point.
    """

    name: str
    ranges: Literal["min-max", "least squares"] = "least squares"
    n_float: int = 0


LADDER = (
    Rung("min-max", "min-max"),
    Rung("least squares"),
    *(Rung(f"least squares, {n} noisiest blocks in floating point", n_float=n) for n in (2, 3, 4, 6, 8)),
)
"""Fastest first. The files are all about as large, since weights are stored in 8 bits whatever calculates with them."""


def ladder(model: onnx.ModelProto, request: Request) -> Iterator[Candidate]:
    """The int8 graphs, the fastest first; all are calibrated on the same training images."""
    crops, n_left_out = calibration_images(request.data, request.card.input, request.config.calibration, request.avoid)
    left_out = "" if len(crops) >= request.config.calibration else f" ({request.config.calibration} wanted)"
    left_out += f", {n_left_out} others left out as equal to evaluated ones" if n_left_out else ""
    quantiser = Quantiser(observe(prepare(model, request.scratch), crops), request.scratch)
    for rung in LADDER:
        # With nearly all blocks in floating point a file is int8 in name alone.
        if rung.n_float > 3 * quantiser.n_blocks // 4:
            break
        name = f"int8, {rung.name}, {len(crops)} training images{left_out}"
        yield of_graph(name, "int8", lambda rung=rung: shorten(quantiser.make(rung)))  # type: ignore[misc]


def steady_golden(model: onnx.ModelProto, run: Callable[[Crops], Probs], size: int) -> tuple[Golden, JsonValue]:
    """The golden part of an int8 file's card, from the first of `N_SEEDS` seeds whose answers another processor will
    give as well, or else the steadiest, and what it is worth.

    Where a value lies on the border of two levels, processors round it to either. The same graph without
    optimisation, its products in floating point, is such another processor.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    other = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[tuple[float, float, Golden]] = []
    for seed in range(SEED, SEED + N_SEEDS):
        golden = make_golden(run, size, seed=seed)
        expected = np.array(golden.probs)
        diff = np.abs(other.run(None, {INPUT: paint_golden(seed, golden.n, size)})[0] - expected).max()
        best = np.sort(expected, axis=1)
        found.append((float(diff), float((best[:, -1] - best[:, -2]).min()), golden))
        if diff <= TOLERANCES["int8"] / ROOM and found[-1][1] > TOLERANCES["int8"]:
            break
    diff, margin, golden = found[-1] if len(found) < N_SEEDS else min(found, key=lambda one: one[0])
    return golden, {"max_diff": diff, "allowed": TOLERANCES["int8"], "label_margin": margin}


class Quantiser:
    """Static QDQ int8 graphs of one observed float graph, weights per channel; what rungs have in common is worked out
    once.

    Weights have 7 bits, since with 8 the 16-bit sums of x86 processors without VNNI saturate, so that the file would
    answer differently by machine (13 of 100 labels of FER2013 changed). Unsigned weights do not, and are as slow as
    fp32. In floating point they have 8 bits.

    `folder` holds the intermediate files. `symmetric` is TensorRT's form: no zero points, rounding in front of
    convolutions and matrix products only, and weights of 8 bits, since a GPU's sums do not saturate.
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
        self._block_of = blocks_of_activations(observed.graph)
        self.n_blocks = len(set(self._block_of.values()))
        self._weights: dict[tuple[str, int], Floats] = {}
        self._whole: dict[str, onnx.ModelProto] = {}
        self._noisiest: dict[str, list[str]] = {}

    def make(self, rung: Rung) -> onnx.ModelProto:
        """The graph of one rung."""
        if rung.ranges not in self._whole:
            self._whole[rung.ranges] = self._quantised(rung.ranges)
        whole = self._whole[rung.ranges]
        if not rung.n_float:
            return whole
        if rung.ranges not in self._noisiest:
            crops, probs = self._observed.crops[:N_JUDGED], self._observed.probs[:N_JUDGED]
            found = noise(whole, self._block_of, crops, probs)
            self._noisiest[rung.ranges] = sorted(found, key=lambda block: -found[block])
        kept = self._noisiest[rung.ranges][: rung.n_float]
        return strip(in_float(whole, self._block_of, lambda block: block in kept, self._exact))

    def _quantised(self, ranges: str) -> onnx.ModelProto:
        import onnx
        from onnx import numpy_helper
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        graph = copied(self._observed.graph)
        stored = {tensor.name: tensor for tensor in graph.graph.initializer}
        # The quantiser is given every range and the grid of every weight, which it would otherwise guess.
        grids = self._ranges(ranges)
        for name in self._layers:
            weights, steps = self._round(name, 8 if self._symmetric else 7)
            stored[name].CopyFrom(numpy_helper.from_array(weights, name))
            grid = {"axis": 0, "zero_point": np.int8(0), "quant_type": QuantType.QInt8}
            grids[name] = [{**grid, "scale": step} for step in steps]
        source, target = self._folder / "rounded.onnx", self._folder / "int8.onnx"
        save(graph, source)
        # TensorRT knows no zero points and keeps biases in floating point.
        options = {"ActivationSymmetric": True, "QuantizeBias": False} if self._symmetric else {}
        with quiet():
            quantize_static(
                str(source),
                str(target),
                _OneBatch(self._observed.crops[:BATCH]),  # it insists on calibrating
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if self._symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_behind_last_convolution(self._observed.graph),
                op_types_to_quantize=SYMMETRIC_QUANTISED if self._symmetric else QUANTISED,
                extra_options=options | {"TensorQuantOverrides": grids},
            )
        made = strip(onnx.load(str(target)))
        _drop_pairs(made.graph, _before_relu(made.graph))
        if not self._symmetric:
            self._keep_first_in_float(made.graph)
        return made

    def _keep_first_in_float(self, graph: onnx.GraphProto) -> None:
        """Where the first convolution reads a single plane: nine products an output are too few for integer matrix
        products, which took 24 µs an image where floating point takes 3 (48 px, 16 channels, one thread).
        """
        first = next(node for node in graph.node if node.op_type == "Conv")
        makers = {node.output[0]: node for node in graph.node}
        rounded = makers[first.input[0]]
        if attribute(first, "dilations", [1, 1]) != [1, 1] and rounded.op_type == "DequantizeLinear":
            _drop_pairs(graph, {makers[rounded.input[0]].input[0]})
            _unfold(graph, set(first.input[1:]), self._exact)

    def _round(self, name: str, bits: int) -> tuple[Floats, Floats]:
        """A convolution's weights on the grid of `bits`, and the grid's step for each output channel."""
        n_levels = 2 ** (bits - 1) - 1
        weights, products = self._layers[name]
        steps = steps_of(weights, n_levels)
        if (name, bits) not in self._weights:
            self._weights[name, bits] = round_weights(weights, steps, products, n_levels)
        return self._weights[name, bits], steps

    def _exact(self, name: str) -> tuple[NDArray[np.int8], Floats]:
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


def _before_relu(graph: onnx.GraphProto) -> set[str]:
    """Rounded activations that only a ReLU takes whose own output is rounded: once, above zero, is enough."""
    makers = {name: node for node in graph.node for name in node.output}
    n_users = Counter(name for node in graph.node for name in node.input)
    taken = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    found = set()
    for node in graph.node:
        pair = makers.get(node.input[0]) if node.op_type == "Relu" and node.output[0] in taken else None
        if pair is not None and pair.op_type == "DequantizeLinear" and n_users[pair.output[0]] == 1:
            found.add(makers[pair.input[0]].input[0])
    return found


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


class _OneBatch:
    """Calibration images in the form that onnxruntime asks for."""

    def __init__(self, crops: Crops) -> None:
        self._batches = iter([{INPUT: crops}])

    def get_next(self) -> dict[str, Crops] | None:
        """The batch, then None."""
        return next(self._batches, None)


def noise(model: onnx.ModelProto, names: dict[str, str], crops: Crops, expected: Probs) -> dict[str, float]:
    """By block: how far the answers move when its activations alone are rounded, as mean Kullback-Leibler divergence
    from `expected`.

    The noises of blocks are nearly independent, so that their sum is about the noise of the whole graph.
    """
    found = {}
    for block in sorted(set(names.values())):
        alone = in_float(model, names, lambda other, block=block: other != block)  # type: ignore[misc]
        found[block] = divergence(expected, answers(alone, crops))
    return found


def divergence(expected: Probs, actual: Probs) -> float:
    """Mean Kullback-Leibler divergence of `actual` from `expected`, float32 (n, C) each, in nats."""
    left, right = expected.astype(np.float64) + 1e-9, actual.astype(np.float64) + 1e-9
    return float((left * np.log(left / right)).sum(1).mean())


def in_float(
    model: onnx.ModelProto, names: dict[str, str], wanted: Callable[[str], bool], exact: Exact | None = None
) -> onnx.ModelProto:
    """`model` without the rounding of activations whose block is `wanted`.

    A layer that is left without a rounded input or output calculates in floating point. Its weights become a cast and a
    product, which every run-time works out once when it loads the file; a DequantizeLinear would be repeated in every
    call. `exact` gives better weights for such a layer than it had.
    """
    copy = copied(model)
    _drop_pairs(copy.graph, {name for name, block in names.items() if wanted(block)})
    rounded = {node.output[0] for node in copy.graph.node if node.op_type == "DequantizeLinear"}
    taken = {name for node in copy.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    taken |= {node.input[0] for node in copy.graph.node if node.op_type == "Relu" and node.output[0] in taken}
    floats = [
        n for n in copy.graph.node if n.op_type == "Conv" and not (n.input[0] in rounded and n.output[0] in taken)
    ]
    _unfold(copy.graph, {name for node in floats for name in node.input[1:]}, exact)
    return copy


def _drop_pairs(graph: onnx.GraphProto, unrounded: Collection[str]) -> None:
    makers = {
        node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in unrounded
    }
    pairs = {
        node.output[0]: makers[node.input[0]].input[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in makers
    }
    kept = [node for node in graph.node if node.output[0] not in makers and node.output[0] not in pairs]
    for node in kept:
        for i, name in enumerate(node.input):
            node.input[i] = pairs.get(name, name)
    keep(graph, kept)


def _unfold(graph: onnx.GraphProto, weights: Collection[str], exact: Exact | None) -> None:
    """Make the DequantizeLinear nodes that give `weights` a cast and a product."""
    from onnx import TensorProto, helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.output[0] not in weights or node.input[0] not in stored:
            nodes.append(node)
            continue
        levels, steps = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
        if exact is not None and levels.dtype == np.int8:
            levels, steps = exact(node.input[0].removesuffix(STORED_MARK))
        stored[node.input[0]].CopyFrom(numpy_helper.from_array(levels, node.input[0]))
        shaped = steps.reshape(-1, *[1] * (levels.ndim - 1)) if steps.ndim else steps
        stored[node.input[1]].CopyFrom(numpy_helper.from_array(shaped.astype(np.float32), node.input[1]))
        name = node.output[0]
        nodes += [
            helper.make_node("Cast", [node.input[0]], [f"{name}/levels"], f"{name}/Cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}/levels", node.input[1]], [name], f"{name}/Mul"),
        ]
    keep(graph, nodes)
