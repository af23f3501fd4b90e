"""Which part of a face speaks for a label: cover it piece by piece and watch the probability (Zeiler & Fergus 2014). Needs no gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.records import Image
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import to_input

GRID = 9
"""Places along each side; neighbouring patches overlap by half."""
PATCH = 0.2
"""Side of the patch as a share of the input's."""


def occlusion_map(classifier: Classifier, image: Image, label: str) -> NDArray[np.float64]:
    """How much the probability of `label` falls when each place is covered with the picture's mean, float64 (GRID, GRID)."""
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
    """The model's input with the places that speak for the label in orange and those that speak against it in blue, uint8 (S, S, 3)."""
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
