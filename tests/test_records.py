"""The records check what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from deepfer_yolo.emotions import EMOTIONS, canonical_label
from deepfer_yolo.records import Face, Frame, Prediction


def test_prediction_knows_its_label_and_its_best() -> None:
    prediction = Prediction(np.array([0.2, 0.5, 0.3], np.float32), ("a", "b", "c"))
    assert prediction.label == "b"
    assert prediction.confidence == pytest.approx(0.5)
    assert [label for label, _ in prediction.top(2)] == ["b", "c"]


@pytest.mark.parametrize("probs", [[0.5, 0.6], [np.nan, 1.0], [0.1, 0.2]])
def test_what_does_not_sum_to_one_is_no_prediction(probs: list[float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Prediction(np.array(probs, np.float32), ("a", "b"))
    with pytest.raises(ValueError, match="float32"):
        Prediction(np.array([1.0], np.float32), ("a", "b"))


def test_frames_and_faces_check_their_arrays() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Frame(0, 0.0, "pts", np.zeros((4, 4), np.uint8), "x")
    with pytest.raises(ValueError, match="finite"):
        Face(np.array([0, 0, np.inf, 1], np.float32), 1.0)
    with pytest.raises(ValueError, match="landmarks"):
        Face(np.zeros(4, np.float32), 1.0, np.zeros((4, 2), np.float32))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Happiness", "happy"),
        ("AFRAID", "fear"),
        ("3_happy", "happy"),
        ("04-sad", "sad"),
        ("Neutral ", "neutral"),
        ("contempt", "contempt"),
        ("banana", None),
        ("", None),
    ],
)
def test_known_spellings(name: str, label: str | None) -> None:
    assert canonical_label(name) == label
    assert list(EMOTIONS) == sorted(EMOTIONS)
