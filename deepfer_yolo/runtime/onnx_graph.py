"""Reading an ONNX file that a stranger may have made: everything is checked before any run-time sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.card import (
    DIGEST_KEY,
    HASHES_KEY,
    METADATA_KEY,
    SCHEMA_VERSION,
    Card,
    check_digest,
    digest_of,
    no_card,
    parse_card,
    unpack_hashes,
)

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 512_000_000
"""No classifier of faces is larger; read into memory once."""
MAX_ELEMENTS = 200_000_000
"""In one stored tensor."""
DOMAINS = frozenset({"", "ai.onnx"})
"""Operators outside ONNX itself need a library beside the file, which a file from a stranger must not bring."""
INPUT, OUTPUT = "image", "probs"


def read_graph(path: Path) -> onnx.ModelProto:
    """The parsed file, free of external data and custom operators. Raises ModelError that says what was refused."""
    import onnx

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ModelError(
            f"{path} is larger than {MAX_BYTES // 1_000_000} MB ({size:,} bytes)", "no face classifier needs that much"
        )
    content = path.read_bytes()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError has a different class in each of its implementations
        raise ModelError(
            f"{path} is not a readable ONNX file, or a truncated one ({error})", "export it again with: deepfer export"
        ) from None
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path} is not an ONNX model: it holds no graph", "export it again with: deepfer export")
    _check_safe(model, path)
    return model


def _check_safe(model: onnx.ModelProto, path: Path) -> None:
    bodies = list(_bodies(model))
    for node in (node for body in bodies for node in body.node):
        if node.domain not in DOMAINS:
            raise ModelError(
                f"{path}: the operator {node.domain}::{node.op_type} is not part of ONNX",
                "only files made of ONNX's own operators are opened",
            )
    for tensor in (tensor for body in bodies for tensor in _tensors(body)):
        if tensor.external_data or tensor.data_location == 1:
            raise ModelError(
                f"{path}: the tensor '{tensor.name}' lies outside the file (external data)",
                "save the model as one file",
            )
        if min(tensor.dims, default=0) < 0 or prod(tensor.dims) > MAX_ELEMENTS:
            raise ModelError(f"{path}: the tensor '{tensor.name}' claims the shape {list(tensor.dims)}")


def _bodies(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph, the functions, and the graphs nested in them (If, Loop, Scan)."""
    stack = [model.graph, *model.functions]
    while stack:
        body = stack.pop()
        yield body
        for attribute in (attribute for node in body.node for attribute in node.attribute):
            stack += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _tensors(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """The tensors stored in one body: initialisers, sparse ones, constants and other attributes."""
    holders = [attribute for node in body.node for attribute in node.attribute]
    dense = [*(holder.t for holder in holders if holder.HasField("t")), *(t for h in holders for t in h.tensors)]
    sparse = [holder.sparse_tensor for holder in holders if holder.HasField("sparse_tensor")]
    sparse += [tensor for holder in holders for tensor in holder.sparse_tensors]
    if hasattr(body, "initializer"):  # functions have none
        dense += body.initializer
        sparse += body.sparse_initializer
    yield from dense
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def graph_sha256(model: onnx.ModelProto) -> str:
    """SHA-256 of the serialised graph alone, so that the metadata around it can change."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def open_graph(path: Path, *, changed: bool = False) -> tuple[onnx.ModelProto, Card]:
    """The parsed file and its card, which describes it. Raises ModelError that says what was refused; a card or hashes
    that were changed are, unless they may be `changed`.
    """
    model = read_graph(path)
    said = _metadata(model, path)
    card, graph = _card_of(said, path), graph_sha256(model)
    _check_card(model, card, path, graph)
    if not changed:
        check_digest(card, said.get(DIGEST_KEY), _digest(model, graph, said), path)
    return model, card


def _metadata(model: onnx.ModelProto, path: Path) -> dict[str, str]:
    """What the file says by key; raises ModelError where a key of ours stands twice."""
    keys = [entry.key for entry in model.metadata_props]
    for key in (METADATA_KEY, HASHES_KEY, DIGEST_KEY):
        if keys.count(key) > 1:
            raise ModelError(f"{path}: the metadata '{key}' stands twice", "export it again with: deepfer export")
    return {entry.key: entry.value for entry in model.metadata_props}


def _card_of(said: dict[str, str], path: Path) -> Card:
    if METADATA_KEY not in said:
        raise no_card(path)
    card, hashes = parse_card(said[METADATA_KEY], str(path)), said.get(HASHES_KEY)
    if hashes is None:
        return card
    try:
        unpack_hashes(hashes)
    except ValueError as error:
        raise ModelError(f"{path}: {error}", "the file was damaged or changed; export it again") from None
    return card.model_copy(update={"trained_hashes": hashes})


def _digest(model: onnx.ModelProto, graph: str, said: dict[str, str]) -> str:
    """One digest over all that a run-time or a judge of the model reads: the SHA-256 of the graph, what stands around
    it (versions of the operators, functions), the card's text and that of the hashes, where there are any.
    """
    around = type(model)()
    for field, value in model.ListFields():
        if field.name not in ("graph", "metadata_props"):
            if hasattr(value, "MergeFrom"):
                getattr(around, field.name).MergeFrom(value)
            else:
                setattr(around, field.name, value)
    texts = [said[key].encode() for key in (METADATA_KEY, HASHES_KEY) if key in said]
    return digest_of(graph.encode(), around.SerializeToString(deterministic=True), *texts)


def put_card(model: onnx.ModelProto, card: Card) -> Card:
    """Write `card`, completed by the graph's SHA-256, and the digest into the metadata of `model`; returns the card as
    written.

    Hashes of training images that are in the metadata already stay there where `card` has none.
    """
    graph = graph_sha256(model)
    card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "graph_sha256": graph, "file_sha256": None})
    said = {entry.key: entry.value for entry in model.metadata_props if entry.key not in (METADATA_KEY, DIGEST_KEY)}
    if card.trained_hashes is not None:
        said[HASHES_KEY] = card.trained_hashes
    said[METADATA_KEY] = card.to_json()
    said[DIGEST_KEY] = _digest(model, graph, said)
    del model.metadata_props[:]
    for key, value in said.items():
        model.metadata_props.add(key=key, value=value)
    return card.model_copy(update={"trained_hashes": said.get(HASHES_KEY)})


def _check_card(model: onnx.ModelProto, card: Card, path: Path, digest: str) -> None:
    """Raise ModelError with the difference where the card and the graph beside it disagree."""
    shape_in, shape_out = io_shapes(model, path)
    side, n_labels = card.input.size, len(card.labels)
    if shape_in[1:] != (side, side, 3):
        raise ModelError(
            f"{path}: the card says the input is (n, {side}, {side}, 3), the graph says {_show(shape_in)}",
            f"deepfer card {path}",
        )
    if len(shape_out) != 2 or shape_out[1] not in {n_labels, None}:
        raise ModelError(
            f"{path}: the card has {n_labels} labels, the graph's output is {_show(shape_out)}", f"deepfer card {path}"
        )
    if card.graph_sha256 is not None and card.graph_sha256 != digest:
        found = f"SHA-256 {digest[:12]}… against {card.graph_sha256[:12]}…"
        raise ModelError(
            f"{path}: the graph is not the one its card describes ({found})",
            "the file was changed after its export; export it again",
        )


def io_shapes(model: onnx.ModelProto, path: Path) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Shapes of the one input `image` (uint8) and the one output `probs` (float32), None where dynamic; raises
    ModelError for others.
    """
    inputs, outputs = graph_inputs(model.graph), list(model.graph.output)
    named = [(v.name, v.type.tensor_type.elem_type) for v in (*inputs, *outputs)]
    if named != [(INPUT, 2), (OUTPUT, 1)]:  # TensorProto.UINT8 and FLOAT
        listed = ", ".join(name for name, _ in named)
        raise ModelError(
            f"{path} is not in this program's form (uint8 '{INPUT}' in, float32 '{OUTPUT}' out): it has {listed}",
            f"deepfer card {path} --help shows how to wrap a foreign classifier",
        )
    return value_shape(inputs[0]), value_shape(outputs[0])


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller gives; old graphs list their stored tensors too."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def value_shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """The declared shape of an input or output, None for a dynamic side."""
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim)


def _show(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("n" if side is None else str(side) for side in shape) + ")"
