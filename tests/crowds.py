"""Images of many faces, made of the heads in the shared example images: what is in them is known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepfer_yolo.data.images import load_image
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.preprocess import resize

HEADS = ((895, 60, 1075, 300), (535, 225, 675, 440))
"""Two heads of zidane.jpg with what is around them, xyxy; a face is 0.75 of the width."""


def heads(media: Path) -> list[Image]:
    """Four heads: two people, and their mirror images in another light."""
    photo = load_image(media / "zidane.jpg")
    cuts = [photo[y1:y2, x1:x2] for x1, y1, x2, y2 in HEADS]
    return cuts + [np.clip(cut[:, ::-1] * 0.8 + 20, 0, 255).astype(np.uint8) for cut in cuts]


def crowd(media: Path, height: int, width: int, rows: int, columns: int, n: int, face_px: tuple[int, int]) -> Image:
    """`n` heads in `rows` × `columns` cells before a plain wall, each somewhere in its cell, with faces of a width from
    `face_px`.
    """
    random = np.random.RandomState(5)
    wall = np.linspace(70, 150, height)[:, None, None] * np.array([0.9, 1.0, 1.1])
    image = np.broadcast_to(wall, (height, width, 3)) + random.randint(-4, 5, (height, width, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    known = heads(media)
    for place in range(n):
        head = known[place % len(known)]
        head_px = round(random.randint(face_px[0], face_px[1] + 1) / 0.75)
        small = resize(head, head_px, round(head_px * head.shape[0] / head.shape[1]))
        cell_height, cell_width = height // rows, width // columns
        top = place // columns * cell_height + random.randint(0, cell_height - small.shape[0])
        left = place % columns * cell_width + random.randint(0, cell_width - small.shape[1])
        image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return image
