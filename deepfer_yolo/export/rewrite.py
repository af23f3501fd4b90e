"""Rewrites of the ONNX graph that leave its answers alone and give a run-time less to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

Cut = list[tuple[int, int, str]]
"""Channels from, to, and the name of the tensor that they become."""


def lighten(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed in place: what is calculated at once and then cut in two is calculated in two.

    onnxruntime calculates convolutions in blocks of channels and puts them back in order for every Slice and Split; two
    convolutions in place of one that is cut need none of that. 3 % less for a single picture (yolo26n-cls at 64 px, one
    thread).
    """
    _cut_convolutions(model.graph)
    return model


def shorten(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with short names for nodes, and for tensors but its inputs and outputs: of a small int8 file names are 6
    %.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    outer = {value.name for value in (*graph.input, *graph.output)}
    inner = dict.fromkeys(
        name for node in graph.node for name in (*node.input, *node.output) if name and name not in outer
    )
    short = {name: f"t{i}" for i, name in enumerate(inner)}
    for i, node in enumerate(graph.node):
        node.name = f"n{i}"
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    return copy


def keep(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make `nodes` the graph's, without the stored tensors that none of them takes."""
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, items in ((graph.node, nodes), (graph.initializer, kept)):
        del field[:]
        field.extend(items)


def _cut_convolutions(graph: onnx.GraphProto) -> None:
    """Convolution, SiLU and a cut along the channels become a convolution and a SiLU for each part."""
    from onnx import numpy_helper

    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = list(graph.node)
    for conv in [node for node in nodes if node.op_type == "Conv" and not _is_grouped(node)]:
        act = sorted(_users(graph, conv.output[0]), key=lambda node: node.op_type)
        if [node.op_type for node in act] != ["Mul", "Sigmoid"] or set(act[0].input) != {
            conv.output[0],
            act[1].output[0],
        }:
            continue
        product = act[0]
        users = _users(graph, product.output[0])
        cut = _cut(users, stored, len(stored[conv.input[1]]))
        if cut is None:
            continue
        made = [node for part in cut for node in _part(graph, conv, act, part, stored)]
        place = nodes.index(conv)
        gone = {id(node) for node in (conv, *act, *users)}
        nodes = [node for node in (*nodes[:place], *made, *nodes[place:]) if id(node) not in gone]
    keep(graph, nodes)


def _cut(users: list[onnx.NodeProto], stored: dict[str, NDArray[np.generic]], n_channels: int) -> Cut | None:
    """How `users` cut a tensor of `n_channels` into parts; None where they do anything else with it."""
    found: Cut = []
    for node in users:
        if any(name not in stored for name in node.input[1:]):
            return None
        numbers = [stored[name].ravel().tolist() for name in node.input[1:]]
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if node.op_type == "Slice" and len(numbers) >= 3 and numbers[2] == [1] and numbers[3:] in ([], [[1]]):
            start, end = int(numbers[0][0]), int(numbers[1][0])
            found.append((start, min(end, n_channels), node.output[0]))
        elif node.op_type == "Split" and axis == 1 and len(numbers) == 1:
            ends = np.cumsum(numbers[0]).tolist()
            found += [(end - size, end, name) for size, end, name in zip(numbers[0], ends, node.output, strict=True)]
        else:
            return None
    return found if found and all(0 <= start < end <= n_channels for start, end, _ in found) else None


def _part(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    act: list[onnx.NodeProto],
    part: tuple[int, int, str],
    stored: dict[str, NDArray[np.generic]],
) -> list[onnx.NodeProto]:
    """The nodes that calculate some channels of `conv` and their SiLU, `act` being its product and its sigmoid; stores
    their weights.
    """
    import onnx
    from onnx import numpy_helper

    start, end, name = part
    mark = f"_{start}"
    product, sigmoid = act
    weights = [f"{stem}{mark}" for stem in conv.input[1:]]
    graph.initializer.extend(
        numpy_helper.from_array(stored[old][start:end].copy(), new)
        for old, new in zip(conv.input[1:], weights, strict=True)
    )
    made = []
    for node in (conv, sigmoid, product):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name += mark
        copy.output[0] += mark
        made.append(copy)
    made[0].input[1:] = weights
    made[1].input[0] = made[0].output[0]
    made[2].input[:] = [made[0].output[0], made[1].output[0]]
    made[2].output[0] = name
    return made


def _is_grouped(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)


def _users(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that take a tensor, in the graph's order."""
    return [node for node in graph.node if name in node.input]
