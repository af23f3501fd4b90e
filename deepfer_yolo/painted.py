"""Painted faces: seven expressions drawn from a seed by integer arithmetic, the same bytes on every machine.

They are the demo's data and the input of the golden self-test. All drawing happens in face coordinates, integers where
1024 is half a face; all chance comes from `RandomState`, whose stream numpy has frozen. Expressions vary in strength,
and weak ones overlap with neutral, so that a trained network does well and none reaches 100 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from deepfer_yolo.emotions import EMOTIONS, FER2013_CODES
from deepfer_yolo.files import atomic_path

UNIT = 1024
OVERSAMPLING = 2
TINTS = ((256, 214, 190), (236, 256, 206), (214, 226, 256))
"""Channel gains in 1/256 of the golden inputs: a swap of channels changes them."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Expression:
    """Where the parts of a face go, in 1/1024 of half a face; zero is the resting face."""

    brow_raise: int = 0
    brow_inner: int = 0  # inner ends up (+) or down (-)
    eye_open: int = 0
    mouth_curve: int = 0  # corners up (+) or down (-)
    mouth_open: int = 0
    mouth_width: int = 0
    nose_wrinkle: int = 0


EXPRESSIONS = {
    "angry": Expression(brow_raise=-55, brow_inner=-110, eye_open=-18, mouth_curve=-45, mouth_width=-40),
    "disgust": Expression(
        brow_raise=-35, brow_inner=-35, eye_open=-34, mouth_curve=-70, mouth_open=12, mouth_width=-20, nose_wrinkle=110
    ),
    "fear": Expression(brow_raise=75, brow_inner=80, eye_open=48, mouth_curve=-25, mouth_open=48, mouth_width=45),
    "happy": Expression(brow_raise=10, eye_open=-16, mouth_curve=130, mouth_open=36, mouth_width=95),
    "neutral": Expression(),
    "sad": Expression(brow_raise=10, brow_inner=95, eye_open=-22, mouth_curve=-105, mouth_width=-25),
    "surprise": Expression(brow_raise=120, brow_inner=15, eye_open=55, mouth_open=125, mouth_width=-75),
}


def paint_faces(seed: int, n: int, size: int = 48) -> tuple[NDArray[np.uint8], Ints]:
    """`n` faces, uint8 grey (n, size, size), with their labels, int64 (n,) into EMOTIONS; every label equally often, in
    random order.
    """
    random = RandomState(seed)
    labels = random.permutation(np.arange(n) % len(EMOTIONS)).astype(np.int64)
    faces = np.empty((n, size, size), np.uint8)
    for row, label in zip(faces, labels, strict=True):
        row[:] = paint_face(random, EMOTIONS[label], size)
    return faces, labels


def paint_golden(seed: int, n: int, size: int) -> NDArray[np.uint8]:
    """The inputs of the golden self-test: `n` tinted faces, uint8 RGB (n, size, size, 3)."""
    faces, _ = paint_faces(seed, n, size)
    tinted = np.empty((n, size, size, 3), np.uint8)
    for index, face in enumerate(faces):
        tinted[index] = face[:, :, None].astype(np.int64) * np.array(TINTS[index % len(TINTS)]) >> 8
    return tinted


def paint_face(
    random: RandomState, label: str, size: int = 48, *, identity: RandomState | None = None, strength: int | None = None
) -> NDArray[np.uint8]:
    """One face, uint8 grey (size, size).

    `identity` draws the person and `random` pose, light and noise; `strength` is in percent.
    """
    person = _Person(identity or random)
    strength = int(random.randint(40, 121)) if strength is None else strength
    expression = _jitter(EXPRESSIONS[label], strength, random)
    grey = _draw(person, expression, random, size * OVERSAMPLING)
    small = grey.reshape(size, OVERSAMPLING, size, OVERSAMPLING).sum((1, 3)) // OVERSAMPLING**2
    noise = random.randint(2, 13)
    small = small + random.randint(-noise, noise + 1, small.shape)
    face: NDArray[np.uint8] = np.clip(small, 0, 255).astype(np.uint8)
    return face


def paint_csv(path: Path, seed: int, n_train: int, n_val: int, n_test: int = 0) -> None:
    """Write a csv in FER2013's own form (`emotion,pixels,Usage`, 48×48), the splits drawn from different streams of
    `seed`.
    """
    codes = {label: code for code, label in FER2013_CODES.items()}
    with atomic_path(path) as part, part.open("w", encoding="ascii", newline="\n") as file:
        file.write("emotion,pixels,Usage\n")
        for stream, (usage, n) in enumerate({"Training": n_train, "PublicTest": n_val, "PrivateTest": n_test}.items()):
            for face, label in zip(*paint_faces(seed * 3 + stream, n), strict=True):
                file.write(f"{codes[EMOTIONS[label]]},{' '.join(map(str, face.ravel().tolist()))},{usage}\n")


def paint_frames(
    seed: int, labels: tuple[str, ...], frames_per_label: int, size: int = 192
) -> Iterator[NDArray[np.uint8]]:
    """The frames of a clip, uint8 RGB (size, size, 3): one person who shows each of `labels` in turn, with small
    movements and noise.
    """
    random = RandomState(seed)
    person_seed = int(random.randint(2**31 - 1))
    for label in labels:
        pose_seed = int(random.randint(2**31 - 1))
        for index in range(frames_per_label):
            strength = min(100, 20 + 160 * index // max(1, frames_per_label - 1))
            grey = paint_face(
                RandomState(pose_seed), label, size, identity=RandomState(person_seed), strength=strength
            ).astype(np.int64)
            grey = grey + random.randint(-4, 5, grey.shape)
            yield np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


class _Person:
    """What stays the same between two images of one painted person."""

    def __init__(self, random: RandomState) -> None:
        self.skin = int(random.randint(105, 215))
        self.hair = int(random.randint(15, 120))
        self.hairline = int(random.randint(-760, -560))
        self.width = int(random.randint(660, 790))
        self.height = int(random.randint(860, 1000))
        self.eye_x = int(random.randint(270, 350))
        self.eye_y = int(random.randint(-230, -130))
        self.eye_size = int(random.randint(52, 76))
        self.brow_y = self.eye_y - int(random.randint(150, 200))
        self.brow_tilt = int(random.randint(-30, 31))
        self.brow_dark = int(random.randint(40, 110))
        self.mouth_y = int(random.randint(400, 500))
        self.mouth_width = int(random.randint(240, 330))
        self.mouth_curve = int(random.randint(-25, 26))
        self.lip = int(random.randint(22, 40))
        self.glasses = bool(random.randint(0, 8) == 0)


def _jitter(expression: Expression, strength: int, random: RandomState) -> Expression:
    values = {
        f.name: getattr(expression, f.name) * strength // 100 + int(random.randint(-20, 21)) for f in fields(expression)
    }
    return Expression(**values)


def _draw(person: _Person, expression: Expression, random: RandomState, side: int) -> Ints:
    """The face before averaging and noise: int64 (side, side), roughly 0 to 255."""
    u, v = _face_coordinates(random, side)
    light_x, light_y = int(random.randint(-45, 46)), int(random.randint(-30, 31))
    exposure = int(random.randint(-30, 31))
    canvas = np.full((side, side), int(random.randint(20, 220)), np.int64) + (u * int(random.randint(-30, 31)) >> 10)
    head = _ellipse(u, v, 0, 40, person.width, person.height)
    canvas = np.where(head, person.skin, canvas)
    canvas = np.where(
        _ellipse(u, v, 0, -40, person.width + 60, person.height + 60) & (v < person.hairline + (u * u >> 12)),
        person.hair,
        canvas,
    )
    canvas = _draw_eyes(canvas, u, v, person, expression, random)
    canvas = _draw_nose(canvas, u, v, person, expression)
    canvas = _draw_mouth(canvas, u, v, person, expression)
    return canvas + ((u * light_x + v * light_y) >> 10) + exposure


def _draw_eyes(canvas: Ints, u: Ints, v: Ints, person: _Person, expression: Expression, random: RandomState) -> Ints:
    gaze = int(random.randint(-25, 26))
    opening = max(10, person.eye_size + expression.eye_open)
    for side in (-1, 1):
        x = side * person.eye_x
        eye = _ellipse(u, v, x, person.eye_y, 118, opening)
        canvas = np.where(_ellipse(u, v, x, person.eye_y, 140, opening + 22), person.skin - 38, canvas)
        canvas = np.where(eye, 225, canvas)
        canvas = np.where(eye & _ellipse(u, v, x + gaze, person.eye_y, 56, 56), 30, canvas)
        inner = -side * (u - x)  # grows towards the nose
        height = (
            person.brow_y
            - expression.brow_raise
            - (inner * (expression.brow_inner + person.brow_tilt) >> 8)
            + (inner * inner >> 10)
        )
        brow = (np.abs(u - x) < 190) & (np.abs(v - height) < 30)
        canvas = np.where(brow, person.brow_dark, canvas)
        if person.glasses:
            ring = _ellipse(u, v, x, person.eye_y, 205, 165) & ~_ellipse(u, v, x, person.eye_y, 178, 138)
            canvas = np.where(ring, 35, canvas)
    return canvas


def _draw_nose(canvas: Ints, u: Ints, v: Ints, person: _Person, expression: Expression) -> Ints:
    shade = person.skin - 45
    canvas = np.where((np.abs(np.abs(u) - 75) < 24) & (np.abs(v - 205) < 26), shade - 20, canvas)
    canvas = np.where((np.abs(u - 40) < 14) & (v > -60) & (v < 180), person.skin - 18, canvas)
    if expression.nose_wrinkle > 20:
        for height in (-70, 10, 90):
            crease = (np.abs(np.abs(u) - 95) < expression.nose_wrinkle // 2) & (
                np.abs(v - height + (np.abs(u) >> 2)) < 15
            )
            canvas = np.where(crease, person.skin - 20 - expression.nose_wrinkle // 3, canvas)
    return canvas


def _draw_mouth(canvas: Ints, u: Ints, v: Ints, person: _Person, expression: Expression) -> Ints:
    width = max(110, person.mouth_width + expression.mouth_width)
    curve = person.mouth_curve + expression.mouth_curve
    line = person.mouth_y + curve // 2 - (curve * (u * u // width) // width)
    room = np.maximum(0, width * width - u * u)
    opening = max(0, expression.mouth_open) * room // (width * width)
    inside = np.abs(u) < width
    canvas = np.where(inside & (np.abs(v - line) < opening + person.lip), person.skin - 75, canvas)
    canvas = np.where(inside & (np.abs(v - line) < opening), 28, canvas)
    teeth = (expression.mouth_open > 15) & (curve > 40)
    return np.where(inside & teeth & (v - line < opening // 3) & (line - v < opening), 232, canvas)


def _face_coordinates(random: RandomState, side: int) -> tuple[Ints, Ints]:
    """Pixel centres in face coordinates: moved, scaled, sheared and turned by up to 10 degrees, all in integers.

    The turn uses the rational rotation (q²-p², 2pq)/(q²+p²), which needs no trigonometry.
    """
    scale = int(random.randint(90, 113))  # percent of the image's half side that half a face takes, inverted
    shift_x, shift_y = int(random.randint(-80, 81)), int(random.randint(-80, 81))
    p, q = int(random.randint(-87, 88)), 1000
    cosine, sine, norm = q * q - p * p, 2 * p * q, q * q + p * p
    yaw = int(random.randint(-100, 101))
    centres = (2 * np.arange(side, dtype=np.int64) + 1 - side) * UNIT * scale // (side * 100)
    x, y = np.meshgrid(centres - shift_x, centres - shift_y)
    u, v = (x * cosine + y * sine) // norm, (y * cosine - x * sine) // norm
    return u + (np.abs(u) * yaw >> 10), v


def _ellipse(u: Ints, v: Ints, x: int, y: int, half_width: int, half_height: int) -> NDArray[np.bool_]:
    du, dv = u - x, v - y
    return du * du * half_height**2 + dv * dv * half_width**2 < half_width**2 * half_height**2
