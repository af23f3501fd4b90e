"""Several views of one picture, whose probabilities are averaged: what test-time augmentation buys, and costs."""

from __future__ import annotations

from typing import Literal

import numpy as np

from deepfer_yolo.records import Image

Tta = Literal["none", "flip", "ten"]

N_VIEWS = {"none": 1, "flip": 2, "ten": 10}
TEN_SHARE = 0.92
"""Side of each of the five crops of `ten`, as a share of the picture's: 44 of 48 pixels, the customary ten-crop of FER2013 entries."""


def views(image: Image, tta: Tta) -> list[Image]:
    """The views of a picture: itself; itself and its mirror image; or four corners and the centre, each mirrored too."""
    if tta == "none":
        return [image]
    if tta == "flip":
        return [image, mirror(image)]
    height, width = image.shape[:2]
    h, w = max(1, round(TEN_SHARE * height)), max(1, round(TEN_SHARE * width))
    corners = ((0, 0), (0, width - w), (height - h, 0), (height - h, width - w), ((height - h) // 2, (width - w) // 2))
    crops = [image[top : top + h, left : left + w] for top, left in corners]
    return [view for crop in crops for view in (crop, mirror(crop))]


def mirror(image: Image) -> Image:
    """The picture with left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])
