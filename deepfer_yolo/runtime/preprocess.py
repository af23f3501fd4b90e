"""From any image to a model's input: the one resize of this program.

Pillow's antialiased bilinear filter is bit-exact with what Ultralytics' classification transform trains on; OpenCV's
INTER_LINEAR is not (it skips the antialiasing, mean difference 15-20/255 when shrinking).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as PillowImage

from deepfer_yolo.records import Crops, Image
from deepfer_yolo.runtime.card import InputSpec

BILINEAR = PillowImage.Resampling.BILINEAR


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
    """One image, uint8 RGB (H, W, 3) of any size, as the model wants it: uint8 (S, S, 3).

    An image sharper than what the model learned (`native_px`) is first reduced to that; then resized to S and cropped
    to its centre. Grey is luma (ITU-R 601, Pillow's integer weights; the channel itself where all three are equal) in
    three equal channels: it is resized as one, a third of the work with the same bits.
    """
    work = PillowImage.fromarray(image)
    if spec.colour == "grey":
        work = work.convert("L")
    native = spec.native_px if spec.native_px is not None and min(work.size) > spec.native_px else None
    for size in (native, spec.size):
        sides = work.size if size is None else fitted_sides(*work.size, size)
        if sides != work.size:
            work = work.resize(sides, BILINEAR)
    fitted = centre_crop(np.asarray(work), spec.size)
    return fitted if fitted.ndim == 3 else np.repeat(fitted.ravel(), 3).reshape(spec.size, spec.size, 3)


def to_inputs(images: Sequence[Image], spec: InputSpec) -> Crops:
    """Many images as one batch, uint8 (n, S, S, 3)."""
    batch = np.empty((len(images), spec.size, spec.size, 3), np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[:] = to_input(image, spec)
    return batch


def fitted_sides(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height at which the shorter side is `size`, the longer one rounded down."""
    return (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
