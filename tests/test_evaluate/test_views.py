"""Test-time views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.evaluate.predictions import score_dataset, views
from deepfer_yolo.runtime.classifier import Classifier

IMAGE = np.arange(48 * 48 * 3, dtype=np.uint8).reshape(48, 48, 3)


def test_flip_is_the_picture_and_its_mirror_image() -> None:
    one, two = views(IMAGE, "flip")
    assert np.array_equal(one, IMAGE)
    assert np.array_equal(two, IMAGE[:, ::-1])


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_probabilities_are_averaged_over_the_views(tta: str, painted_dataset: Path, linear_model: Path) -> None:
    classifier, dataset = Classifier(linear_model), open_dataset(painted_dataset)
    scores = score_dataset(classifier, dataset, "test", batch=5, tta=tta)  # type: ignore[arg-type]
    from deepfer_yolo.data.images import load_image

    image = load_image(painted_dataset / scores.rows[7].path)
    assert np.allclose(scores.probs[7], classifier.predict_images(views(image, tta)).mean(0), atol=1e-6)  # type: ignore[arg-type]


def test_mirror_symmetric_scores_do_not_change(
    write_linear_model: Callable[..., Path], painted_dataset: Path, tmp_path: Path
) -> None:
    weights = np.random.default_rng(0).normal(size=(7, 8, 8, 3)).astype(np.float32)
    model = write_linear_model(
        tmp_path / "even.onnx", (weights + weights[:, :, ::-1]).reshape(7, -1), np.zeros(7, np.float32)
    )
    plain = score_dataset(Classifier(model), open_dataset(painted_dataset), "test")
    flipped = score_dataset(Classifier(model), open_dataset(painted_dataset), "test", tta="flip")
    assert np.abs(plain.probs - flipped.probs).max() < 0.02
