"""Images of more than 8 bits a channel, scaled by what the file says of its own range; refused where it says nothing.

12 bits in a 16-bit file look black when they are taken for 16, and a float between 0 and 1 is black when it is taken
for a grey value: both would be labelled all the same.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import TiffImagePlugin

from deepfer_yolo.errors import DatasetError

FULL = 65535
LEAST_OF_16_BITS = 1 << 14
"""A file of 16 bits whose brightest value is lower has 14 bits or fewer, or hardly any light: which, it must say."""
FLOAT_ROUNDING = 1e-3
BITS, PHOTOMETRIC, MIN, MAX, SMIN, SMAX = 258, 262, 280, 281, 340, 341
"""Tags of TIFF 6.0, sections 8 and 19."""
WHITE_IS_ZERO = 0
AS_8_BITS = "write it with 8 bits, or with its range: sBIT in a PNG, SMinSampleValue and SMaxSampleValue in a TIFF"


def to_8_bits(pixels: NDArray[np.generic], image: PillowImage.Image, head: bytes) -> NDArray[np.uint8]:
    """Grey uint8 (H, W) of the `pixels`, upright, of an image in one of Pillow's modes for more bits (I;16, I, F).

    `head` is the file's start.

    Raises DatasetError where the file does not say what its values mean.
    """
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise DatasetError("floating-point values that are no numbers (nan or inf)", AS_8_BITS)
    low, high = _stated_range(image, values, head) or _evident_range(image, values)
    grey = ((values - low) / (high - low) * 255).round().clip(0, 255).astype(np.uint8)
    return 255 - grey if _tags(image).get(PHOTOMETRIC) == WHITE_IS_ZERO else grey


def check_dropped_bits(image: PillowImage.Image, pixels: NDArray[np.uint8], head: bytes) -> None:
    """Raise DatasetError where Pillow has kept the upper 8 of 16 bits a colour, and those hold next to nothing."""
    is_png = image.format == "PNG" and head[24:25] == b"\x10"
    bits = _tags(image).get(BITS, ())
    if (is_png or (isinstance(bits, tuple) and 16 in bits)) and pixels.max(initial=0) < LEAST_OF_16_BITS >> 8:
        raise DatasetError(f"a colour image of 16 bits with values under {LEAST_OF_16_BITS:,} alone", AS_8_BITS)


def _tags(image: PillowImage.Image) -> TiffImagePlugin.ImageFileDirectory_v2 | dict[int, object]:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _stated_range(image: PillowImage.Image, values: NDArray[np.float64], head: bytes) -> tuple[float, float] | None:
    """Black and white as the file states them."""
    tags = _tags(image)
    for lowest, highest in ((SMIN, SMAX), (MIN, MAX)):
        if highest in tags:
            low, high = _number(tags.get(lowest, 0)), _number(tags[highest])
            if high > low:
                return low, high
    bits = tags.get(BITS)
    if isinstance(bits, tuple) and 8 < bits[0] < 16:
        return 0, (1 << bits[0]) - 1
    n = _png_significant_bits(head) if image.format == "PNG" else 0
    # Whoever writes n significant bits may put them at the top, as the PNG standard asks, or leave them at the bottom.
    if not 0 < n <= 16:
        return None
    return 0, FULL if values.max() >= 1 << n else (1 << n) - 1


def _number(value: object) -> float:
    first = value[0] if isinstance(value, tuple) and value else value
    return float(first) if isinstance(first, int | float) else 0.0


def _png_significant_bits(head: bytes) -> int:
    """The first value of a PNG's sBIT chunk, which stands before the pixels; 0 where there is none."""
    place = 8
    while place + 8 < len(head):
        (size,) = struct.unpack(">I", head[place : place + 4])
        kind = head[place + 4 : place + 8]
        if kind == b"sBIT":
            return head[place + 8]
        if kind == b"IDAT":
            break
        place += 12 + size
    return 0


def _evident_range(image: PillowImage.Image, values: NDArray[np.float64]) -> tuple[float, float]:
    """Black and white of values that leave no doubt. Raises DatasetError for all others."""
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        if low >= 0 and high <= 1 + FLOAT_ROUNDING:
            return 0, 1
        raise DatasetError(f"floating-point values from {low:g} to {high:g}, and no range stated", AS_8_BITS)
    if image.format == "PPM":  # Pillow has scaled it by the maximum that the file's header states
        return 0, FULL
    if image.mode == "I" and image.format == "TIFF":
        raise DatasetError(f"32-bit values from {low:g} to {high:g}, and no range stated", AS_8_BITS)
    if high < LEAST_OF_16_BITS:
        reason = f"16 bits with values up to {high:,.0f} of {FULL:,}: fewer bits, or hardly any light?"
        raise DatasetError(reason, AS_8_BITS)
    return 0, FULL
