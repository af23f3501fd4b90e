"""More than 8 bits a channel: scaled by the file's own facts, or refused; never black and labelled all the same."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from deepfer_yolo.data.images import load_image
from deepfer_yolo.errors import DatasetError

FACE = np.add.outer(np.arange(0, 240, 5), np.arange(0, 12, 0.25)).astype(np.uint8)
"""8 bits, from black to nearly white."""


def saved(pixels: np.ndarray, form: str, **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **how)
    return file.getvalue()


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + chunk + png[33:]


def stating(**tags: tuple[int, float]) -> ImageFileDirectory_v2:
    """TIFF tags by name: (tag, value)."""
    found = ImageFileDirectory_v2()
    for tag, value in tags.values():
        found.tagtype[tag] = 12  # double
        found[tag] = value
    return found


def rgb16_png(values: np.ndarray) -> bytes:
    """A colour PNG of 16 bits, which Pillow cannot write, from uint16 (H, W, 3)."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    png = b"\x89PNG\r\n\x1a\n"
    for kind, content in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        png += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png


DEEP = FACE.astype(np.uint16)
RIGHT = {
    "16 bits": saved(DEEP * 257, "PNG"),
    "16 bits in a TIFF": saved(DEEP * 257, "TIFF"),
    "float from 0 to 1": saved(FACE.astype(np.float32) / 255, "TIFF"),
    "float with its range": saved(
        FACE.astype(np.float32) * 4 - 100, "TIFF", tiffinfo=stating(low=(340, -100.0), high=(341, 920.0))
    ),
    "32 bits with their range": saved(FACE.astype(np.int32) * 1000, "TIFF", tiffinfo=stating(high=(341, 255_000.0))),
    "12 bits at the bottom, stated": with_chunk(saved(DEEP * 257 >> 4, "PNG"), b"sBIT", b"\x0c"),
    "12 bits at the top, stated": with_chunk(saved(DEEP * 257, "PNG"), b"sBIT", b"\x0c"),
    "PGM with its maximum": b"P5 48 48 4095\n" + (DEEP.astype(int) * 4095 // 255).astype(">u2").tobytes(),
    "colour of 16 bits": rgb16_png(np.repeat(DEEP[:, :, None] * 257, 3, axis=2)),
}
REFUSED = {
    "12 bits in 16": (saved(DEEP * 16, "PNG"), "16 bits with values up to 3,936 of 65,535"),
    "12 bits in a TIFF of 16": (saved(DEEP * 16, "TIFF"), "16 bits with values up to 3,936"),
    "float over 1": (saved(FACE.astype(np.float32) / 100, "TIFF"), "floating-point values from 0 to 2.46"),
    "float with NaN": (saved(np.full((9, 9), np.nan, np.float32), "TIFF"), "no numbers"),
    "32 bits": (saved(FACE.astype(np.int32) * 1000, "TIFF"), "32-bit values from 0 to 246000"),
    "12 of 16 bits a colour": (rgb16_png(np.repeat(DEEP[:, :, None] * 16, 3, axis=2)), "a colour image of 16 bits"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_states_its_range_has_the_light_of_its_8_bits(name: str) -> None:
    found = load_image(RIGHT[name])
    assert np.abs(found[:, :, 0].astype(int) - FACE).max() <= 1
    assert (found == found[:, :, :1]).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_leaves_a_doubt_is_refused_with_the_reason(name: str) -> None:
    content, reason = REFUSED[name]
    with pytest.raises(DatasetError, match=reason) as refusal:
        load_image(content)
    assert "with its range" in str(refusal.value.hint)


def test_white_is_zero_is_turned_round() -> None:
    info = ImageFileDirectory_v2()
    info[262] = 0
    found = load_image(saved(DEEP * 257, "TIFF", tiffinfo=info))
    assert np.abs(found[:, :, 0].astype(int) - (255 - FACE.astype(int))).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    pixels = FACE.astype(np.float32)
    pixels[3, 4] = value
    for stated in ({}, {"tiffinfo": stating(low=(340, 0), high=(341, 255))}):
        with pytest.raises(DatasetError, match="no numbers"):
            load_image(saved(pixels, "TIFF", **stated))
