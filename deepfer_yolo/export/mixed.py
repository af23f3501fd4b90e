"""Parts of an int8 graph calculated in floating point again, their weights still stored in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.export.observe import answers
from deepfer_yolo.export.rewrite import keep
from deepfer_yolo.records import Crops, Probs

if TYPE_CHECKING:
    import onnx

Fine = Callable[[str], tuple[NDArray[np.int8], NDArray[np.float32]]]
"""From the name of a convolution's weights to their levels and the step of each output channel."""
QUANTISED = "_quantized"
"""What onnxruntime's quantiser adds to the name of stored weights."""
DEPTH = 3
"""Parts of a node's name, `/network/model.9/…`, that name its block: one layer of the network's own description."""


def blocks(model: onnx.ModelProto) -> dict[str, str]:
    """The block of every activation: its producer's, or that of its first user for what comes before the network."""
    found: dict[str, str] = {}
    for node in reversed(model.graph.node):
        own = block_of(node.name)
        for name in node.output:
            found[name] = own or found.get(name, "")
        for name in node.input:
            if own:
                found[name] = own
            else:
                found.setdefault(name, found.get(node.output[0], ""))
    for node in model.graph.node:
        found |= dict.fromkeys(node.output, block_of(node.name)) if block_of(node.name) else {}
    return found


def block_of(name: str) -> str:
    """The block that a node's name says it belongs to; empty where it says none."""
    parts = name.split("/")
    return "/".join(parts[:DEPTH]) if len(parts) > DEPTH else ""


def noise(model: onnx.ModelProto, names: dict[str, str], crops: Crops, expected: Probs) -> dict[str, float]:
    """By block: how far the answers move when its activations alone are rounded, as mean Kullback-Leibler divergence from `expected`.

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


def in_float(model: onnx.ModelProto, names: dict[str, str], wanted: Callable[[str], bool], fine: Fine | None = None) -> onnx.ModelProto:
    """`model` without the rounding of activations whose block is `wanted`.

    A layer that is left without a rounded input or output calculates in floating point. Its weights become a cast and a product, which
    every run-time works out once when it loads the file; a DequantizeLinear would be repeated in every call. `fine` gives better weights
    for such a layer than it had.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _drop_pairs(copy.graph, {name for name, block in names.items() if wanted(block)})
    rounded = {node.output[0] for node in copy.graph.node if node.op_type == "DequantizeLinear"}
    taken = {name for node in copy.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    exact = [n for n in copy.graph.node if n.op_type == "Conv" and not (n.input[0] in rounded and n.output[0] in taken)]
    _unfold(copy.graph, {name for node in exact for name in node.input[1:]}, fine)
    return copy


def _drop_pairs(graph: onnx.GraphProto, unrounded: Collection[str]) -> None:
    makers = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in unrounded}
    pairs = {node.output[0]: makers[node.input[0]].input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in makers}
    kept = [node for node in graph.node if node.output[0] not in makers and node.output[0] not in pairs]
    for node in kept:
        for i, name in enumerate(node.input):
            node.input[i] = pairs.get(name, name)
    keep(graph, kept)


def _unfold(graph: onnx.GraphProto, weights: Collection[str], fine: Fine | None) -> None:
    """Make the DequantizeLinear nodes that give `weights` a cast and a product."""
    from onnx import TensorProto, helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.output[0] not in weights or node.input[0] not in stored:
            nodes.append(node)
            continue
        levels, steps = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
        if fine is not None and levels.dtype == np.int8:
            levels, steps = fine(node.input[0].removesuffix(QUANTISED))
        stored[node.input[0]].CopyFrom(numpy_helper.from_array(levels, node.input[0]))
        shaped = steps.reshape(-1, *[1] * (levels.ndim - 1)) if steps.ndim else steps
        stored[node.input[1]].CopyFrom(numpy_helper.from_array(shaped.astype(np.float32), node.input[1]))
        name = node.output[0]
        nodes += [
            helper.make_node("Cast", [node.input[0]], [f"{name}/levels"], f"{name}/Cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}/levels", node.input[1]], [name], f"{name}/Mul"),
        ]
    keep(graph, nodes)
