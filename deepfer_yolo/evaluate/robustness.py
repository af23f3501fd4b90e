"""What a model withstands and what it looks at: figures on images made worse, and occlusion maps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.evaluate.metrics import headline
from deepfer_yolo.evaluate.predictions import OnProgress, Scores, columns, counting, predict_all
from deepfer_yolo.evaluate.subsets import take
from deepfer_yolo.records import Image, Json, without_none
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import resize, to_input

Change = Callable[[Image, float, np.random.Generator], Image]


def crop_jitter(image: Image, level: float, rng: np.random.Generator) -> Image:
    """The frame moved by up to `level` of the side, its size changed by up to as much; edges are repeated."""
    height, width = image.shape[:2]
    side = 1 + rng.uniform(-level, level)
    top, left = (rng.uniform(-level, level, 2) + (1 - side) / 2) * (height, width)
    ys = np.clip(np.round(top + np.arange(round(side * height))), 0, height - 1).astype(np.int64)
    xs = np.clip(np.round(left + np.arange(round(side * width))), 0, width - 1).astype(np.int64)
    return resize(np.ascontiguousarray(image[ys][:, xs]), width, height)


def blur(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Gaussian blur with a standard deviation of `level` of the shorter side."""
    from PIL import Image as PillowImage
    from PIL import ImageFilter

    return np.asarray(PillowImage.fromarray(image).filter(ImageFilter.GaussianBlur(level * min(image.shape[:2]))))


def jpeg(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Written as JPEG of quality `level` and read again."""
    from PIL import Image as PillowImage

    data = io.BytesIO()
    PillowImage.fromarray(image).save(data, format="JPEG", quality=int(level))
    with PillowImage.open(data) as opened:
        return np.asarray(opened.convert("RGB"))


def brightness(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Every value times `level`, clipped."""
    return np.clip(np.round(image * level), 0, 255).astype(np.uint8)


def noise(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Gaussian noise with a standard deviation of `level` of 255, equal in the three channels as a grey sensor's is."""
    return np.clip(np.round(image + rng.normal(0, 255 * level, (*image.shape[:2], 1))), 0, 255).astype(np.uint8)


def low_resolution(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Reduced to a shorter side of `level` pixels and enlarged again."""
    height, width = image.shape[:2]
    scale = level / min(height, width)
    if scale >= 1:
        return image
    return resize(resize(image, max(1, round(width * scale)), max(1, round(height * scale))), width, height)


SWEEP: dict[str, tuple[Change, str, Sequence[float]]] = {
    "crop jitter": (crop_jitter, "shift and zoom, share of the side", (0.05, 0.1, 0.15, 0.2)),
    "blur": (blur, "sigma, share of the side", (0.01, 0.02, 0.04, 0.06)),
    "jpeg": (jpeg, "quality", (60, 30, 15, 8)),
    "brightness": (brightness, "factor", (0.3, 0.6, 1.4, 1.8)),
    "noise": (noise, "sigma, share of 255", (0.02, 0.05, 0.1, 0.2)),
    "low resolution": (low_resolution, "side in pixels", (36, 24, 16, 12)),
}
"""What is changed, what its level means, and the levels."""


@dataclass(frozen=True, slots=True)
class Point:
    """The figures at one level of a change; on unchanged images there is no level."""

    level: float | None
    top1: float
    macro_f1: float

    def to_json(self) -> Json:
        """The figures, and the level where there is one."""
        return without_none(self)


@dataclass(frozen=True, slots=True)
class Curve:
    """One change: what its level means, and the figures at each."""

    meaning: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Robustness:
    """The figures on `n` images, unchanged and under each change by its name."""

    n: int
    unchanged: Point
    changes: Mapping[str, Curve]


def sweep(
    classifier: Classifier,
    dataset: Dataset,
    scores: Scores,
    config: EvaluateConfig,
    on_progress: OnProgress | None = None,
) -> Robustness:
    """Top-1 and macro F1 on at most `config.robustness_pictures` of the scored images, unchanged and changed.

    They are drawn by the seed in proportion of the classes; chance in a change depends on the seed and the image alone.
    """
    part = take(scores, _draw(scores, config.robustness_pictures, config.seed))
    images = list(load_images(dataset, part.rows))
    n_runs = 1 + sum(len(levels) for _, _, levels in SWEEP.values())
    advance = counting(on_progress, n_runs * len(images))

    def point(level: float | None, changed: Iterator[Image]) -> Point:
        probs = predict_all(classifier, changed, config.batch, advance)
        found = headline(replace(part, probs=columns(probs, classifier.labels, scores.labels)).summed())
        return Point(level, float(found.top1), float(found.macro_f1))

    # Scored again without mirror images: what --tta adds must not look like what a change takes away.
    unchanged = point(None, iter(images))
    changes = {}
    for number, (name, (change, meaning, levels)) in enumerate(SWEEP.items()):
        points = []
        for level in levels:
            draws = (np.random.default_rng((config.seed, number, i)) for i in range(len(images)))
            changed = (change(image, level, draw) for image, draw in zip(images, draws, strict=True))
            points.append(point(level, changed))
        changes[name] = Curve(meaning, tuple(points))
    return Robustness(len(images), unchanged, changes)


def _draw(scores: Scores, count: int, seed: int) -> list[int]:
    n = len(scores.rows)
    if count >= n:
        return list(range(n))
    order = np.random.default_rng(seed).permutation(n)
    ranked = order[np.argsort(scores.targets[order], kind="stable")]
    # Every (n / count)-th of the images in class order: as many of each class as its share asks for.
    return sorted(int(i) for i in ranked[np.floor(np.arange(count) * n / count).astype(np.int64)])


GRID = 9
"""Places along each side; neighbouring patches overlap by half."""
PATCH = 0.2
"""Side of the patch as a share of the input's."""


def occlusion_map(classifier: Classifier, image: Image, label: str) -> NDArray[np.float64]:
    """How much the probability of `label` falls when a place is covered with the image's mean, float64 (GRID, GRID)."""
    shown = to_input(image, classifier.card.input)
    size = shown.shape[0]
    patch = max(1, round(PATCH * size))
    starts = np.round(np.linspace(0, size - patch, GRID)).astype(int)
    covered = np.repeat(shown[None], GRID * GRID + 1, axis=0)
    mean = shown.reshape(-1, 3).mean(0).round().astype(np.uint8)
    for place in range(GRID * GRID):
        top, left = starts[place // GRID], starts[place % GRID]
        covered[place, top : top + patch, left : left + patch] = mean
    probs = classifier.predict(covered)[:, classifier.labels.index(label)].astype(np.float64)
    drop: NDArray[np.float64] = (probs[-1] - probs[:-1]).reshape(GRID, GRID)
    return drop


def overlay(classifier: Classifier, image: Image, drop: NDArray[np.float64]) -> Image:
    """The model's input, uint8 (S, S, 3): in orange what speaks for the label, in blue what speaks against it."""
    from PIL import Image as PillowImage

    shown = to_input(image, classifier.card.input)
    size = shown.shape[0]
    scaled = drop / max(float(np.abs(drop).max()), 1e-6)
    large = PillowImage.fromarray(scaled.astype(np.float32)).resize((size, size), PillowImage.Resampling.BICUBIC)
    heat = np.clip(np.asarray(large), -1, 1)[:, :, None]
    tint = np.where(heat > 0, np.array([230.0, 110.0, 0.0]), np.array([0.0, 114.0, 200.0]))
    weight = 0.65 * np.abs(heat)
    grey = shown.mean(2, keepdims=True)
    return np.asarray(np.clip(grey * (1 - weight) + tint * weight, 0, 255), np.uint8)
