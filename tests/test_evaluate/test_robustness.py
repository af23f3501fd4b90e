"""The sweep: each change does what its name and its level say. Occlusion maps find what a model looks at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.evaluate import robustness
from deepfer_yolo.evaluate.predictions import score_dataset
from deepfer_yolo.evaluate.robustness import (
    GRID,
    SWEEP,
    blur,
    brightness,
    crop_jitter,
    jpeg,
    low_resolution,
    noise,
    occlusion_map,
    overlay,
    sweep,
)
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.runtime.classifier import Classifier


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.repeat(paint_faces(3, 1)[0][0][:, :, None], 3, axis=2)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def detail(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


@pytest.mark.parametrize("name", list(SWEEP))
def test_each_change_keeps_the_shape_and_grows_with_its_level(name: str, face: np.ndarray) -> None:
    change, _, levels = SWEEP[name]
    changed = [change(face, level, rng()) for level in levels]
    assert all(image.shape == face.shape and image.dtype == np.uint8 for image in changed)
    distances = [float(np.abs(image.astype(float) - face).mean()) for image in changed]
    assert distances[0] > 0
    if name != "brightness":
        assert distances[-1] > distances[0]


def test_blur_and_low_resolution_take_detail_away(face: np.ndarray) -> None:
    assert detail(blur(face, 0.06, rng())) < detail(blur(face, 0.02, rng())) < detail(face)
    assert detail(low_resolution(face, 12, rng())) < detail(low_resolution(face, 36, rng())) < detail(face)
    assert np.array_equal(low_resolution(face, 48, rng()), face)


def test_exact_effects(face: np.ndarray) -> None:
    assert np.array_equal(brightness(face, 0.5, rng()), np.round(face * 0.5).astype(np.uint8))
    assert noise(np.full((64, 64, 3), 128, np.uint8), 0.1, rng()).std() == pytest.approx(25.5, rel=0.05)
    assert np.ptp(noise(face, 0.1, rng()).astype(int), axis=2).max() == 0, "grey stays grey"
    assert np.abs(jpeg(face, 95, rng()).astype(int) - face).mean() < 3
    assert np.array_equal(crop_jitter(face, 0.0, rng()), face)


def test_the_sweep_draws_every_class_in_proportion_and_repeats(
    painted_dataset: Path, linear_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        robustness, "SWEEP", {name: (*SWEEP[name][:2], SWEEP[name][2][:1]) for name in ("crop jitter", "noise")}
    )
    classifier, dataset = Classifier(linear_model), open_dataset(painted_dataset)
    scores = score_dataset(classifier, dataset, EvaluateConfig())
    seen: list[tuple[int, int]] = []
    configs = [EvaluateConfig(robustness_pictures=n, seed=seed, batch=16) for n, seed in ((28, 0), (28, 1), (1000, 0))]
    one = sweep(classifier, dataset, scores, configs[0], lambda done, total: seen.append((done, total)))
    assert seen[-1] == (84, 84)
    assert one == sweep(classifier, dataset, scores, configs[0])
    assert one != sweep(classifier, dataset, scores, configs[1])
    assert one.n == 28
    assert list(one.changes) == ["crop jitter", "noise"]
    drawn = robustness._draw(scores, 28, 0)
    assert np.bincount(scores.targets[drawn]).tolist() == [4] * 7
    everything = sweep(classifier, dataset, scores, configs[2])
    assert everything.unchanged.top1 == pytest.approx(float((scores.probs.argmax(1) == scores.targets).mean()))


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
