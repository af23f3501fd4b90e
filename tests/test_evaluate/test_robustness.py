"""The benchmark counts rightly against labels and votes, and repeats. Occlusion maps find what a model looks at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.evaluate.predictions import score_dataset
from deepfer_yolo.evaluate.robustness import GRID, Opinions, drawn, occlusion_map, overlay, sweep, withstood
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.classifier import Classifier

LABELS = ("angry", "happy", "sad")


def answering(answers: list[int], confidence: float) -> Callable[[Crops], Probs]:
    """A model that gives the same answers in the order of the images, under whatever corruption."""

    def predict(crops: Crops) -> Probs:
        assert crops.shape[1:] == (48, 48, 3)
        assert crops.dtype == np.uint8
        probs = np.full((len(crops), 3), (1 - confidence) / 2, np.float32)
        probs[np.arange(len(crops)), answers] = confidence
        return probs

    return predict


def test_figures_against_labels_and_votes_by_hand() -> None:
    faces = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1), dtype=np.uint8)
    opinions = Opinions(LABELS, np.array([0, 1, 2, 2]), np.array([0, 1, -1, 1]))
    config = EvaluateConfig(robustness_kinds=("smeared", "nine"), replicates=200)
    found = withstood(answering([0, 1, 1, 1], 0.7), faces, opinions, config)
    assert found.n == 4
    assert list(found.means) == ["nine", "unseen"]
    assert len(found.kinds) == 10
    assert found.kinds["smeared"].severities[4].votes is not None
    for one in (found.clean, *found.means.values(), found.kinds["smeared"].mean, found.kinds["smeared"].severities[4]):
        assert one.votes is not None
        assert (one.label.n, one.votes.n) == (4, 3)
        assert one.label.top1 == 0.5
        assert one.votes.top1 == 1
        assert one.label.macro_f1 == pytest.approx((1 + 0.5 + 0) / 3)
        assert one.votes.macro_f1 == 1
        assert one.label.ece == pytest.approx(0.2)
        assert one.votes.ece == pytest.approx(0.3)
    assert found.kinds["smeared"].severities[0].label.interval is None


def test_a_model_that_sees_only_the_light_errs_where_the_light_changes() -> None:
    faces = np.repeat(np.array([40, 200] * 20, np.uint8), 48 * 48).reshape(40, 48, 48, 1)
    opinions = Opinions(("dark", "light"), np.array([0, 1] * 20), np.full(40, -1))

    def predict(crops: Crops) -> Probs:
        is_light = crops.mean((1, 2, 3)) > 120
        return np.stack([~is_light, is_light], axis=1).astype(np.float32)

    config = EvaluateConfig(robustness_kinds=("low light", "motion"), replicates=200)
    found = withstood(predict, faces, opinions, config)
    assert found.clean.votes is None
    assert found.clean.label.top1 == found.kinds["motion"].mean.label.top1 == 1
    assert [one.label.top1 for one in found.kinds["low light"].severities[2:]] == [0.5] * 3
    assert found.means["nine"].label.top1 == pytest.approx(
        np.mean([one.label.top1 for kind in found.kinds.values() for one in kind.severities])
    )


def test_the_sweep_draws_every_class_in_proportion_and_repeats(painted_dataset: Path, linear_model: Path) -> None:
    classifier, dataset = Classifier(linear_model), open_dataset(painted_dataset)
    scores = score_dataset(classifier, dataset, EvaluateConfig())
    seen: list[tuple[int, int]] = []
    kinds = ("framing", "dead pixels")
    configs = [
        EvaluateConfig(robustness_pictures=n, seed=seed, robustness_kinds=kinds, replicates=200)
        for n, seed in ((28, 0), (28, 1), (1000, 0))
    ]
    one = sweep(classifier, dataset, scores, configs[0], lambda done, total: seen.append((done, total)))
    assert seen[-1] == (11 * 28, 11 * 28)
    assert one == sweep(classifier, dataset, scores, configs[0])
    assert one != sweep(classifier, dataset, scores, configs[1])
    assert one.n == 28
    assert list(one.kinds) == ["framing", "dead pixels"]
    assert one.clean.label.interval is not None
    low, high = one.clean.label.interval
    assert one.clean.label.top1 - 0.3 < low < one.clean.label.top1 < high
    assert np.bincount(scores.targets[drawn(scores, 28, 0)]).tolist() == [4] * 7
    everything = sweep(classifier, dataset, scores, configs[2])
    assert everything.clean.label.top1 == pytest.approx(float((scores.probs.argmax(1) == scores.targets).mean()))


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
