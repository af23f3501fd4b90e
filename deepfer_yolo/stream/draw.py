"""Annotated images: boxes, ids, labels and confidence, drawn on a copy."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.records import Face, Image, Track
from deepfer_yolo.report.fonts import drawn_as
from deepfer_yolo.stream.records import Result

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

MIN_SIDE_PX = 256
"""Smaller images are enlarged by a whole factor, so that a label fits."""
COLOURS = {
    "angry": (213, 94, 0),
    "disgust": (0, 158, 115),
    "fear": (204, 121, 167),
    "happy": (230, 159, 0),
    "neutral": (138, 144, 153),
    "sad": (0, 114, 178),
    "surprise": (86, 180, 233),
    "contempt": (184, 168, 0),
    "uncertain": (107, 114, 128),
}
"""Okabe and Ito's colours, which people with any kind of colour vision can tell apart; the web page has the same."""
FONT_PX = 13
"""Size of another font, whose letters are then as high as those of OpenCV's at a scale of 0.45."""
Colour = tuple[int, int, int]
OTHERS = [COLOURS[label] for label in ("angry", "sad", "happy", "disgust", "fear", "surprise", "contempt", "neutral")]
"""For labels without a colour of their own, in the order of the model; more than eight share them."""


def draw_faces(result: Result, *, is_anonymous: bool = False) -> Image:
    """A copy of the frame with its faces marked, uint8 RGB; small images come out enlarged by a whole factor.

    `is_anonymous` makes every face unrecognisable, also those that are out of sight but expected.
    """
    image = result.frame.image.copy()
    if is_anonymous:
        for face in (*(track.face for track in result.tracks), *result.hidden):
            _pixelate(image, face)
    image, factor = _enlarged(image)
    unit = max(1.0, min(image.shape[:2]) / 360)
    boxes = [_outline(image, track, factor, unit, is_frame=result.boxes == "crop") for track in result.tracks]
    for track, box in zip(result.tracks, boxes, strict=True):
        # A label that is only held, while another one leads, has no share worth telling.
        share = f" {100 * track.confidence:.0f}%" if track.label == track.smoothed.label else ""
        labels = track.smoothed.labels
        name, font = drawn_as(track.label, labels.index(track.label) if track.label in labels else 0)
        colour = colour_of(track.label, labels)
        _chip(image, f"{track.id}  {name}{share}", box, colour, unit, font)
    return image


def colour_of(label: str, labels: tuple[str, ...]) -> Colour:
    """The colour of one of a model's labels, RGB: an emotion's own, or by its place among the others."""
    if label in COLOURS:
        return COLOURS[label]
    return _others(labels).get(label, OTHERS[-1])


@lru_cache(16)
def _others(labels: tuple[str, ...]) -> dict[str, Colour]:
    """Colours of the labels that have none of their own, in their order; those that no emotion here has come first."""
    taken = {COLOURS[label] for label in labels if label in COLOURS}
    order = sorted(OTHERS, key=lambda colour: colour in taken)
    return {label: order[place % len(order)] for place, label in enumerate(one for one in labels if one not in COLOURS)}


def _enlarged(image: Image) -> tuple[Image, int]:
    import cv2

    factor = max(1, -(-MIN_SIDE_PX // min(image.shape[:2])))
    if factor == 1:
        return image, 1
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8), factor


def _outline(image: Image, track: Track, factor: int, unit: float, *, is_frame: bool) -> tuple[int, int]:
    """Draw the box; returns its upper left corner."""
    import cv2

    height, width = image.shape[:2]
    line = max(1, round(1.5 * unit))
    x1, y1, x2, y2 = (round(float(v) * factor) for v in track.face.box)
    if is_frame:
        x1, y1, x2, y2 = line // 2, line // 2, width - 1 - line // 2, height - 1 - line // 2
    colour = colour_of(track.label, track.smoothed.labels)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, line, cv2.LINE_AA)
    return x1, y1


def _chip(image: Image, text: str, place: tuple[int, int], colour: Colour, unit: float, font: Path | None) -> None:
    """A filled label above the box, or inside its top where there is no room; always whole inside the image where it
    fits at all. `font` is for what OpenCV's own, which is ASCII, cannot write.
    """
    import cv2

    own, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45 * unit
    thickness = max(1, round(unit))
    mask = None if font is None else _mask(text, font, round(FONT_PX * unit))
    if mask is None:
        (text_width, text_height), base = cv2.getTextSize(text, own, scale, thickness)
    else:
        (text_height, text_width), base = mask.shape, 0
    pad = round(4 * unit)
    chip_width, chip_height = text_width + 2 * pad, text_height + base + pad
    x1, y1 = place
    left = min(max(0, x1), max(0, image.shape[1] - chip_width))
    top = y1 - chip_height if y1 >= chip_height else max(0, y1)
    top = min(top, max(0, image.shape[0] - chip_height))
    cv2.rectangle(image, (left, top), (left + chip_width, top + chip_height), colour, cv2.FILLED)
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (20, 20, 20) if light > 140 else (255, 255, 255)
    if mask is None:
        origin = (left + pad, top + chip_height - base - pad // 4)
        cv2.putText(image, text, origin, own, scale, ink, thickness, cv2.LINE_AA)
    else:
        _ink(image, mask, left + pad, top + pad // 2, ink)


def _ink(image: Image, mask: NDArray[np.uint8], left: int, top: int, ink: Colour) -> None:
    """Colour the pixels that a mask covers, by its share of 255; what lies outside the image is cut off."""
    part = image[top : top + mask.shape[0], left : left + mask.shape[1]]
    share = mask[: part.shape[0], : part.shape[1], None].astype(np.uint16)
    part[:] = (part * (255 - share) + np.array(ink, np.uint16) * share + 127) // 255


@lru_cache(512)
def _mask(text: str, font: Path, size: int) -> NDArray[np.uint8]:
    """A line of text as the shares of 255 that it covers, uint8 (height, width)."""
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    face = _face(font, size)
    left, top, right, bottom = (round(value) for value in face.getbbox(text))
    _, usual_top, _, usual_bottom = (round(value) for value in face.getbbox("Ägj0%"))
    top, bottom = min(top, usual_top), max(bottom, usual_bottom)
    canvas = PillowImage.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(canvas).text((-left, -top), text, fill=255, font=face)
    return np.asarray(canvas)


@lru_cache(16)
def _face(font: Path, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(font), size)


def _pixelate(image: Image, face: Face, *, margin: float = 0.25, blocks: int = 6) -> None:
    """Replace a face and a margin around it by a few coarse blocks, which lose the detail for good; a blur may not."""
    import cv2

    x1, y1, x2, y2 = (float(v) for v in face.box)
    grow_x, grow_y = margin * (x2 - x1), margin * (y2 - y1)
    height, width = image.shape[:2]
    left, right = max(0, int(x1 - grow_x)), min(width, int(x2 + grow_x) + 1)
    top, bottom = max(0, int(y1 - grow_y)), min(height, int(y2 + grow_y) + 1)
    if right <= left or bottom <= top:
        return
    small = cv2.resize(image[top:bottom, left:right], (blocks, blocks), interpolation=cv2.INTER_AREA)
    image[top:bottom, left:right] = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
