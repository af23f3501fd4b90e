"""fp16 in the ONNX graph: as a mere way to store or, for GPUs, all of it; and the latter's answers worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.export.candidates import Candidate, of_graph
from deepfer_yolo.export.graph import block_names, block_of, copied, keep, quiet, strip
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.onnx_graph import INPUT

if TYPE_CHECKING:
    import onnx


KEPT_FP32 = ("Softmax", "Div", "Cast", "Transpose")
"""Types left in fp32: the scaling of the pixels and the softmax, which cost nothing and would cost accuracy."""
MIN_STORED = 64
"""Elements of a tensor that is worth storing in fp16."""


def ladder(model: onnx.ModelProto, *, arithmetic: bool = False) -> Iterator[Candidate]:
    """The fp16 graphs; with `arithmetic` those first that calculate in fp16, the fastest in front.

    An early error goes through everything that follows, and early blocks have few weights: half of the blocks cost a
    twentieth of the size.
    """
    if arithmetic:
        half = len(block_names(model)) // 2
        yield of_graph("fp16", "fp16", partial(to_fp16, model), "fp16")
        yield of_graph(f"fp16, first {half} blocks in fp32", "fp16", partial(to_fp16, model, half), "fp16")
    name, make = stored(model)
    yield of_graph(name, "fp16", make, "fp32")


def stored(model: onnx.ModelProto) -> tuple[str, Callable[[], onnx.ModelProto]]:
    """Name and maker of the graph whose weights alone are fp16."""
    half = len(block_names(model)) // 2
    return f"fp16 weights, fp32 arithmetic, first {half} blocks in fp32", partial(store_fp16, model, half)


def to_fp16(model: onnx.ModelProto, n_first: int = 0) -> onnx.ModelProto:
    """`model` with fp16 weights and arithmetic, fp32 at both ends and in its first `n_first` blocks."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    first = block_names(model)[:n_first]
    kept = [node.name for node in model.graph.node if block_of(node.name) in first]
    with quiet():
        converted: onnx.ModelProto = convert_float_to_float16(
            copied(model), keep_io_types=True, op_block_list=list(KEPT_FP32), node_block_list=kept
        )
        _drop_round_trips(converted.graph)
        OnnxModel(converted).topological_sort()  # it appends its casts at the end, where strict readers refuse them
    return strip(converted)


def store_fp16(model: onnx.ModelProto, n_first: int) -> onnx.ModelProto:
    """`model` with the weights behind its first `n_first` blocks stored in fp16 and cast to fp32, once, by the run-time
    that loads it.
    """
    from onnx import TensorProto, helper, numpy_helper

    copy = copied(model)
    first = block_names(model)[:n_first]
    exact = {name for node in model.graph.node if block_of(node.name) in first for name in node.input}
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


def emulated(model: onnx.ModelProto, crops: Crops) -> Probs:
    """What `model` answers where fp16 is calculated in fp16, every result of a node rounded to it: ONNX's own reference
    in numpy. x86 processors calculate such files in fp32, and prove the rounding of their weights alone.
    """
    from onnx.reference import ReferenceEvaluator

    with np.errstate(over="ignore", invalid="ignore"):  # the branch of its sigmoid that is not taken
        answers: Any = ReferenceEvaluator(model).run(None, {INPUT: crops})
    probs: Probs = answers[0]
    return probs


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
