"""Parity by hand-computed numbers, and each passing line from both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.data.dataset import Row, open_dataset
from deepfer_yolo.errors import DatasetError, ParityError
from deepfer_yolo.evaluate.intervals import at_least, clopper_pearson
from deepfer_yolo.export.parity import (
    Parity,
    Sample,
    compare,
    judge,
    load_sample,
    paint_sample,
    stratify,
)
from deepfer_yolo.records import Probs
from deepfer_yolo.runtime.classifier import Classifier

LABELS = ("a", "b")


def sample(n: int, truth: list[int] | None = None) -> Sample:
    blank = np.zeros((8, 8, 3), np.uint8)
    return Sample(
        (blank,) * n,
        tuple(f"{i}.png" for i in range(n)),
        None if truth is None else np.array(truth),
        f"{n} test images",
    )


def rows(*first: float) -> Probs:
    """Two-class rows from the probability of the first class."""
    return np.array([(p, 1 - p) for p in first], np.float32)


def verdict(expected: Probs, actual: Probs, precision: str, truth: list[int] | None = None) -> Parity:
    return judge(expected, actual, sample(len(expected), truth), precision, ("left", "right"), LABELS)


def test_differences_are_those_of_the_probabilities() -> None:
    found = verdict(rows(0.9, 0.2, 0.6), rows(0.9, 0.2001, 0.5997), "fp32")
    assert found.max_diff == pytest.approx(3e-4, rel=1e-3)
    assert found.mean_diff == pytest.approx(4e-4 / 3, rel=1e-3)
    assert found.agreement == 1
    assert found.worst[0].picture == "2.png"
    assert found.failures == ("max |Δp| 3.00e-04 > 1e-04",)


def test_how_far_so_few_images_bound_the_agreement_is_said() -> None:
    found = verdict(rows(*[0.8, 0.3] * 48), rows(*[0.8, 0.3] * 48), "int8")
    assert (found.agreement, found.one_answer) == (1, None)
    assert found.agreement_at_least == pytest.approx(0.025 ** (1 / 96), abs=1e-6)
    assert found.notes == ("96 images bound the true agreement at 96.23% or more (95 %, exact)",)
    for k, n in ((0, 7), (1, 1), (4, 10), (90, 96), (3526, 3589)):
        assert at_least(k, n) == pytest.approx(clopper_pearson(k, n).low, abs=1e-6)


def test_a_model_that_always_answers_alike_is_named() -> None:
    found = verdict(rows(0.9, 0.8, 0.7), rows(0.9, 0.8, 0.7), "fp32")
    assert found.passed
    assert found.one_answer == "a"
    assert found.notes[-1] == "left answers a on every image: that labels agree shows nothing here"


def test_a_flip_within_the_tolerance_is_a_named_tie() -> None:
    found = verdict(rows(0.9, 0.50002), rows(0.9, 0.49998), "fp32")
    assert found.passed
    assert found.n_disagree == 1
    assert found.agreement == 1
    assert [tie.picture for tie in found.ties] == ["1.png"]
    assert (found.ties[0].reference, found.ties[0].candidate) == ("a", "b")


@pytest.mark.parametrize(("flips", "passed"), [(1, True), (2, False)])
def test_fp16_may_flip_two_in_a_thousand(flips: int, passed: bool) -> None:
    expected = rows(*[0.501] * 600)
    actual = expected.copy()
    actual[:flips] = (0.4985, 0.5015)
    found = verdict(expected, actual, "fp16")
    assert found.passed is passed
    assert found.agreement == pytest.approx(1 - flips / 600)


def test_int8_is_judged_by_what_it_decides() -> None:
    n = 2000
    expected = rows(*[0.8] * n)
    actual = rows(*[0.75] * n)
    truth = [0] * n
    found = verdict(expected, actual, "int8", truth)
    assert found.decisions is not None
    assert found.decisions.ece_reference == pytest.approx(0.2, abs=1e-6)
    assert found.failures == ("calibration error rises by 0.050 > 0.02",)
    assert verdict(expected, expected, "int8", truth).passed


def test_int8_may_not_lose_a_class() -> None:
    expected = rows(*[0.9] * 1900, *[0.1] * 100)
    actual = expected.copy()
    actual[1900:1904] = (0.9, 0.1)
    found = verdict(expected, actual, "int8", [0] * 1900 + [1] * 100)
    assert found.agreement > 0.98
    assert found.decisions is not None
    assert found.decisions.worst_class == "b"
    assert found.decisions.recall_loss["b"] == pytest.approx(0.04)
    assert found.decisions.accuracy_diff == pytest.approx(-0.002)
    assert found.failures == ("recall of b falls by 4.00% > 3%",)


def test_the_interval_of_the_accuracy_difference_is_paired() -> None:
    expected = rows(*[0.9] * 100)
    actual = expected.copy()
    actual[:10] = (0.1, 0.9)
    found = verdict(expected, actual, "int8", [0] * 95 + [1] * 5)
    assert found.decisions is not None
    # Ten of a hundred became wrong: mean -0.10, deviation 0.3015, half width 1.96 * 0.3015 / 10.
    assert found.decisions.accuracy_diff == pytest.approx(-0.10)
    assert found.decisions.accuracy_diff_interval == pytest.approx([-0.1591, -0.0409], abs=1e-4)
    assert any(line.startswith("top-1 agreement 90.00%") for line in found.failures)
    assert any(line.startswith("accuracy may fall by 15.91%") for line in found.failures)


def test_preprocessing_is_blamed_first() -> None:
    found = judge(rows(0.9), rows(0.2), sample(1), "fp32", ("left", "right"), LABELS, input_diff=3)
    assert found.failures[0] == "preprocessing: the inputs differ by up to 3 of 255"
    with pytest.raises(ParityError, match="preprocessing") as raised:
        found.require()
    assert raised.value.exit_code == 3


def test_nan_is_no_parity() -> None:
    with pytest.raises(Exception, match="NaN"):
        verdict(rows(0.9), rows(float("nan")), "fp32")


def test_a_model_equals_itself(linear_model: Path) -> None:
    found = compare(Classifier(linear_model), Classifier(linear_model), paint_sample(40))
    assert found.passed
    assert found.max_diff == 0
    assert "painted" in found.pictures
    assert found.decisions is None


def test_other_labels_cannot_be_compared(
    linear_model: Path, write_linear_model, fitted_weights, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    other = write_linear_model(tmp_path / "other.onnx", *fitted_weights, labels=tuple("abcdefg"))
    with pytest.raises(ParityError, match="labels differ"):
        compare(Classifier(linear_model), Classifier(other), paint_sample(4))


def test_labels_in_another_order_and_spelling_are_matched_by_name(
    linear_model: Path, write_linear_model, fitted_weights, painted_dataset: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    weights, bias = fitted_weights
    words = ("Surprised", "Sadness", "Neutral", "Happiness", "Fear", "Disgust", "Anger")
    stock = Classifier(write_linear_model(tmp_path / "stock.onnx", weights[::-1].copy(), bias[::-1].copy(), words))
    sample = load_sample(painted_dataset, "val", stock.labels, 1000)
    assert sample.truth is not None
    own = load_sample(painted_dataset, "val", Classifier(linear_model).labels, 1000)
    assert own.truth is not None
    assert sample.truth.tolist() == [6 - i for i in own.truth]
    found = compare(stock, Classifier(linear_model), sample)
    assert found.passed, found.failures
    assert found.decisions is not None
    assert found.decisions.accuracy_candidate == found.decisions.accuracy_reference > 0.2


def test_real_images_are_stratified(painted_dataset: Path, linear_model: Path) -> None:
    labels = Classifier(linear_model).labels
    every = load_sample(painted_dataset, "val", labels, 1000)
    assert len(every) == 56
    assert every.origin == f"56 of 56 images of {open_dataset(painted_dataset).name}, split val"
    some = load_sample(painted_dataset, "val", labels, 14)
    assert some.truth is not None
    assert np.bincount(some.truth).tolist() == [2] * 7
    with pytest.raises(DatasetError, match="does not know the label sad"):
        load_sample(painted_dataset, "val", labels[:5] + labels[6:], 10)


def test_each_label_keeps_its_share() -> None:
    found = stratify([Row(f"{i}.png", "val", "rare" if i < 10 else "common") for i in range(1000)], 100, seed=0)
    assert sum(row.label == "rare" for row in found) == 1
    assert sum(row.label == "common" for row in found) == 99
    assert [row.path for row in found] == [
        row.path for row in sorted(found, key=lambda row: int(row.path.split(".")[0]))
    ]
