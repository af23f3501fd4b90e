"""Each metric against a number worked out by hand or another implementation."""

from __future__ import annotations

from dataclasses import astuple, fields

import numpy as np
import pytest

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.dataset import Row
from deepfer_yolo.errors import DatasetError, ModelError
from deepfer_yolo.evaluate.evaluation import Metrics, measure
from deepfer_yolo.evaluate.metrics import (
    NOT_SHARES,
    Headline,
    confusion_matrix,
    ece,
    headline,
    macro_f1,
    most_confused,
    noise_floor,
    reliability,
    selective_accuracy,
    tally,
    total,
)
from deepfer_yolo.evaluate.predictions import Scores
from deepfer_yolo.evaluate.tables import SHARES

LABELS = ("a", "b", "c")
# Six images, worked out by hand: a a a b b c, predicted a a b b c b.
PROBS = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.1, 0.7, 0.2], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3]])
TARGETS = np.array([0, 0, 0, 1, 1, 2])


def measured(probs: np.ndarray, targets: np.ndarray, labels: tuple[str, ...]) -> Metrics:
    rows = tuple(Row(f"{i}.png", "test", labels[target]) for i, target in enumerate(targets))
    return measure(Scores(rows, labels, targets, probs.astype(np.float32)), ScoringConfig(replicates=100))


def test_every_headline_figure_has_a_title() -> None:
    assert {*SHARES, *NOT_SHARES} == {field.name for field in fields(Headline)}


def test_worked_example() -> None:
    result = measured(PROBS, TARGETS, LABELS)
    assert result.n == 6
    assert result.top1 == pytest.approx(3 / 6)
    assert result.top2 == pytest.approx(6 / 6)
    assert result.top5 == 1
    assert result.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 1, 0]]
    assert np.allclose(result.to_json()["confusion_normalised"], [[2 / 3, 1 / 3, 0], [0, 1 / 2, 1 / 2], [0, 1, 0]])
    # precision a 2/2, b 1/3, c 0/1; recall a 2/3, b 1/2, c 0; F1 a 0.8, b 0.4, c 0
    assert result.macro_precision == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert result.macro_recall == result.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert result.macro_f1 == pytest.approx((0.8 + 0.4 + 0) / 3)
    assert result.weighted_precision == pytest.approx((3 * 1 + 2 / 3 + 0) / 6)
    assert result.weighted_recall == pytest.approx(3 / 6)
    assert result.weighted_f1 == pytest.approx((3 * 0.8 + 2 * 0.4) / 6)
    assert astuple(result.per_class["b"])[:4] == pytest.approx((1 / 3, 1 / 2, 0.4, 2))
    assert result.nll == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.7, 0.3, 0.3]).mean())
    # Brier by image: .04+.01+.01, .16+.09+.01, .49+.25+.04, .01+.09+.04, .04+.49+.25, .01+.36+.49
    assert result.brier == pytest.approx((0.06 + 0.26 + 0.78 + 0.14 + 0.78 + 0.86) / 6)


def test_the_point_estimates_are_those_of_scikit_learn() -> None:
    from sklearn import metrics as sk

    rng = np.random.default_rng(3)
    probs, targets = rng.dirichlet(np.full(7, 0.5), 400), rng.integers(0, 6, 400)  # the last class does not occur
    predicted, classes, present = probs.argmax(1), list(range(7)), list(range(6))
    result = measured(probs, targets, tuple("abcdefg"))
    assert result.brier == pytest.approx(sk.brier_score_loss(targets, probs, scale_by_half=False, labels=classes))
    assert result.nll == pytest.approx(sk.log_loss(targets, probs, labels=classes))
    for k in (1, 2, 5):
        assert getattr(result, f"top{k}") == pytest.approx(sk.top_k_accuracy_score(targets, probs, k=k, labels=classes))
    assert (result.confusion == sk.confusion_matrix(targets, predicted, labels=classes)).all()
    normalised = sk.confusion_matrix(targets, predicted, labels=classes, normalize="true")
    assert np.allclose(result.to_json()["confusion_normalised"], normalised)
    for average in ("macro", "weighted"):
        found = sk.precision_recall_fscore_support(targets, predicted, labels=present, average=average, zero_division=0)
        for name, score in zip(("precision", "recall", "f1"), found[:3], strict=True):
            assert getattr(result, f"{average}_{name}") == pytest.approx(score)
    assert result.balanced_accuracy == result.macro_recall
    columns = zip(*sk.precision_recall_fscore_support(targets, predicted, labels=present, zero_division=0), strict=True)
    for label, column in zip("abcdef", columns, strict=True):
        assert astuple(result.per_class[label])[:4] == pytest.approx(column)


def test_ties_go_to_the_lower_index() -> None:
    probs = np.full((2, 3), 1 / 3)
    assert headline(total(tally(probs, np.array([0, 1])))).top1 == 0.5
    assert headline(total(tally(probs, np.array([0, 2])))).top2 == 0.5


def test_class_without_images_is_named_and_left_out_of_macro_averages() -> None:
    result = measured(PROBS[:5], TARGETS[:5], LABELS)
    assert result.absent == ("c",)
    shown = result.to_json()["per_class"]["c"]
    assert {key: shown[key] for key in ("precision", "recall", "f1", "support")} == {
        "precision": 0.0,
        "recall": None,
        "f1": None,
        "support": 0,
    }
    assert shown["recall_interval"] == [None, None]
    assert result.macro_recall == pytest.approx((2 / 3 + 1 / 2) / 2)
    # b is right once in two predictions, and the image of b that was called c still counts as a miss.
    assert result.macro_f1 == pytest.approx((0.8 + 0.5) / 2)


def test_macro_f1_counts_the_classes_that_occur() -> None:
    confusion = confusion_matrix(np.array([0, 0, 2]), np.array([0, 0, 0]), 3)
    assert confusion.tolist() == [[2, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert macro_f1(confusion) == pytest.approx(0.8)


def test_ece_worked_example() -> None:
    # Confidences .8 .6 .5 .7 .5 .6 in bins of 1/15: .5 and .5 share (7/15, 8/15], .6 and .6 share (8/15, 9/15].
    bins = reliability(PROBS, TARGETS)
    assert bins.n.tolist() == [0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 1, 1, 0, 0, 0]
    assert ece(bins) == pytest.approx((2 * abs(0.5 - 0) + 2 * abs(0.6 - 0.5) + abs(0.7 - 1) + abs(0.8 - 1)) / 6)


def test_noise_floor_is_the_mean_ece_of_a_calibrated_model() -> None:
    rng = np.random.default_rng(5)
    probs = rng.dirichlet(np.ones(4), 300)
    values = []
    for _ in range(400):
        targets = (rng.random((300, 1)) > probs.cumsum(1)).sum(1)
        values.append(ece(reliability(probs, targets)))
    assert noise_floor(probs) == pytest.approx(np.mean(values), rel=0.05)
    assert noise_floor(np.tile(probs, (9, 1))) < 0.5 * noise_floor(probs)


def test_selective_accuracy_keeps_the_most_confident() -> None:
    assert selective_accuracy(PROBS, TARGETS, (1.0, 0.5)) == {1.0: 0.5, 0.5: 1.0}
    result = measured(PROBS, TARGETS, LABELS)
    assert list(result.selective_accuracy) == ["90%", "80%", "70%", "50%"]


@pytest.mark.parametrize("bad", [[np.nan, 0.5, 0.5], [0.5, 0.5, 0.5], [-0.1, 0.6, 0.5]])
def test_what_is_no_probability_is_refused_with_its_place(bad: list[float]) -> None:
    probs = PROBS.copy()
    probs[4] = bad
    with pytest.raises(ModelError, match=r"1 of 6 images \(first: row 4\)"):
        measured(probs, TARGETS, LABELS)


def test_no_images() -> None:
    with pytest.raises(DatasetError, match="no images"):
        measured(PROBS[:0], TARGETS[:0], LABELS)


def test_the_commonest_mistakes() -> None:
    confusion = np.array([[5, 3, 0], [1, 9, 0], [4, 0, 0]])
    assert most_confused(confusion, ["a", "b", "c"], 2) == [("c", "a", 4, 1.0), ("a", "b", 3, 3 / 8)]
    assert most_confused(np.eye(3, dtype=int), ["a", "b", "c"]) == []
