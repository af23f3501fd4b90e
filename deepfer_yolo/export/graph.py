"""ONNX graphs in the hands of an export: copies, blocks, what can go, and rewrites that leave the answers alone."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo import __version__

if TYPE_CHECKING:
    import onnx

Value = TypeVar("Value")
DEPTH = 3
"""Parts of a node's name, `/network/model.9/…`, that name its block: one layer of the network's own description."""
Cut = list[tuple[int, int, str]]
"""Channels from, to, and the name of the tensor that they become."""


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that can be changed without changing `model`."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def attribute(node: onnx.NodeProto, name: str, default: Value) -> Value:
    """The node's attribute as a Python value."""
    import onnx

    found: Iterator[Value] = (onnx.helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name)
    return next(found, default)


def keep(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make `nodes` the graph's, without the stored tensors that none of them takes."""
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, items in ((graph.node, nodes), (graph.initializer, kept)):
        del field[:]
        field.extend(items)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without source paths, notes and intermediate shapes, which would make its bytes differ by machine."""
    model.producer_name, model.producer_version, model.doc_string = "deepfer", __version__, ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.doc_string = ""
    model.graph.name = "deepfer"
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the model as one file, no data beside it."""
    path.write_bytes(model.SerializeToString())


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' log lines and warnings: what matters of them is measured afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # The calibrators print their progress to stdout, which belongs to results.
        with warnings.catch_warnings(), np.errstate(all="ignore"), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def blocks_of_activations(model: onnx.ModelProto) -> dict[str, str]:
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


def block_names(model: onnx.ModelProto) -> list[str]:
    """The names of the network's blocks, in the order of the graph."""
    return list(dict.fromkeys(block for node in model.graph.node if (block := block_of(node.name))))


def shorten(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with short names for nodes and inner tensors: names are 6 % of a small int8 file."""
    copy = copied(model)
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


def lighten(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed in place: a convolution with its SiLU that is cut along the channels becomes one for each part.

    onnxruntime calculates convolutions in blocks of channels and puts them back in order for every Slice and Split; two
    convolutions in place of one that is cut need none of that. 3 % less at batch 32, 2 % for a single image
    (yolo26n-cls at 64 px, one thread).
    """
    from onnx import numpy_helper

    graph = model.graph
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
    return model


def pixel_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the convolutions of a single pixel, which a pooling gives, as matrix products.

    onnxruntime calculates a convolution image by image and reads all weights for each.
    """
    from onnx import helper, numpy_helper

    copy = copied(model)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    pooled = {node.output[0] for node in copy.graph.node if node.op_type == "GlobalAveragePool"}
    nodes = []
    for node in copy.graph.node:
        if node.op_type != "Conv" or node.input[0] not in pooled or _is_grouped(node):
            nodes.append(node)
            continue
        weights, flat = numpy_helper.to_array(stored[node.input[1]]), f"{node.input[0]}_flat"
        product = np.ascontiguousarray(weights.reshape(len(weights), -1).T)
        stored[node.input[1]].CopyFrom(numpy_helper.from_array(product, node.input[1]))
        nodes += [
            helper.make_node("Flatten", node.input[:1], [flat], flat, axis=1),
            helper.make_node("Gemm", [flat, *node.input[1:]], list(node.output), node.name),
        ]
    keep(copy.graph, nodes)
    return copy


def _cut(users: list[onnx.NodeProto], stored: dict[str, NDArray[np.generic]], n_channels: int) -> Cut | None:
    """How `users` cut a tensor of `n_channels` into parts; None where they do anything else with it."""
    found: Cut = []
    for node in users:
        if any(name not in stored for name in node.input[1:]):
            return None
        numbers = [stored[name].ravel().tolist() for name in node.input[1:]]
        if node.op_type == "Slice" and len(numbers) >= 3 and numbers[2] == [1] and numbers[3:] in ([], [[1]]):
            start, end = int(numbers[0][0]), int(numbers[1][0])
            found.append((start, min(end, n_channels), node.output[0]))
        elif node.op_type == "Split" and attribute(node, "axis", 0) == 1 and len(numbers) == 1:
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
        copy = type(node)()
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
    return attribute(node, "group", 1) != 1


def _users(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that take a tensor, in the graph's order."""
    return [node for node in graph.node if name in node.input]
