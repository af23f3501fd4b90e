"""Reading an ONNX file that a stranger may have made: everything is checked before any run-time sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.card import (
    DIGEST_KEY,
    HASHES_KEY,
    METADATA_KEY,
    SCHEMA_VERSION,
    Card,
    another_card,
    check_digest,
    digest_of,
    no_card,
    parse_card,
    unpack_hashes,
)
from deepfer_yolo.runtime.protobuf import Message, made, parse

MAX_BYTES = 512_000_000
"""No classifier of faces is larger; read into memory once."""
MAX_ELEMENTS, MAX_DIMS = 200_000_000, 64
"""In one stored tensor."""
DOMAINS = frozenset({"", "ai.onnx"})
"""Operators outside ONNX itself need a library beside the file, which a file from a stranger must not bring."""
INPUT, OUTPUT = "image", "probs"
FLOAT, UINT8, INT8 = 1, 2, 3
"""TensorProto's codes of types."""


def read_graph(path: Path) -> Message:
    """The file taken apart, free of external data and custom operators. Raises ModelError that says what was
    refused.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ModelError(
            f"{path} is larger than {MAX_BYTES // 1_000_000} MB ({size:,} bytes)", "no face classifier needs that much"
        )
    try:
        model = parse("Model", path.read_bytes())
        is_empty = not model.child("graph").has("node") or not model.child("graph").has("output")
        if not is_empty:
            _check_safe(model, path)
    except ValueError as error:
        raise ModelError(
            f"{path} is not a readable ONNX file, or a truncated one ({error})", "export it again with: deepfer export"
        ) from None
    if is_empty:
        raise ModelError(f"{path} is not an ONNX model: it holds no graph", "export it again with: deepfer export")
    return model


def _check_safe(model: Message, path: Path) -> None:
    for part in _parts(model):
        if part.kind == "Node" and part.text("domain") not in DOMAINS:
            raise ModelError(
                f"{path}: the operator {part.text('domain')}::{part.text('op_type')} is not part of ONNX",
                "only files made of ONNX's own operators are opened",
            )
        if part.kind != "Tensor":
            continue
        if part.has("external_data") or part.number("data_location"):
            raise ModelError(
                f"{path}: the tensor '{part.text('name')}' lies outside the file (external data)",
                "save the model as one file",
            )
        dims = part.numbers("dims", MAX_DIMS)
        if min(dims, default=0) < 0 or prod(dims) > MAX_ELEMENTS:
            raise ModelError(f"{path}: the tensor '{part.text('name')}' claims the shape {dims}")


def _parts(model: Message) -> Iterator[Message]:
    """All that is read of a file: the graph, the functions, the graphs nested in them (If, Loop, Scan), and all tensors
    in them.
    """
    stack = [model]
    while stack:
        part = stack.pop()
        yield part
        stack += part.children()


def graph_sha256(model: Message) -> str:
    """SHA-256 of the graph's bytes alone, so that the metadata around it can change."""
    return hashlib.sha256(model.child("graph").content).hexdigest()


def open_graph(path: Path, *, changed: bool = False) -> tuple[Message, Card]:
    """The file taken apart and its card, which describes it. Raises ModelError that says what was refused; a card or
    hashes that were changed are, unless they may be `changed`.
    """
    model = read_graph(path)
    said = _metadata(model, path)
    card, graph = _card_of(said, path), graph_sha256(model)
    _check_card(model, card, path, graph)
    if not changed:
        check_digest(card, said.get(DIGEST_KEY), _digest(model, graph, said), path, path)
    return model, card


def metadata(model: Message) -> list[tuple[str, str]]:
    """What a file says beside its graph: keys and values."""
    return [(entry.text("key"), entry.text("value")) for entry in model.children("metadata_props")]


def _metadata(model: Message, path: Path) -> dict[str, str]:
    """What the file says by key; raises ModelError where a key of ours stands twice."""
    entries = metadata(model)
    keys = [key for key, _ in entries]
    for key in (METADATA_KEY, HASHES_KEY, DIGEST_KEY):
        if keys.count(key) > 1:
            raise ModelError(f"{path}: the metadata '{key}' stands twice", "export it again with: deepfer export")
    return dict(entries)


def _card_of(said: dict[str, str], path: Path) -> Card:
    if METADATA_KEY not in said:
        raise no_card(path)
    card, hashes = parse_card(said[METADATA_KEY], str(path), path), said.get(HASHES_KEY)
    if hashes is None:
        return card
    try:
        unpack_hashes(hashes)
    except ValueError as error:
        raise ModelError(f"{path}: {error}", "the file was damaged or changed; export it again") from None
    return card.model_copy(update={"trained_hashes": hashes})


def _digest(model: Message, graph: str, said: dict[str, str]) -> str:
    """One digest over all that a run-time or a judge of the model reads: the SHA-256 of the graph, what stands around
    it (versions of the operators, functions), the card's text and that of the hashes, where there are any.
    """
    texts = [said[key].encode() for key in (METADATA_KEY, HASHES_KEY) if key in said]
    return digest_of(graph.encode(), bytes(model.without("graph", "metadata_props").content), *texts)


def with_card(model: Message, card: Card) -> tuple[Message, Card]:
    """`model` with `card`, completed by the graph's SHA-256, and the digest in its metadata; and the card as written.

    Hashes of training images that are in the metadata already stay there where `card` has none.
    """
    graph = graph_sha256(model)
    card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "graph_sha256": graph, "file_sha256": None})
    said = {key: value for key, value in metadata(model) if key not in (METADATA_KEY, DIGEST_KEY)}
    if card.trained_hashes is not None:
        said[HASHES_KEY] = card.trained_hashes
    said[METADATA_KEY] = card.to_json()
    said[DIGEST_KEY] = _digest(model, graph, said)
    return with_metadata(model, said), card.model_copy(update={"trained_hashes": said.get(HASHES_KEY)})


def with_metadata(model: Message, said: dict[str, str]) -> Message:
    """`model` that says this by key, and nothing else."""
    return model.replaced("metadata_props", [made("Entry", key=[key], value=[said[key]]) for key in said])


def _check_card(model: Message, card: Card, path: Path, digest: str) -> None:
    """Raise ModelError with the difference where the card and the graph beside it disagree."""
    shape_in, shape_out = io_shapes(model, path)
    side, n_labels = card.input.size, len(card.labels)
    if shape_in[1:] != (side, side, 3):
        raise ModelError(
            f"{path}: the card says the input is (n, {side}, {side}, 3), the graph says {_show(shape_in)}",
            another_card(path),
        )
    if len(shape_out) != 2 or shape_out[1] not in {n_labels, None}:
        raise ModelError(
            f"{path}: the card has {n_labels} labels, the graph's output is {_show(shape_out)}", another_card(path)
        )
    if card.graph_sha256 is not None and card.graph_sha256 != digest:
        found = f"SHA-256 {digest[:12]}… against {card.graph_sha256[:12]}…"
        raise ModelError(
            f"{path}: the graph is not the one its card describes ({found})",
            "the file was changed after its export; export it again",
        )


def io_shapes(model: Message, path: Path) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Shapes of the one input `image` (uint8) and the one output `probs` (float32), None where dynamic; raises
    ModelError for others.
    """
    graph = model.child("graph")
    inputs, outputs = graph_inputs(graph), graph.children("output")
    named = [(value.text("name"), elem_type(value)) for value in (*inputs, *outputs)]
    if named != [(INPUT, UINT8), (OUTPUT, FLOAT)]:
        listed = ", ".join(name for name, _ in named)
        raise ModelError(
            f"{path} is not in this program's form (uint8 '{INPUT}' in, float32 '{OUTPUT}' out): it has {listed}",
            f"deepfer card {path} --help shows how to wrap a foreign classifier",
        )
    return value_shape(inputs[0]), value_shape(outputs[0])


def graph_inputs(graph: Message) -> list[Message]:
    """The inputs that a caller gives; old graphs list their stored tensors too."""
    stored = {tensor.text("name") for tensor in graph.children("initializer")}
    return [value for value in graph.children("input") if value.text("name") not in stored]


def stored_ints(tensor: Message) -> NDArray[np.int8]:
    """The numbers of an int8 tensor, flat."""
    raw = tensor.data("raw_data")
    return np.frombuffer(raw, np.int8) if len(raw) else np.array(tensor.numbers("int32_data"), np.int64).astype(np.int8)


def elem_type(value: Message) -> int:
    """TensorProto's code of the type of an input or output."""
    return value.child("type").child("tensor_type").number("elem_type") or 0


def value_shape(value: Message) -> tuple[int | None, ...]:
    """The declared shape of an input or output, None for a dynamic side."""
    dims = value.child("type").child("tensor_type").child("shape").children("dim")
    return tuple(dim.number("dim_value") for dim in dims)


def _show(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("n" if side is None else str(side) for side in shape) + ")"
