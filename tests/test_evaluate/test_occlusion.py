"""Occlusion maps find what a model looks at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from deepfer_yolo.evaluate.robustness import GRID, occlusion_map, overlay
from deepfer_yolo.runtime.classifier import Classifier


def test_the_map_points_at_the_pixels_that_decide(write_linear_model: Callable[..., Path], tmp_path: Path) -> None:
    weights = np.zeros((7, 40, 40, 3), np.float32)
    weights[3, 28:36, 4:12] = 0.02
    classifier = Classifier(write_linear_model(tmp_path / "m.onnx", weights.reshape(7, -1), np.zeros(7, np.float32)))
    image = np.zeros((40, 40, 3), np.uint8)
    image[28:36, 4:12] = 255
    drop = occlusion_map(classifier, image, "happy")
    row, column = np.unravel_index(drop.argmax(), drop.shape)
    assert (row, column) == (7, 1)
    assert drop.max() > 0.3
    assert np.abs(drop[: GRID // 2]).max() < 0.05, "covering what does not matter changes little"
    shown = overlay(classifier, image, drop).astype(int)
    assert shown.shape == (40, 40, 3)
    warm = shown[:, :, 0] - shown[:, :, 2]
    assert np.unravel_index(warm.argmax(), warm.shape)[0] > 24
