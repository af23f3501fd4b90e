"""Twenty-one kinds of bad image at five severities, as faces from cameras have them: what a model is examined by.

After the scheme of Hendrycks and Dietterich (2019, arXiv:1903.12261), at the size at which faces come: all is done on
48×48 pixels, in numpy and OpenCV, and shares no code, kernel or range of parameters with the augmentation of `train`.
The nine and seven further kinds have a relative there; five unseen ones are never trained on.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import ConfigError, did_you_mean
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.card import InputSpec
from deepfer_yolo.runtime.preprocess import to_input

Faces = NDArray[np.floating[Any]]
"""Values 0..255, (n, SIDE, SIDE, channels); what lies outside is clipped afterwards."""
Change = Callable[[Faces, float, np.random.Generator], Faces]

SIDE = 48
SEVERITIES = 5
CHUNK = 256
"""Images that share one random stream; a part of what the results depend on."""
GAMMA = 2.2
GROUPS = NINE, FURTHER, UNSEEN = "nine", "further", "unseen"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of corruption: what its level means at 48 pixels, and the level of each severity."""

    change: Change
    meaning: str
    levels: tuple[float, float, float, float, float]
    group: str


def faces_of(images: Sequence[Image]) -> NDArray[np.uint8]:
    """Images of any size as (n, SIDE, SIDE, 3), or (n, SIDE, SIDE, 1) where all of them are grey."""
    spec = InputSpec(size=SIDE, colour="rgb", native_px=None)
    faces = np.stack([to_input(image, spec) for image in images])
    is_grey = (faces == faces[..., :1]).all()
    return np.ascontiguousarray(faces[..., :1]) if is_grey else faces


def corrupted(faces: NDArray[np.uint8], name: str, severity: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """`faces` under one kind at severity 1 to 5, in parts of CHUNK; the same for the same seed and order of images."""
    kind = KINDS[name]
    for number, part in enumerate(in_chunks(faces)):
        rng = np.random.default_rng((seed, zlib.crc32(name.encode()), severity, number))
        changed = kind.change(part.astype(np.float32), kind.levels[severity - 1], rng)
        yield np.clip(np.round(changed), 0, 255).astype(np.uint8)


def in_chunks(faces: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """`faces` in parts of CHUNK."""
    yield from (faces[start : start + CHUNK] for start in range(0, len(faces), CHUNK))


def kinds_named(names: Sequence[str]) -> tuple[str, ...]:
    """The kinds that `names` ask for, each a kind or a group of them; all without any. Raises ConfigError."""
    wanted: set[str] = set()
    for name in names:
        members = {one for one, kind in KINDS.items() if name in (one, kind.group)}
        if not members:
            known = (*GROUPS, *KINDS)
            raise ConfigError(
                f"no corruption is called '{name}'{did_you_mean(name, known)}", f"use: {', '.join(known)}"
            )
        wanted |= members
    return tuple(name for name in KINDS if name in wanted or not names)


def framing(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """A crop that sits wrong: moved by `level` of its side, resized by up to as much, turned by up to 45° of it."""
    n = len(faces)
    towards, zoom = rng.uniform(0, 2 * np.pi, n), 1 + level * rng.uniform(-1, 1, n)
    turn = level * rng.uniform(-np.pi / 4, np.pi / 4, n)
    x, y = _grid(n)
    cos, sin = (_each(zoom * f(turn)) for f in (np.cos, np.sin))
    dx, dy = (_each(level * SIDE * f(towards)) for f in (np.cos, np.sin))
    return _sampled(faces, cos * x - sin * y + dx, sin * x + cos * y + dy)


def small_face(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """A face of `level` pixels, each the mean of its area, enlarged by a cubic filter."""
    import cv2

    px = round(level)
    return _each_image(
        faces,
        lambda image: cv2.resize(
            cv2.resize(image, (px, px), interpolation=cv2.INTER_AREA), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
        ),
    )


def defocus(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """A disc of radius `level`, in linear light, so that bright points spread."""
    reach = int(np.ceil(level + 0.5))
    fine = (np.arange((2 * reach + 1) * 8) + 0.5) / 8 - reach - 0.5
    inside = (np.hypot(fine[:, None], fine[None]) <= level).astype(np.float32)
    kernel = inside.reshape(2 * reach + 1, 8, 2 * reach + 1, 8).mean((1, 3))
    return _encoded(_filtered(_linear(faces), [kernel / kernel.sum()] * len(faces)))


def motion(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """A slightly bent path of `level` pixels in any direction, at a speed that changes, in linear light."""
    reach = int(np.ceil(level / 2)) + 2
    t = np.linspace(-0.5, 0.5, 65)
    kernels = []
    for angle, bend, slowing in rng.uniform((0, -0.5, -1.5), (np.pi, 0.5, 1.5), (len(faces), 3)):
        along, across = level * t, level * bend * (t**2 - 1 / 12)
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        x = along * np.cos(angle) - across * np.sin(angle) + reach
        y = along * np.sin(angle) + across * np.cos(angle) + reach
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        for right, down in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (1 - np.abs(x - left - right)) * (1 - np.abs(y - top - down))
            np.add.at(kernel, (top + down, left + right), weight * (1 + slowing * t))
        kernels.append(kernel / kernel.sum())
    return _encoded(_filtered(_linear(faces), kernels))


def noise(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """Shot noise of a pixel that holds `level` electrons at white, and read noise of two electrons."""
    electrons = rng.poisson(_linear(faces) * level) + rng.normal(0, 2, faces.shape)
    return _encoded(electrons / level)


def low_light(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """`level` stops less light on a pixel of 1,500 electrons, of which gain makes up a third; rows have noise too."""
    electrons = rng.poisson(_linear(faces) * 1500 * 2**-level) + rng.normal(0, 3, faces.shape)
    electrons = electrons + rng.normal(0, 1.5, (len(faces), SIDE, 1, 1))
    return _encoded(electrons / 1500 * 2 ** (level / 3))


def compression(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """JPEG of quality `level` twice, whose blocks of 8 pixels begin anywhere."""
    import cv2

    corners = iter(rng.integers(0, 8, (len(faces), 2, 2)))

    def twice(image: NDArray[Any]) -> NDArray[Any]:
        work = image[..., ::-1].astype(np.uint8)  # OpenCV writes BGR
        for (top, left), quality in zip(next(corners), (level, level + 10), strict=True):
            padded = cv2.copyMakeBorder(work, int(top), 8, int(left), 8, cv2.BORDER_REPLICATE)
            data = cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])[1]
            work = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))[top : top + SIDE, left : left + SIDE]
        return work.reshape(image.shape)[..., ::-1]

    return _each_image(faces, twice)


def over_exposure(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """`level` stops more light than white, which is clipped and glows into its surroundings."""
    light = _linear(faces) * 2**level
    glow = _blurred(np.maximum(light - 1, 0), 3.0)
    return _encoded(light + 0.3 * glow)


def covering(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """`level` of the area covered: by a mask, dark glasses, a bar, something from the side, or a hand."""
    n = len(faces)
    x, y = _grid(n)
    a, b = (_each(value) for value in rng.uniform(-1, 1, (2, n)))
    angle = _each(rng.uniform(0, np.pi, n))
    across = x * np.cos(angle) + y * np.sin(angle)
    along = y * np.cos(angle) - x * np.sin(angle)
    forms = np.stack([
        np.maximum(-(y + 2 * b), (x / 20) ** 4 * 10),  # a mask: from below, not beyond the cheeks
        np.minimum(np.hypot(x - 9, 1.3 * (y + 6 + b)), np.hypot(x + 9, 1.3 * (y + 6 + b))),  # glasses
        np.abs(across - 10 * a),  # a bar
        x * np.sign(a) + 0.3 * y * b,  # from the side
        np.hypot(across - 14 * a, (along - 14 * b) / 1.8) + 1.5 * np.sin(across),  # a hand
    ])  # fmt: skip
    chosen = forms[rng.integers(0, len(forms), n), np.arange(n)]
    edge = np.quantile(chosen.reshape(n, -1), level, axis=1)
    tone = _each(rng.uniform(15, 225, n)) + _each(rng.uniform(-1, 1, n)) * along
    return np.where((chosen <= _each(edge))[..., None], tone[..., None], faces).astype(np.float32)


def fog(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """A bright veil, of which `level` of each pixel consists on average, thicker in places."""
    thick = _blurred(rng.normal(0, 1, (len(faces), SIDE, SIDE, 1)).astype(np.float32), 8.0) * 14
    veil = np.clip(level + (1 - level) * 0.35 * thick, 0, 1)
    return np.asarray(faces * (1 - veil) + veil * rng.uniform(150, 245, (len(faces), 1, 1, 1)), np.float32)


def shadow(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """Light from one side: beyond an edge that runs through the face, `level` of the light is missing."""
    n = len(faces)
    x, y = _grid(n)
    angle, offset = _each(rng.uniform(0, 2 * np.pi, n)), _each(rng.uniform(-8, 8, n))
    beyond = (x * np.cos(angle) + y * np.sin(angle) - offset) / _each(rng.uniform(0.7, 5, n))
    return _encoded(_linear(faces) * (1 - level / (1 + np.exp(-beyond)))[..., None])


def interlacing(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """Every other line is of another moment, in which the face was `level` pixels to the side."""
    n = len(faces)
    x, y = _grid(n)
    side = _each(level * rng.choice((-1, 1), n))
    moved = _sampled(faces, x + side, y + 0.2 * side)
    is_odd = (np.arange(SIDE)[None, :] + rng.integers(0, 2, n)[:, None]) % 2 == 1
    return np.where(is_odd[:, :, None, None], moved, faces)


def warp(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """A rolling shutter that shakes: lines lean, and sway by `level` pixels, columns by half as much."""
    n = len(faces)
    x, y = _grid(n)
    lengths, phases = rng.uniform(14, 36, (2, n)), rng.uniform(0, 2 * np.pi, (2, n))
    sway, rise = (
        np.sin(2 * np.pi * at / _each(length) + _each(phase))
        for at, length, phase in zip((y, x), lengths, phases, strict=True)
    )
    lean = _each(level * rng.uniform(-1, 1, n)) * y / (SIDE / 2)
    return _sampled(faces, x + level * sway + lean, y + 0.5 * level * rise)


def posterised(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """`level` different values are left."""
    step = np.float32(255 / (level - 1))
    offset = rng.uniform(0, 1, (len(faces), 1, 1, 1)).astype(np.float32)
    return np.asarray((np.round(faces / step + offset) - offset) * step, np.float32)


def dead_pixels(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """`level` of the pixels are black or white."""
    chance = rng.random((*faces.shape[:3], 1), dtype=np.float32)
    value = np.where(chance < level / 2, np.float32(0), np.float32(255))
    return np.where(chance < level, value, faces)


def lost_blocks(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """`level` of the blocks of 8 pixels show their mean alone, or what was elsewhere: a video that lost packets."""
    n, blocks = len(faces), SIDE // 8
    corner, away = rng.integers(0, 8, (n, 2)), rng.integers(3, 9, (n, 2)) * rng.choice((-1, 1), (n, 2))
    work, elsewhere = _rolled(faces, corner), _rolled(faces, corner + away)
    means = work.reshape(n, blocks, 8, blocks, 8, -1).mean((2, 4))
    chance = rng.random((n, blocks, blocks, 1), dtype=np.float32)
    chance, means = (values.repeat(8, 1).repeat(8, 2) for values in (chance, means))
    work = np.where(chance < level, np.where(chance < level / 2, means, elsewhere), work)
    return _rolled(work, -corner)


def sharpened(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """What a camera does to hide its lens: `level` times the difference to a blurred copy is added."""
    return faces + np.float32(level) * (faces - _blurred(faces, 1.2))


def ghosting(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """Half of the image is that of an earlier moment, `level` pixels away: noise taken out over time."""
    x, y = _grid(len(faces))
    angle = _each(rng.uniform(0, 2 * np.pi, len(faces)))
    return 0.5 * (faces + _sampled(faces, x + level * np.cos(angle), y + level * np.sin(angle)))


def flicker(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """Bands of a lamp that flickers under a rolling shutter: where it is dark, `level` of the light is missing."""
    n = len(faces)
    _, y = _grid(n)
    length, phase = _each(rng.uniform(8, 30, n)), _each(rng.uniform(0, 2 * np.pi, n))
    dark = 0.5 + 0.5 * np.sin(2 * np.pi * y / length + phase)
    return _encoded(_linear(faces) * (1 - level * dark)[..., None])


def reflection(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """Behind a pane that mirrors: `level` of the light is that of the next image, upside down."""
    other = np.roll(faces, 1, axis=0)[:, ::-1]
    return _encoded((1 - level) * _linear(faces) + level * _linear(other))


def smeared(faces: Faces, level: float, rng: np.random.Generator) -> Faces:
    """What a camera does against noise: each value is the median of `level` × `level` pixels."""
    import cv2

    return _each_image(faces, lambda image: cv2.medianBlur(image.astype(np.uint8), round(level)))


KINDS: dict[str, Kind] = {
    "framing": Kind(framing, "shift, share of the side", (0.06, 0.1, 0.14, 0.18, 0.22), NINE),
    "small face": Kind(small_face, "side in pixels", (32, 26, 21, 17, 14), NINE),
    "defocus": Kind(defocus, "radius of the disc, pixels", (1, 1.5, 2, 2.6, 3.3), NINE),
    "motion": Kind(motion, "length of the path, pixels", (3.5, 5, 6.5, 8.5, 11), NINE),
    "noise": Kind(noise, "electrons at white", (500, 280, 150, 90, 50), NINE),
    "low light": Kind(low_light, "stops below", (3, 3.75, 4.5, 5.25, 6), NINE),
    "compression": Kind(compression, "JPEG quality", (30, 20, 14, 10, 6), NINE),
    "over-exposure": Kind(over_exposure, "stops above", (0.8, 1.4, 2.0, 2.6, 3.3), NINE),
    "covering": Kind(covering, "share of the area", (0.08, 0.14, 0.2, 0.27, 0.35), NINE),
    "fog": Kind(fog, "share of the veil", (0.5, 0.64, 0.75, 0.83, 0.9), FURTHER),
    "shadow": Kind(shadow, "share of the light that is missing", (0.85, 0.93, 0.97, 0.99, 0.997), FURTHER),
    "sharpened": Kind(sharpened, "share of the difference that is added", (1.5, 3, 5, 8, 12), FURTHER),
    "warp": Kind(warp, "sway, pixels", (1, 1.75, 2.5, 3.5, 4.5), FURTHER),
    "dead pixels": Kind(dead_pixels, "share of the pixels", (0.01, 0.02, 0.04, 0.07, 0.12), FURTHER),
    "ghosting": Kind(ghosting, "distance, pixels", (4, 6, 9, 12, 16), FURTHER),
    "flicker": Kind(flicker, "share of the light that is missing", (0.7, 0.85, 0.93, 0.97, 0.99), FURTHER),
    "interlacing": Kind(interlacing, "shift of every other line, pixels", (1, 1.5, 2.2, 3, 4.5), UNSEEN),
    "posterised": Kind(posterised, "values that are left", (8, 6, 4, 3, 2), UNSEEN),
    "lost blocks": Kind(lost_blocks, "share of the blocks", (0.15, 0.3, 0.45, 0.6, 0.75), UNSEEN),
    "reflection": Kind(reflection, "share of the light", (0.2, 0.3, 0.4, 0.5, 0.6), UNSEEN),
    "smeared": Kind(smeared, "side of the median, pixels", (3, 5, 7, 9, 11), UNSEEN),
}
"""By name and group; no kind of the last group may become one of training's."""


def _grid(n: int) -> tuple[Faces, Faces]:
    """Coordinates x and y from the centre in pixels, (n, SIDE, SIDE) each."""
    places = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    y, x = np.meshgrid(places, places, indexing="ij")
    return np.broadcast_to(x, (n, SIDE, SIDE)), np.broadcast_to(y, (n, SIDE, SIDE))


def _each(values: NDArray[np.floating[Any]]) -> Faces:
    """One value an image, to be used with (n, SIDE, SIDE)."""
    return values[:, None, None].astype(np.float32)


def _linear(faces: Faces) -> Faces:
    """Light, 0..1, from values."""
    light: Faces = (faces / np.float32(255)) ** np.float32(GAMMA)
    return light


def _encoded(light: NDArray[np.floating[Any]]) -> Faces:
    """Values from light, clipped where the sensor is full."""
    values: Faces = 255 * np.clip(light, 0, 1).astype(np.float32) ** np.float32(1 / GAMMA)
    return values


def _each_image(faces: Faces, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Faces:
    out = np.empty_like(faces)
    for into, image in zip(out, faces, strict=True):
        into[:] = change(image).reshape(image.shape)
    return out


def _filtered(faces: Faces, kernels: Sequence[Faces]) -> Faces:
    import cv2

    kernel = iter(kernels)
    return _each_image(faces, lambda image: cv2.filter2D(image, -1, next(kernel), borderType=cv2.BORDER_REPLICATE))


def _blurred(faces: Faces, sigma: float) -> Faces:
    import cv2

    return _each_image(faces, lambda image: cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))


def _sampled(faces: Faces, x: Faces, y: Faces) -> Faces:
    """Each image read at the places x and y, pixels from the centre; its edge goes on outside."""
    import cv2

    centre = (SIDE - 1) / 2
    places = zip((x + centre).astype(np.float32), (y + centre).astype(np.float32), strict=True)
    return _each_image(
        faces, lambda image: cv2.remap(image, *next(places), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    )


def _rolled(faces: Faces, by: NDArray[np.int64]) -> Faces:
    """Each image moved down and right by its `by` (n, 2), what falls out coming in on the other side."""
    return np.stack(
        [np.roll(image, (int(down), int(right)), (0, 1)) for image, (down, right) in zip(faces, by, strict=True)]
    )
