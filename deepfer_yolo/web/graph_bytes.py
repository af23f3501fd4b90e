"""Two changes of an ONNX file's bytes for the browser, by the wire format of protobuf alone.

An ONNX file is a message ModelProto: a row of fields, each a number, a kind and a value; what is not changed here keeps
its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from deepfer_yolo.errors import ModelError

GRAPH, METADATA = 7, 14
"""Fields of ModelProto."""
INPUT, OUTPUT, VALUE_INFO = 11, 12, 13
"""Fields of GraphProto; those of ValueInfoProto and what is below it stand in `_freed`."""
MESSAGE = 2
"""The kind of a field that holds bytes, text or a message."""

Field = tuple[int, int, bytes]


def without_metadata(model: bytes) -> bytes:
    """The model without the texts that are attached to it: its card, and hashes of the images that it has learned."""
    return _joined(field for field in _fields(model) if field[0] != METADATA)


def with_free_sides(model: bytes) -> bytes:
    """YuNet, whose one input says 1 × 3 × 640 × 640, with height and width left open, and with them the number of
    candidates (1 × 6400 × 1) of each output; what the file says of shapes in between follows from these and goes.
    """
    changed = []
    for number, kind, value in _fields(model):
        inside = value
        if number == GRAPH:
            kept = [field for field in _fields(value) if field[0] != VALUE_INFO]
            inside = _joined((n, k, _freed(v, _FREE[n]) if n in _FREE else v) for n, k, v in kept)
        changed.append((number, kind, inside))
    return _joined(field for field in changed if field[0] != METADATA)


_FREE = {INPUT: {2: "height", 3: "width"}, OUTPUT: {1: ""}}
"""Which sides are left open, and what they are called; an empty name is followed by that of the value."""


def _freed(value: bytes, names: dict[int, str]) -> bytes:
    """A ValueInfoProto (name 1, type 2 → tensor_type 1 → shape 2 → dim 1 → dim_value 1 or dim_param 2)."""
    own = next(v for n, _, v in _fields(value) if n == 1).decode("utf-8", "replace")

    def inside(message: bytes, path: tuple[int, ...]) -> bytes:
        if not path:
            dims = [v for n, _, v in _fields(message) if n == 1]
            opened = {i: _joined([(2, MESSAGE, (name or f"n_{own}").encode())]) for i, name in names.items()}
            return _joined((1, MESSAGE, opened.get(i, dim)) for i, dim in enumerate(dims))
        return _joined((n, k, inside(v, path[1:]) if n == path[0] else v) for n, k, v in _fields(message))

    return inside(value, (2, 1, 2))


def output_names(model: bytes) -> frozenset[str]:
    """What the outputs of the graph are called."""
    graph = next((value for number, _, value in _fields(model) if number == GRAPH), b"")
    outputs = [value for number, _, value in _fields(graph) if number == OUTPUT]
    return frozenset(v.decode("utf-8", "replace") for output in outputs for n, _, v in _fields(output) if n == 1)


def _fields(message: bytes) -> Iterator[Field]:
    """Number, kind and value of each field; raises ModelError where the bytes are no message."""
    at, end = 0, len(message)
    while at < end:
        key, at = _read_varint(message, at)
        number, kind = key >> 3, key & 7
        start = at
        if kind == 0:
            _, at = _read_varint(message, at)
        elif kind == MESSAGE:
            size, start = _read_varint(message, at)
            at = start + size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ModelError(f"no ONNX file: a field of kind {kind}")
        if at > end:
            raise ModelError("no ONNX file: it ends in the middle of a field")
        yield number, kind, message[start:at]


def _joined(fields: Iterator[Field] | list[Field]) -> bytes:
    parts = []
    for number, kind, value in fields:
        parts.append(_varint(number << 3 | kind))
        if kind == MESSAGE:
            parts.append(_varint(len(value)))
        parts.append(value)
    return b"".join(parts)


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content) and shift < 64:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ModelError("no ONNX file: it ends in the middle of a number")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
