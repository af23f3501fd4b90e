"""Scoring: labels by name, rows in the manifest's order, clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.dataset import open_dataset, read_manifest
from deepfer_yolo.data.images import load_image
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.evaluate.predictions import columns, common_labels, score_dataset
from deepfer_yolo.runtime.classifier import Classifier


def test_rows_and_probabilities_belong_together(painted_dataset: Path, linear_model: Path) -> None:
    classifier = Classifier(linear_model)
    seen: list[tuple[int, int]] = []
    dataset, config = open_dataset(painted_dataset), ScoringConfig(batch=25)
    scores = score_dataset(classifier, dataset, config, lambda done, total: seen.append((done, total)))
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
    scores = score_dataset(Classifier(backwards), open_dataset(painted_dataset), ScoringConfig())
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


STOCK = ("Sadness", "Angry", "Fearful", "3_happy", "NEUTRAL", "Disgust", "Surprised")
"""What a stock model may call the labels, in an order of its own."""
MEANT = ("sad", "angry", "fear", "happy", "neutral", "disgust", "surprise")


def test_labels_meet_by_the_spelling_table_and_are_called_as_the_data_set_calls_them() -> None:
    assert common_labels([STOCK, EMOTIONS], EMOTIONS) == MEANT
    assert common_labels([("Sadness", "contempt", "Joy")], EMOTIONS, "intersect") == ("sad", "happy")
    with pytest.raises(DatasetError, match=r"the model alone knows Bored; the data set alone knows fear \(the model"):
        common_labels([("Bored", "Anger")], ("angry", "fear"))


def test_two_labels_of_one_side_that_mean_one_of_the_other_are_an_error() -> None:
    with pytest.raises(DatasetError, match="angry and Anger, angry all mean angry"):
        common_labels([("Anger", "angry", "sad")], ("angry", "sad"), "intersect")
    with pytest.raises(DatasetError, match=r"Anger and angry, mad all mean angry"):
        common_labels([("Anger", "sad")], ("angry", "mad", "sad"))
    # The same names on both sides are told apart by name, and what the other side lacks is in nobody's way.
    assert common_labels([("mad", "angry")], ("angry", "mad")) == ("mad", "angry")
    assert common_labels([("happy", "joy", "sad", "fear")], ("sad", "fear"), "intersect") == ("sad", "fear")


def test_a_stock_model_scores_as_its_twin_with_the_data_sets_names(
    painted_dataset: Path,
    linear_model: Path,
    fitted_weights: tuple[NDArray[np.float32], NDArray[np.float32]],
    write_linear_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    weights, bias = fitted_weights
    order = [EMOTIONS.index(label) for label in MEANT]
    stock = write_linear_model(tmp_path / "stock.onnx", weights[order], bias[order], STOCK)
    dataset, config = open_dataset(painted_dataset), ScoringConfig()
    twin, scores = (score_dataset(Classifier(path), dataset, config) for path in (linear_model, stock))
    assert scores.labels == MEANT
    assert np.abs(scores.probs - twin.probs[:, order]).max() < 1e-6
    assert float((scores.probs.argmax(1) == scores.targets).mean()) > 0.2
    assert [scores.labels[t] for t in scores.targets] == [row.label for row in scores.rows]


def test_columns_are_scaled_back_to_one() -> None:
    probs = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], np.float32)
    assert np.allclose(columns(probs, ("a", "b", "c"), ("c", "b")), [[0.5, 0.5], [0.5, 0.5]])
    assert columns(probs, ("a", "b", "c"), ("a", "b", "c")) is probs


def test_a_split_that_has_none_of_the_labels(painted_dataset: Path, linear_model: Path) -> None:
    data = open_dataset(painted_dataset)
    with pytest.raises(DatasetError, match="no image of the 'val' split bears one of the labels x, y"):
        score_dataset(Classifier(linear_model), data, ScoringConfig(), labels=("x", "y"))


def test_flip_averages_over_each_image_and_its_mirror_image(painted_dataset: Path, linear_model: Path) -> None:
    classifier, dataset = Classifier(linear_model), open_dataset(painted_dataset)
    scores = score_dataset(classifier, dataset, ScoringConfig(split="test", batch=5), flip=True)
    image = load_image(painted_dataset / scores.rows[7].path)
    both = classifier.predict_images([image, np.ascontiguousarray(image[:, ::-1])])
    assert np.abs(both[0] - both[1]).max() > 0.01
    assert np.allclose(scores.probs[7], both.mean(0), atol=1e-6)


def test_scores_of_a_symmetric_model_do_not_change_by_flip(
    write_linear_model: Callable[..., Path], painted_dataset: Path, tmp_path: Path
) -> None:
    weights = np.random.default_rng(0).normal(size=(7, 8, 8, 3)).astype(np.float32)
    symmetric = (weights + weights[:, :, ::-1]).reshape(7, -1)
    model = Classifier(write_linear_model(tmp_path / "even.onnx", symmetric, np.zeros(7, np.float32)))
    dataset, config = open_dataset(painted_dataset), ScoringConfig(split="test")
    plain, flipped = (score_dataset(model, dataset, config, flip=flip) for flip in (False, True))
    assert np.abs(plain.probs - flipped.probs).max() < 0.02
