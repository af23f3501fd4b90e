"""From any image to a model's input: the one resize of this program.

Pillow's antialiased bilinear filter is bit-exact with what Ultralytics' classification transform trains on; OpenCV's
INTER_LINEAR is not (it skips the antialiasing, mean difference 15-20/255 when shrinking).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deepfer_yolo.records import Crops, Image
from deepfer_yolo.runtime.card import InputSpec

BILINEAR = PillowImage.Resampling.BILINEAR
SMALL = 256 * 256
"""Pixels up to which images wait for each other."""
FEW = 4
"""Images of one size below which that is not worth it."""


def resize(image: Image, width: int, height: int) -> Image:
    """`image`, uint8 (H, W, 3) or (H, W), at (height, width) by Pillow bilinear with antialias; the same array where
    nothing changes.
    """
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(PillowImage.fromarray(image).resize((width, height), BILINEAR))


def shorter_side(image: Image, size: int) -> Image:
    """Resize so that the shorter side is `size`, the longer one rounded down as torchvision does."""
    height, width = image.shape[:2]
    return resize(image, *fitted_sides(width, height, size))


def centre_crop(image: Image, size: int) -> Image:
    """The central (size, size) of an image whose sides are at least `size`; offsets rounded half to even, as
    torchvision does.
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


def to_input(image: Image, spec: InputSpec) -> Image:
    """One image, uint8 RGB (H, W, 3) or grey (H, W) of any size, as the model wants it: uint8 (S, S, 3).

    An image sharper than what the model learned (`native_px`) is first reduced to that; then resized to S and cropped
    to its centre. Grey is luma (ITU-R 601, Pillow's integer weights; the channel itself where all three are equal) in
    three equal channels: it is resized as one, a third of the work with the same bits.
    """
    work = PillowImage.fromarray(image)
    if spec.colour == "grey":
        work = work.convert("L")
    for sides in _steps(*work.size, spec):
        work = work.resize(sides, BILINEAR)
    fitted = centre_crop(np.asarray(work), spec.size)
    return fitted if fitted.ndim == 3 else np.repeat(fitted.ravel(), 3).reshape(spec.size, spec.size, 3)


def to_inputs(images: Iterable[Image], spec: InputSpec) -> Crops:
    """Many images as one batch, uint8 (n, S, S, 3); small grey ones (H, W) of one size are resized together."""
    crops: list[Image | None] = []
    together: dict[tuple[int, ...], list[tuple[int, Image]]] = {}
    for place, image in enumerate(images):
        is_small = image.ndim == 2 and image.size <= SMALL
        if is_small:
            together.setdefault(image.shape, []).append((place, image))
        crops.append(None if is_small else to_input(image, spec))
    batch = np.empty((len(crops), spec.size, spec.size, 3), np.uint8)
    for group in together.values():
        places, planes = zip(*group, strict=True)
        fitted = _resized_together(np.stack(planes), spec) if len(group) >= FEW else None
        if fitted is None:
            batch[list(places)] = [to_input(plane, spec) for plane in planes]
            continue
        where = slice(None) if len(group) == len(crops) else list(places)
        for channel in range(3):  # five times as fast as all at once
            batch[where, ..., channel] = fitted
    for place, crop in enumerate(crops):
        if crop is not None:
            batch[place] = crop
    return batch


def _resized_together(planes: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8] | None:
    """Grey images of one size (n, H, W) as (n, S, S), to the bit as one by one; None where that cannot be had.

    Pillow resizes along the rows and along the columns in turn, each row and column by itself: of images one below the
    other all rows in one go, of those side by side all columns.
    """
    for wide, high in _steps(planes.shape[2], planes.shape[1], spec):
        order = _order(planes.shape[2], planes.shape[1], wide, high)
        for axis in order:
            n, height, width = planes.shape
            if axis == "rows":
                planes = resize(planes.reshape(n * height, width), wide, n * height).reshape(n, height, wide)
            else:
                columns = np.ascontiguousarray(planes.transpose(1, 0, 2)).reshape(height, n * width)
                planes = resize(columns, n * width, high).reshape(high, n, width).transpose(1, 0, 2)
        if not order:
            return None
    top, left = (round((side - spec.size) / 2) for side in planes.shape[1:])
    return planes[:, top : top + spec.size, left : left + spec.size]


@functools.lru_cache(256)
def _order(width: int, height: int, wide: int, high: int) -> tuple[str, ...]:
    """What Pillow resizes first, rows or columns: Pillow 13 what costs less, older ones the rows. Empty where neither
    order gives what it gives.
    """
    image = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    wanted = resize(image, wide, high)
    if np.array_equal(resize(resize(image, wide, height), wide, high), wanted):
        return ("rows", "columns")
    return ("columns", "rows") if np.array_equal(resize(resize(image, width, high), wide, high), wanted) else ()


def _steps(width: int, height: int, spec: InputSpec) -> Iterator[tuple[int, int]]:
    """The sides, (width, height), that an image is resized to, one after the other."""
    native = spec.native_px if spec.native_px is not None and min(width, height) > spec.native_px else None
    for size in (native, spec.size):
        sides = (width, height) if size is None else fitted_sides(width, height, size)
        if sides != (width, height):
            yield sides
        width, height = sides


def fitted_sides(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height at which the shorter side is `size`, the longer one rounded down."""
    return (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
