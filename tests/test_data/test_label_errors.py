"""Which labels are likely wrong, by answers of a model that had not seen the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray

from deepfer_yolo.data.audit.inspection import inspect
from deepfer_yolo.data.audit.label_errors import Predictions, likely_errors, rank
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError


def drawn(
    noise: NDArray[np.float64], n: int = 6000, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The truth of `n` images, the labels they were given by `noise` (true, given), and a model's answers."""
    random = np.random.default_rng(seed)
    classes = len(noise)
    truth = random.integers(0, classes, n)
    given = np.array([random.choice(classes, p=noise[label]) for label in truth])
    logits = 1.5 * (random.normal(size=(n, classes)) + 2 * np.eye(classes)[truth])
    powers = np.exp(logits)
    return truth, given, powers / powers.sum(1, keepdims=True)


def found(order: NDArray[np.int64], wrong: NDArray[np.bool_], share: float) -> float:
    return float(wrong[order[: round(share * len(order))]].mean())


def test_a_label_that_others_are_mistaken_for_comes_first() -> None:
    noise = np.eye(5)
    noise[0] = [0.6, 0.4, 0, 0, 0]  # many images of the first label bear the second
    truth, given, probs = drawn(noise)
    wrong = truth != given
    ranking = rank(given, probs)
    cleanlab = np.argsort(get_label_quality_scores(given, probs), kind="stable")
    assert found(ranking.order, wrong, 0.05) > 1.1 * found(cleanlab, wrong, 0.05)
    assert (given[ranking.order[:300]] == 1).mean() > 0.9


def test_where_mistakes_have_no_pattern_the_answer_alone_decides() -> None:
    truth, given, probs = drawn(np.full((5, 5), 0.05) + 0.75 * np.eye(5))
    wrong = truth != given
    cleanlab = np.argsort(get_label_quality_scores(given, probs), kind="stable")
    assert found(rank(given, probs).order, wrong, 0.05) > 0.98 * found(cleanlab, wrong, 0.05)


def test_a_single_mistake_among_thousands_is_not_called_impossible() -> None:
    truth, given, probs = drawn(np.eye(3))
    place = int(np.flatnonzero((truth == 0) & (probs[:, 0] > 0.99))[0])
    given[place] = 2
    ranking = rank(given, probs)
    assert ranking.order[0] == place
    assert ranking.right[place] < 0.5


def test_the_rule_by_hand() -> None:
    # Two labels, answers of 0.9: of six images labelled 0 two are 1, of four labelled 1 none is 0.
    probs = np.array([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 6)
    given = np.array([0] * 6 + [1] * 4)
    ranking = rank(given, probs)
    # p(given 0 | true 1) = 2 of 6; p(given 0 | true 0) = 1.
    assert ranking.right[4] == pytest.approx(0.1 / (0.1 + 0.9 * 2 / 6))
    assert ranking.right[0] == pytest.approx(0.9 / (0.9 + 0.1 * 2 / 6))
    # p(given 1 | true 0) is 0 of 4: a hundredth is believed.
    assert ranking.right[9] == pytest.approx(0.9 * 4 / 6 / (0.9 * 4 / 6 + 0.1 * 0.01))
    assert ranking.order[:2].tolist() == [4, 5]
    assert ranking.n_wrong == 2


def test_answers_may_spell_the_labels_otherwise(painted_csv: Path) -> None:
    images = inspect(painted_csv).images
    stock = ("Surprised", "Sadness", "Neutral", "Happiness", "Fear", "Disgust", "Anger")
    meant = dict(zip(stock, EMOTIONS[::-1], strict=True))
    sure = {label: np.float32([0.94 if meant[name] == label else 0.01 for name in stock]) for label in EMOTIONS}
    said = {image.key: sure[image.label] for image in images}
    assert likely_errors(images, Predictions(stock, said)) == []
    assert images[0].label != "sad"
    (finding,) = likely_errors(images, Predictions(stock, said | {images[0].key: sure["sad"]}))
    assert finding.groups == ((images[0].key,),)
    assert finding.notes[0].startswith("the model: Sadness 0.94, its label 0.01, right with 0.")


def test_answers_of_other_labels_or_too_few_are_refused(painted_csv: Path) -> None:
    images = inspect(painted_csv).images
    with pytest.raises(DatasetError, match="does not know the labels angry"):
        likely_errors(images, Predictions(("happy", "sad"), {}))
    some = {image.key: np.full(7, 1 / 7, np.float32) for image in images[3:]}
    with pytest.raises(DatasetError, match=f"3 of {len(images)} images have no answer, such as '{images[0].key}'"):
        likely_errors(images, Predictions(EMOTIONS, some))
