"""The pixels of one item: those at hand, or its file decoded, and cut to the face where a box says where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.layouts.item import Item
from deepfer_yolo.errors import DatasetError


def item_pixels(item: Item, margin: float = 0.0) -> NDArray[np.uint8]:
    """uint8 grey (H, W) or RGB (H, W, 3). Raises DatasetError where the file is broken or gone, or the box lies outside the picture."""
    if item.pixels is not None:
        return item.pixels
    try:
        image = load_image(item.file or Path())
    except FileNotFoundError:
        raise DatasetError("the file is not there") from None
    if item.box is None:
        return image
    from deepfer_yolo.faces.align import cut
    from deepfer_yolo.records import Face
    from deepfer_yolo.runtime.card import CropSpec

    x1, y1, x2, y2 = item.box
    height, width = image.shape[:2]
    if not (x1 < x2 and y1 < y2 and x1 < width and y1 < height and x2 > 0 and y2 > 0):
        raise DatasetError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is not inside the picture of {width}×{height}")
    return cut(image, Face(np.array(item.box, np.float32), 1.0), CropSpec(margin=margin))
