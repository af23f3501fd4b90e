"""The golden self-test finds what is broken, and says whose fault it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from deepfer_yolo.errors import ModelError
from deepfer_yolo.records import Crops, Probs
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.golden import check_golden, make_golden
from deepfer_yolo.runtime.model_file import attach


def with_weights(source: Path, target: Path, factor: float) -> Path:
    """The model with its last bias moved, and with a card that describes the new graph but keeps the old answers."""
    model = onnx.load(str(source))
    tensor = next(t for t in model.graph.initializer if list(t.dims) == [7])
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0] += factor
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    target.write_bytes(model.SerializeToString())
    attach(Classifier(source).card, target)
    return target


def test_an_export_verifies(exported: Path) -> None:
    result = check_golden(Classifier(exported))
    assert result.passed
    assert result.n == 8
    assert result.max_diff < 1e-6
    assert result.tolerance == 1e-4


def test_slightly_different_weights_fail(exported: Path, tmp_path: Path) -> None:
    result = check_golden(Classifier(with_weights(exported, tmp_path / "model.onnx", 0.01)))
    assert not result.passed
    assert 1e-4 < result.max_diff < 0.1


def test_nan_weights_fail(exported: Path, tmp_path: Path) -> None:
    broken = Classifier(with_weights(exported, tmp_path / "model.onnx", np.nan))
    with pytest.raises(ModelError, match="NaN"):
        check_golden(broken)
    with pytest.raises(ModelError, match=r"model\.onnx answers with NaN"):
        broken.predict_images([np.zeros((40, 40, 3), np.uint8)])


def test_other_painted_inputs_are_not_the_models_fault(exported: Path, tmp_path: Path) -> None:
    card = Classifier(exported).card
    assert card.golden is not None
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.read_bytes())
    attach(card.model_copy(update={"golden": card.golden.model_copy(update={"seed": card.golden.seed + 1})}), path)
    with pytest.raises(ModelError, match="golden inputs painted here are not the card's"):
        check_golden(Classifier(path))


def test_a_card_without_golden_answers_is_refused(linear_model: Path) -> None:
    with pytest.raises(ModelError, match="no golden part"):
        check_golden(Classifier(linear_model))


@pytest.mark.parametrize(
    ("margin", "shift", "passed"), [(0.4, 0.04, True), (0.4, 0.06, False), (0.07, 0.04, False), (0.03, 0.04, True)]
)
def test_int8_allows_small_differences_but_no_other_label(
    margin: float, shift: float, passed: bool, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier(exported)
    golden = classifier.card.golden
    assert golden is not None
    probs = np.full((golden.n, len(classifier.labels)), 0.01, np.float32)
    rest = 1 - 0.01 * (len(classifier.labels) - 2)
    probs[:, 0], probs[:, 1] = (rest + margin) / 2, (rest - margin) / 2
    card = classifier.card.model_copy(
        update={"precision": "int8", "golden": golden.model_copy(update={"probs": probs.tolist()})}
    )
    moved = probs + np.array([-shift, shift, *[0.0] * (len(classifier.labels) - 2)], np.float32)
    monkeypatch.setattr(Classifier, "card", property(lambda self: card))
    monkeypatch.setattr(Classifier, "predict", lambda self, crops: moved)
    result = check_golden(classifier)
    assert result.passed is passed
    assert result.max_diff == pytest.approx(shift, abs=1e-6)


def test_answers_that_are_no_probabilities_get_no_golden_part() -> None:
    def logits(crops: Crops) -> Probs:
        return np.ones((len(crops), 7), np.float32)

    with pytest.raises(ModelError, match="a row sums to 7"):
        make_golden(logits, 32)
