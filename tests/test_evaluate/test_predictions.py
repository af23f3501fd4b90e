"""Scoring: labels by name, rows in the manifest's order, clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.data.dataset import open_dataset, read_manifest
from deepfer_yolo.data.images import load_image
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.evaluate.predictions import columns, common_labels, score_dataset
from deepfer_yolo.runtime.classifier import Classifier


def test_rows_and_probabilities_belong_together(painted_dataset: Path, linear_model: Path) -> None:
    classifier = Classifier(linear_model)
    seen: list[tuple[int, int]] = []
    scores = score_dataset(
        classifier, open_dataset(painted_dataset), "val", 25, lambda done, total: seen.append((done, total))
    )
    rows = [row for row in read_manifest(painted_dataset) if row.split == "val"]
    assert scores.paths == [row.path for row in rows]
    assert [scores.labels[t] for t in scores.targets] == [row.label for row in rows]
    expected = classifier.predict_images([load_image(painted_dataset / row.path) for row in rows])
    assert np.abs(scores.probs - expected).max() < 1e-6
    assert seen == [(25, 56), (50, 56), (56, 56)]


def test_targets_follow_the_models_order(
    painted_dataset: Path, write_linear_model: Callable[..., Path], tmp_path: Path
) -> None:
    backwards = write_linear_model(
        tmp_path / "b.onnx", np.zeros((7, 192), np.float32), np.arange(7, dtype=np.float32), EMOTIONS[::-1]
    )
    scores = score_dataset(Classifier(backwards), open_dataset(painted_dataset), "val")
    assert scores.labels == EMOTIONS[::-1]
    assert [scores.labels[t] for t in scores.targets] == [row.label for row in scores.rows]
    # The last column is the most probable, and it is called angry.
    assert float((scores.probs.argmax(1) == scores.targets).mean()) == pytest.approx(1 / 7)


def test_common_labels() -> None:
    assert common_labels([("b", "a")], ("a", "b")) == ("b", "a")
    assert common_labels([("c", "b", "a"), ("a", "c", "d")], ("a", "c", "e"), "intersect") == ("c", "a")
    with pytest.raises(DatasetError, match="the model alone knows b; the data set alone knows c"):
        common_labels([("a", "b")], ("a", "c"))
    with pytest.raises(DatasetError, match="fewer than two labels in common"):
        common_labels([("a", "b")], ("a", "c"), "intersect")


def test_columns_are_scaled_back_to_one() -> None:
    probs = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], np.float32)
    assert np.allclose(columns(probs, [2, 1]), [[0.5, 0.5], [0.5, 0.5]])
    assert columns(probs, [0, 1, 2]) is probs


def test_a_split_that_has_none_of_the_labels(painted_dataset: Path, linear_model: Path) -> None:
    data = open_dataset(painted_dataset)
    with pytest.raises(DatasetError, match="no picture of the 'val' split bears one of the labels x, y"):
        score_dataset(Classifier(linear_model), data, "val", labels=("x", "y"))
