"""The one crop rule: how a detected face becomes the image that a model looks at."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from deepfer_yolo.records import Boxes, Crops, Face, Image
from deepfer_yolo.runtime.card import Card, CropSpec, InputSpec
from deepfer_yolo.runtime.preprocess import to_input

MIN_SIDE_PX = 8
"""Crops smaller than this hold no face that a model could know."""


def crop_square(face: Face, spec: CropSpec) -> tuple[float, float, float]:
    """Centre x, centre y and side, in pixels, of the square that `spec` draws around a face's box."""
    x1, y1, x2, y2 = (float(v) for v in face.box)
    length = x2 - x1 if spec.reference == "width" else max(x2 - x1, y2 - y1)
    centre_x, centre_y = (x1 + x2) / 2 + spec.shift_x * length, (y1 + y2) / 2 + spec.shift_y * length
    return centre_x, centre_y, length * (1 + 2 * spec.margin)


def eye_angle(face: Face) -> float:
    """The tilt of the eye line in degrees, clockwise positive; 0 without landmarks or with one eye above the other."""
    if face.landmarks is None:
        return 0.0
    (ax, ay), (bx, by) = face.landmarks[:2].astype(float)
    left, right = ((ax, ay), (bx, by)) if ax <= bx else ((bx, by), (ax, ay))
    angle = math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))
    return angle if abs(angle) <= 60 else 0.0


def cut(image: Image, face: Face, spec: CropSpec) -> Image:
    """The square around a face at its native scale, uint8 (side, side, 3), upright by the eyes where `spec` says so.

    What lies outside the image repeats its border.
    """
    import cv2

    centre_x, centre_y, side = crop_square(face, spec)
    size = max(MIN_SIDE_PX, round(side))
    angle = eye_angle(face) if spec.alignment == "eyes" else 0.0
    if abs(angle) < 1.0:
        return _slice(image, round(centre_x - size / 2), round(centre_y - size / 2), size)
    turn = cv2.getRotationMatrix2D((centre_x, centre_y), angle, 1.0)
    turn = np.asarray(turn, np.float64) + np.array([[0, 0, size / 2 - centre_x], [0, 0, size / 2 - centre_y]])
    upright = cv2.warpAffine(image, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(upright, np.uint8)


def crop_face(image: Image, face: Face, crop: CropSpec | None, spec: InputSpec) -> Image:
    """One face of a uint8 RGB image as the model wants it: uint8 (S, S, 3). All scaling is the one Pillow resize."""
    return to_input(native_crop(image, face, crop), spec)


def native_crop(image: Image, face: Face, crop: CropSpec | None) -> Image:
    """What `crop` cuts out, at its native scale; the box itself where there is no rule, as for images cut before."""
    if crop is None:
        x1, y1, x2, y2 = (round(float(v)) for v in face.box)
        return image[max(0, y1) : y2, max(0, x1) : x2]
    return cut(image, face, crop)


def crop_faces(image: Image, faces: Iterable[Face], boxes: Boxes, card: Card) -> Crops:
    """All faces of an image as the model of `card` wants them; `boxes` says whether its crop rule applies."""
    rule = card.crop if boxes == "face" else None
    crops = [crop_face(image, face, rule, card.input) for face in faces]
    return np.array(crops, np.uint8).reshape(-1, card.input.size, card.input.size, 3)


def _slice(image: Image, left: int, top: int, size: int) -> Image:
    height, width = image.shape[:2]
    if left >= 0 and top >= 0 and left + size <= width and top + size <= height:
        return image[top : top + size, left : left + size]
    rows = np.clip(np.arange(top, top + size), 0, height - 1)
    columns = np.clip(np.arange(left, left + size), 0, width - 1)
    return image[rows[:, None], columns]
