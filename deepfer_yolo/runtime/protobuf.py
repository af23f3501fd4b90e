"""Protocol Buffers' wire format, for the fields of ONNX files that are looked at or changed here; all others stay as
they are, to the byte.

A file may come from a stranger, and the bytes that are checked here are those that a run-time then reads by itself.
What two readers could take for different things is refused: a field of one value that stands twice (the last one
counts, or both are merged), one that is not of its type (it is passed over), a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

MAX_PARTS = 1_000_000
"""Fields of one file that are taken apart; deepfer-n, of 158 operators, has 5,000."""
MAX_DEPTH = 100
"""Messages inside of each other, as many as the libraries of Protocol Buffers allow."""
MAX_NUMBERS = 100_000_000
VARINT, FIXED64, SIZED, FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}

INT, INT32, TEXT, DATA = "int", "int32", "text", "data"
SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "graph": (7, "Graph"),
        "metadata_props": (14, "Entry*"),
        "training_info": (20, "Training*"),
        "functions": (25, "Function*"),
    },
    "Entry": {"key": (1, TEXT), "value": (2, TEXT)},
    "Training": {"initialization": (1, "Graph"), "algorithm": (2, "Graph")},
    "Function": {"node": (7, "Node*"), "attribute_proto": (11, "Attribute*")},
    "Graph": {
        "node": (1, "Node*"),
        "initializer": (5, "Tensor*"),
        "input": (11, "Value*"),
        "output": (12, "Value*"),
        "value_info": (13, "Value*"),
        "sparse_initializer": (15, "Sparse*"),
    },
    "Node": {
        "input": (1, "text*"),
        "output": (2, "text*"),
        "op_type": (4, TEXT),
        "attribute": (5, "Attribute*"),
        "domain": (7, TEXT),
    },
    "Attribute": {
        "name": (1, TEXT),
        "i": (3, INT),
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "Tensor*"),
        "graphs": (11, "Graph*"),
        "type": (20, INT32),
        "sparse_tensor": (22, "Sparse"),
        "sparse_tensors": (23, "Sparse*"),
    },
    "Tensor": {
        "dims": (1, "int*"),
        "data_type": (2, INT32),
        "int32_data": (5, "int*"),
        "name": (8, TEXT),
        "raw_data": (9, DATA),
        "external_data": (13, "data*"),
        "data_location": (14, INT32),
    },
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Value": {"name": (1, TEXT), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, INT32), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "Dim*")},
    "Dim": {"dim_value": (1, INT), "dim_param": (2, TEXT)},
}
"""By message: number and type of the fields that are read, * where one may stand several times (onnx.proto)."""
_BY_NUMBER = {kind: {number: (name, type_) for name, (number, type_) in of.items()} for kind, of in SCHEMA.items()}

Content: TypeAlias = "bytes | memoryview"
Value: TypeAlias = "int | str | Content | Message"
Part: TypeAlias = tuple[int, int, Value]
"""A field: its number, its wire type and its value."""


class Message:
    """A message of `SCHEMA` with all its fields, in the order of the file; it is never changed."""

    __slots__ = ("_content", "_parts", "kind")

    def __init__(self, kind: str, parts: Sequence[Part] = (), content: Content | None = None) -> None:
        self.kind = kind
        self._parts = parts
        self._content = content

    @property
    def content(self) -> Content:
        """The message as bytes: those of the file where nothing was replaced."""
        if self._content is None:
            self._content = b"".join(_encoded(self._parts))
        return self._content

    def has(self, name: str) -> bool:
        """Whether field `name` is there."""
        return any(True for _ in self._values(name))

    def child(self, name: str) -> Message:
        """The message in field `name`, an empty one where there is none."""
        return next(iter(self.children(name)), Message(SCHEMA[self.kind][name][1]))

    def children(self, *names: str) -> list[Message]:
        """The messages in these fields; without names, in all fields."""
        return [value for value in self._values(*names) if isinstance(value, Message)]

    def text(self, name: str) -> str:
        """The text in field `name`, "" where there is none."""
        return next(iter(self.texts(name)), "")

    def texts(self, name: str) -> list[str]:
        """The texts in field `name`."""
        return [value for value in self._values(name) if isinstance(value, str)]

    def data(self, name: str) -> Content:
        """The bytes in field `name`, none where it is missing."""
        return next((value for value in self._values(name) if isinstance(value, bytes | memoryview)), b"")

    def number(self, name: str) -> int | None:
        """The number in field `name`, as `numbers`."""
        return next(iter(self.numbers(name)), None)

    def numbers(self, name: str, most: int = MAX_NUMBERS) -> list[int]:
        """The numbers in field `name`, signed, of 64 bits. Raises ValueError for more than `most`."""
        found: list[int] = []
        for value in self._values(name):
            if isinstance(value, int):
                found.append(value)
            elif isinstance(value, memoryview):
                if len(value) > 10 * most:
                    raise ValueError(f"{self.kind}.{name} has more than {most:,} numbers")
                found += _varints(value)
            if len(found) > most:
                raise ValueError(f"{self.kind}.{name} has more than {most:,} numbers")
        return [_signed(value) for value in found]

    def replaced(self, name: str, values: Sequence[Value]) -> Message:
        """A message with `values` as its fields `name`, where the first of them stood, or else in order of number."""
        number = SCHEMA[self.kind][name][0]
        new = [(number, VARINT if isinstance(value, int) else SIZED, value) for value in values]
        before = next((i for i, part in enumerate(self._parts) if part[0] >= number), len(self._parts))
        kept = [part for part in self._parts[before:] if part[0] != number]
        return Message(self.kind, [*self._parts[:before], *new, *kept])

    def without(self, *names: str) -> Message:
        """A message without these fields."""
        numbers = {SCHEMA[self.kind][name][0] for name in names}
        return Message(self.kind, [part for part in self._parts if part[0] not in numbers])

    def _values(self, *names: str) -> Iterator[Value]:
        numbers = {SCHEMA[self.kind][name][0] for name in names}
        return (value for number, _, value in self._parts if number in numbers or not names)


def made(kind: str, **fields: Sequence[Value]) -> Message:
    """A new message with the values of each field."""
    message = Message(kind)
    for name, values in fields.items():
        message = message.replaced(name, values)
    return message


def parse(kind: str, content: bytes) -> Message:
    """The message that `content` is. Raises ValueError where it is none, or one that `MAX_PARTS` or `MAX_DEPTH` bar."""
    return _parse(kind, content, memoryview(content), MAX_DEPTH, [MAX_PARTS])


def _parse(kind: str, whole: Content, content: memoryview, depth: int, left: list[int]) -> Message:
    if depth == 0:
        raise ValueError(f"messages stand more than {MAX_DEPTH} deep in each other")
    known, seen = _BY_NUMBER[kind], set()
    parts: list[Part] = []
    for number, wire, found in _fields(content):
        value: Value = found
        left[0] -= 1
        if left[0] < 0:
            raise ValueError(f"it has more than {MAX_PARTS:,} parts")
        if number in known:
            name, type_ = known[number]
            if number in seen and type_[-1] != "*":
                raise ValueError(f"{kind}.{name} stands twice")
            seen.add(number)
            if wire != (VARINT if type_[:3] == INT else SIZED) and (type_, wire) != ("int*", SIZED):
                raise ValueError(f"{kind}.{name} is not of its type")
            if type_ == INT32 and isinstance(found, int) and not -(1 << 31) <= _signed(found) < 1 << 31:
                raise ValueError(f"{kind}.{name} is {_signed(found)}, which 32 bits do not hold")
            if isinstance(found, memoryview) and type_[:4] == TEXT:
                value = str(found, "utf-8")
            elif isinstance(found, memoryview) and type_[0].isupper():
                value = _parse(type_.rstrip("*"), found, found, depth - 1, left)
        parts.append((number, wire, value))
    return Message(kind, parts, whole)


def _fields(content: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of each field. Raises ValueError where the bytes are none."""
    at, end = 0, len(content)
    while at < end:
        tag, at = _varint(content, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"a field has the number {number}")
        if wire == VARINT:
            value, at = _varint(content, at)
            yield number, wire, value
            continue
        if wire == SIZED:
            size, at = _varint(content, at)
        elif wire in _FIXED_BYTES:
            size = _FIXED_BYTES[wire]
        else:
            raise ValueError(f"field {number} is of the unknown wire type {wire}")
        if size > end - at:
            raise ValueError(f"field {number} claims {size:,} bytes of {end - at:,}")
        yield number, wire, content[at : at + size]
        at += size


def _varint(content: Content, at: int) -> tuple[int, int]:
    """The number that begins at `at`, unsigned, of 64 bits, and the place behind it."""
    value = shift = 0
    for place in range(at, min(at + 10, len(content))):
        byte = content[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, place + 1
        shift += 7
    raise ValueError("a number does not end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varints(content: Content) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = _varint(content, at)
        yield value


def _encoded(parts: Sequence[Part]) -> Iterator[Content]:
    for number, wire, value in parts:
        yield _encoded_varint(number << 3 | wire)
        if isinstance(value, int):
            yield _encoded_varint(value % (1 << 64))
            continue
        content = value.content if isinstance(value, Message) else value.encode() if isinstance(value, str) else value
        if wire == SIZED:
            yield _encoded_varint(len(content))
        yield content


def _encoded_varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
