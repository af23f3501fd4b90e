"""Messages between the server and its decode workers: JSON and raw bytes.

Never pickle: the worker handles files of strangers, and whoever takes it over must not be able to run code in the server.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedRWPair
from typing import Any

LENGTH = struct.Struct(">I")
MAX_HEAD = 16_000_000
MAX_BLOB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """What is said, and the bytes that go with it."""

    head: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def pack(message: Message) -> bytes:
    """A message as bytes: the length of its JSON, the JSON with the sizes of the blobs, the blobs."""
    head = json.dumps({"sizes": [len(blob) for blob in message.blobs], **message.head}).encode()
    return b"".join((LENGTH.pack(len(head)), head, *message.blobs))


def read(file: BufferedRWPair) -> Message | None:
    """The next message of a blocking file; None at its end."""
    start = file.read(LENGTH.size)
    if len(start) < LENGTH.size:
        return None
    head = json.loads(file.read(LENGTH.unpack(start)[0]))
    return Message(head, tuple(file.read(size) for size in head.pop("sizes")))


async def receive(reader: asyncio.StreamReader) -> Message:
    """The next message of a stream. Raises EOFError where the other side is gone and ValueError for what is no message."""
    length = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
    if length > MAX_HEAD:
        raise ValueError(f"a message of {length} bytes")
    head = json.loads(await reader.readexactly(length))
    return Message(head, tuple([await reader.readexactly(size) for size in _sizes(head)]))


def _sizes(head: Any) -> Sequence[int]:
    sizes: list[int] = head.pop("sizes")
    if not all(isinstance(size, int) and 0 <= size <= MAX_BLOB for size in sizes):
        raise ValueError(f"blobs of {sizes} bytes")
    return sizes
