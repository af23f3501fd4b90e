"""Temperature scaling against a model whose overconfidence is known."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from deepfer_yolo.train.measure import Score, calibrate, fit_temperature, score, softmax


def overconfident(n: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, (n, 7))
    labels = np.array([random.choice(7, p=row) for row in softmax(honest)])
    return honest * temperature, labels


def test_the_temperature_that_was_put_in_is_found() -> None:
    logits, labels = overconfident(4000, 2.5)
    assert fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.05)


def test_calibration_brings_the_error_down_to_the_floor() -> None:
    logits, labels = overconfident(3000, 2.5)
    found = calibrate(logits, labels)
    assert found.ece_before > 0.1
    assert found.ece_after < 0.03
    assert found.ece_after < 1.8 * found.ece_floor


def test_what_label_smoothing_leaves_on_unlikely_classes_does_not_sharpen_the_answer() -> None:
    """The log-likelihood would ask for 0.74 here, and leave an ECE of 3.0 %."""
    honest, labels = overconfident(4000, 1.0)
    smoothed = np.log(0.8 * softmax(honest) + 0.2 / 7)
    assert fit_temperature(smoothed, labels) == pytest.approx(0.796, abs=0.01)
    assert calibrate(smoothed, labels).ece_after < 0.02


def test_a_few_images_that_are_all_right_do_not_ask_for_certainty() -> None:
    found = calibrate(np.eye(7) * 9, np.arange(7))
    assert 0.19 < found.temperature < 10.1
    assert np.isfinite(astuple(found)).all()


def test_scores_by_hand() -> None:
    logits = np.array([[2.0, 1, 0], [2, 1, 0], [0, 1, 2], [0, 1, 2]])
    found = score(logits, np.array([0, 1, 2, 2]))
    # F1: class 0 = 2/3, class 1 = 0, class 2 = 1
    assert found == Score(4, 0.75, pytest.approx((2 / 3 + 0 + 1) / 3), ((1, 0, 0), (1, 0, 0), (0, 0, 2)))
