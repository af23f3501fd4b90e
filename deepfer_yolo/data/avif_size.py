"""How large the frames inside an AVIF file are, read without decoding.

The container states a size of its own, and Pillow tells no other; but a decoder allocates what the AV1 data announce,
which may be a thousand times as much (AV1 specification, 5.3 and 5.5; ISO/IEC 14496-12 for the boxes).
"""

from __future__ import annotations

from collections.abc import Iterator

SEQUENCE_HEADER = 1
MAX_ITEMS = 1000
"""Tiles of one image; a phone's have some dozens."""
MAX_PARTS = 10_000
"""Boxes of one level, places of all items, and units of one item's data; real files have some hundreds at most."""
MAX_COPIED = 1_000_000_000
"""Bytes of all items: equal tiles may lie in one place, so that they can be more than the file."""

Boxes = dict[bytes, bytes]


def largest_frame(content: bytes) -> int:
    """The pixels of the largest frame that a file's AV1 items announce.

    Raises ValueError where they cannot be found, as in an animated AVIF.
    """
    if content[8:12] == b"avis":
        raise ValueError("animated AVIF is not read")
    meta = _boxes(_boxes(content).get(b"meta", b"")[4:])
    items = _av1_items(meta.get(b"iinf", b""))
    found = [_frame(data) for key, data in _extents(meta, content) if key in items]
    if len(found) != len(items) or not items:
        raise ValueError("its AV1 items cannot be found")
    return max(found)


def _boxes(content: bytes) -> Boxes:
    """The boxes of one level by their type, each without its head; of two of a type the first."""
    return dict(reversed(list(_walk(content))))


def _walk(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = n = 0
    while at + 8 <= len(content):
        n += 1
        if n > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS:,} boxes")
        size, kind, head = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        size = size or len(content) - at
        if size < head or at + size > len(content):
            raise ValueError("a box is longer than the file")
        yield kind, content[at + head : at + size]
        at += size


class _Numbers:
    """Big-endian numbers of whole bytes, one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, size: int) -> int:
        """The next number, of `size` bytes. Raises ValueError behind the end."""
        part = self._content[self._at : self._at + size]
        if len(part) < size:
            raise ValueError("a box ends too early")
        self._at += size
        return int.from_bytes(part, "big")


def _av1_items(iinf: bytes) -> set[int]:
    """The numbers of the items that hold AV1 data."""
    wide = iinf[:1] != b"\0"
    found = set()
    for kind, body in _walk(iinf[8 if wide else 6 :]):
        if kind == b"infe" and body[:1] in (b"\2", b"\3"):
            numbers, size = _Numbers(body[4:]), 2 if body[0] == 2 else 4
            item = numbers.take(size)
            numbers.take(2)
            if numbers.take(4).to_bytes(4, "big") == b"av01":
                found.add(item)
    if len(found) > MAX_ITEMS:
        raise ValueError(f"more than {MAX_ITEMS:,} items")
    return found


def _extents(meta: Boxes, content: bytes) -> Iterator[tuple[int, bytes]]:
    """The number and the data of each item."""
    iloc = meta.get(b"iloc", b"")
    version, numbers = iloc[:1] or b"\0", _Numbers(iloc[4:])
    sizes, more = numbers.take(1), numbers.take(1)
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
    index_size = more & 15 if version != b"\0" else 0
    copied = n = 0
    for _ in range(numbers.take(4 if version == b"\2" else 2)):
        item = numbers.take(4 if version == b"\2" else 2)
        method = numbers.take(2) & 15 if version != b"\0" else 0
        numbers.take(2)
        base, data = numbers.take(base_size), bytearray()
        place = {0: content, 1: meta.get(b"idat", b"")}.get(method, b"")
        n += 1 + (n_places := numbers.take(2))
        if n > 2 * MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS:,} places of items")
        for _ in range(n_places):
            numbers.take(index_size)
            start, length = base + numbers.take(offset_size), numbers.take(length_size)
            part = place[start : start + length if length else None]
            data += part
            copied += len(part)
            if len(data) > len(content) or copied > MAX_COPIED:
                raise ValueError("an item is longer than the file")
        yield item, bytes(data)


def _frame(data: bytes) -> int:
    """The pixels of the largest frame of one item, by all its sequence headers."""
    at = found = n = 0
    while at < len(data):
        n += 1
        if n > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS:,} units of AV1 data")
        head, at = data[at], at + 1 + (data[at] >> 2 & 1)
        size = len(data) - at
        if head & 2:
            size, shift = 0, 0
            while True:
                if at >= len(data) or shift > 49:
                    raise ValueError("its AV1 data are broken")
                size |= (data[at] & 127) << shift
                at, shift = at + 1, shift + 7
                if not data[at - 1] & 128:
                    break
        if head >> 3 & 15 == SEQUENCE_HEADER:
            found = max(found, _announced(data[at : at + size]))
        at += size
    if not found:
        raise ValueError("its AV1 data have no sequence header")
    return found


def _announced(header: bytes) -> int:
    """The most pixels that a sequence header allows a frame."""
    bits = "".join(f"{byte:08b}" for byte in header[:200])
    at = 0

    def take(n: int) -> int:
        nonlocal at
        if at + n > len(bits):
            raise ValueError("its sequence header is broken")
        at += n
        return int(bits[at - n : at] or "0", 2)

    take(4)
    if take(1):  # a still image's short header
        take(5)
    else:
        delay_bits = 0
        if take(1):  # timing
            take(64)
            if take(1):
                zeros = (bits + "1").index("1", at) - at
                take(2 * zeros + 1)
            if take(1):
                delay_bits = take(5) + 1
                take(42)
        has_delay = take(1)
        for _ in range(take(5) + 1):
            take(12)
            if take(5) > 7:
                take(1)
            if delay_bits and take(1):
                take(2 * delay_bits + 1)
            if has_delay and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return (take(width_bits) + 1) * (take(height_bits) + 1)
