"""Two changes of an ONNX file's bytes for the browser; what is not changed here keeps its bytes."""

from __future__ import annotations

from deepfer_yolo.runtime.protobuf import Content, Message, made, parse


def without_metadata(model: bytes) -> Content:
    """The model without the texts that are attached to it: its card, and hashes of the images that it has learned."""
    return parse("Model", model).without("metadata_props").content


def with_free_sides(model: bytes) -> Content:
    """YuNet, whose one input says 1 × 3 × 640 × 640, with height and width left open, and with them the number of
    candidates (1 × 6400 × 1) of each output; what the file says of shapes in between follows from these and goes.

    Raises ValueError for what is no such file.
    """
    parsed = parse("Model", model)
    graph = parsed.child("graph").without("value_info")
    inputs = [_freed(value, {2: "height", 3: "width"}) for value in graph.children("input")]
    outputs = [_freed(value, {1: f"n_{value.text('name')}"}) for value in graph.children("output")]
    graph = graph.replaced("input", inputs).replaced("output", outputs)
    return parsed.replaced("graph", [graph]).without("metadata_props").content


def output_names(model: bytes) -> frozenset[str]:
    """What the outputs of the graph are called. Raises ValueError for what is no ONNX file."""
    return frozenset(value.text("name") for value in parse("Model", model).child("graph").children("output"))


def _freed(value: Message, names: dict[int, str]) -> Message:
    """An input or output whose sides at these places are called so instead of having a length."""
    kind = value.child("type")
    tensor = kind.child("tensor_type")
    shape = tensor.child("shape")
    dims = [made("Dim", dim_param=[names[i]]) if i in names else dim for i, dim in enumerate(shape.children("dim"))]
    tensor = tensor.replaced("shape", [shape.replaced("dim", dims)])
    return value.replaced("type", [kind.replaced("tensor_type", [tensor])])
