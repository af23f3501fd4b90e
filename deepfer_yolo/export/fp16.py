"""fp16 in the ONNX graph: a ladder that begins with all of it and ends with fp16 as a mere way to store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.export.onnx import quiet, strip
from deepfer_yolo.export.rewrite import keep
from deepfer_yolo.export.rounding import answers
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
    model: onnx.ModelProto, names: dict[str, str], wanted: Callable[[str], bool], fine: Fine | None = None
) -> onnx.ModelProto:
    """`model` without the rounding of activations whose block is `wanted`.

    A layer that is left without a rounded input or output calculates in floating point. Its weights become a cast and a
    product, which every run-time works out once when it loads the file; a DequantizeLinear would be repeated in every
    call. `fine` gives better weights for such a layer than it had.
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


KEPT_FP32 = ("Softmax", "Div", "Cast", "Transpose")
"""Types left in fp32: the scaling of the pixels and the softmax, which cost nothing and would cost accuracy."""
MIN_STORED = 64
"""Elements of a tensor that is worth storing in fp16."""


def ladder(model: onnx.ModelProto) -> Iterator[tuple[str, Callable[[], onnx.ModelProto]]]:
    """Name and maker of each fp16 graph, the fastest first.

    An early error goes through everything that follows, and early blocks have few weights: half of the blocks cost a
    twentieth of the size.
    """
    half = len(_blocks(model)) // 2
    yield "fp16", partial(to_fp16, model)
    yield f"fp16, first {half} blocks in fp32", partial(to_fp16, model, half)
    yield from stored(model)


def stored(model: onnx.ModelProto) -> Iterator[tuple[str, Callable[[], onnx.ModelProto]]]:
    """The rungs whose weights alone are fp16."""
    half = len(_blocks(model)) // 2
    yield f"fp16 weights, fp32 arithmetic, first {half} blocks in fp32", partial(store_fp16, model, half)


def to_fp16(model: onnx.ModelProto, n_first: int = 0) -> onnx.ModelProto:
    """`model` with fp16 weights and arithmetic, fp32 at both ends and in its first `n_first` blocks."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    first = _blocks(model)[:n_first]
    kept = [node.name for node in model.graph.node if block_of(node.name) in first]
    with quiet():
        converted: onnx.ModelProto = convert_float_to_float16(
            _copy(model), keep_io_types=True, op_block_list=list(KEPT_FP32), node_block_list=kept
        )
        _drop_round_trips(converted.graph)
        OnnxModel(converted).topological_sort()  # it appends its casts at the end, where strict readers refuse them
    return strip(converted)


def store_fp16(model: onnx.ModelProto, n_first: int) -> onnx.ModelProto:
    """`model` with the weights behind its first `n_first` blocks stored in fp16 and cast to fp32, once, by the run-time
    that loads it.
    """
    from onnx import TensorProto, helper, numpy_helper

    copy = _copy(model)
    first = _blocks(model)[:n_first]
    exact = _taken(model, first)
    casts = []
    for tensor in copy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= MIN_STORED and tensor.name not in exact:
            stored = f"{tensor.name}/fp16"
            casts.append(helper.make_node("Cast", [stored], [tensor.name], f"{tensor.name}/Cast", to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *copy.graph.node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _drop_round_trips(graph: onnx.GraphProto) -> None:
    """Between two nodes kept in fp32 the converter rounds to fp16 and back: hand the tensor on as it is."""
    from onnx import TensorProto

    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    down = {name: node.input[0] for name, node in casts.items() if node.attribute[0].i == TensorProto.FLOAT16}
    whole = {
        name: down[node.input[0]]
        for name, node in casts.items()
        if node.attribute[0].i == TensorProto.FLOAT and node.input[0] in down
    }
    for node in graph.node:
        # The cast that gives the graph's output has to stay, and takes the whole tensor.
        node.input[:] = (
            [whole[node.output[0]]] if node.output[0] in whole else [whole.get(name, name) for name in node.input]
        )
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    keep(graph, [node for node in graph.node if used & set(node.output)])


def _blocks(model: onnx.ModelProto) -> list[str]:
    """The names of the network's blocks, in the order of the graph."""
    return list(dict.fromkeys(block for node in model.graph.node if (block := block_of(node.name))))


def _taken(model: onnx.ModelProto, blocks: Collection[str]) -> set[str]:
    return {name for node in model.graph.node if block_of(node.name) in blocks for name in node.input}


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
