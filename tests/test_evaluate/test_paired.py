"""The paired comparison: exact tests against SciPy and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.dataset import Row
from deepfer_yolo.evaluate.intervals import Interval
from deepfer_yolo.evaluate.paired import compare_pair, decision_interval, holm, mcnemar, upper_bound
from deepfer_yolo.evaluate.predictions import Scores

LABELS = ("a", "b")


def scores(guesses: list[int], targets: list[int], subjects: list[str] | None = None) -> Scores:
    rows = tuple(
        Row(f"{i}.png", "test", LABELS[t], subject=(subjects or [""] * len(targets))[i]) for i, t in enumerate(targets)
    )
    return Scores(
        rows, LABELS, np.array(targets), np.where(np.array(guesses)[:, None] == [0, 1], 0.9, 0.1).astype(np.float32)
    )


def test_mcnemar_is_the_binomial_test() -> None:
    # Worked by hand: 8 against 2, two-sided: 2 * (1 + 10 + 45) / 1024.
    assert mcnemar(8, 2) == pytest.approx(2 * 56 / 1024)
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1


def test_holm_worked_example() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1, then the running maximum: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_upper_bound_is_one_sided() -> None:
    assert upper_bound(0, 60) == pytest.approx(1 - 0.05 ** (1 / 60))
    assert upper_bound(5, 50) == pytest.approx(stats.beta.ppf(0.95, 6, 45))


def test_decision_interval_worked_example() -> None:
    # 400 images, 30 won, 20 lost: d = 2.5 points; discordance 12.5 %, upper bound by the beta distribution.
    found = decision_interval(30, 20, 400, Interval(0.01, 0.04))
    upper = stats.beta.ppf(0.95, 51, 350)
    half = 1.959964 * np.sqrt((upper - 0.025**2) / 400)
    assert found.d == pytest.approx(0.025)
    assert found.d_interval == pytest.approx((0.025 - half, 0.025 + half))
    assert found.resolution == pytest.approx(half)
    # The bootstrap decides where it is wider.
    assert decision_interval(30, 20, 400, Interval(-0.5, 0.5)).d_interval == (-0.5, 0.5)


def test_identical_models_have_an_interval_that_grows_as_the_set_shrinks() -> None:
    large, small = (decision_interval(0, 0, n, Interval(0, 0)) for n in (3589, 50))
    assert large.discordance_upper == 0.02
    assert large.resolution == pytest.approx(1.959964 * np.sqrt(0.02 / 3589))
    assert small.resolution > 0.05


def test_differences_are_challenger_minus_champion() -> None:
    targets = [0] * 10 + [1] * 10
    challenger = scores([0] * 9 + [1] + [1] * 10, targets)
    champion = scores([0] * 10 + [1] * 6 + [0] * 4, targets)
    pair = compare_pair(challenger, champion, ScoringConfig(replicates=300))
    assert (pair.wins, pair.losses, pair.n) == (4, 1, 20)
    assert pair.decision.d == pytest.approx(0.15)
    assert pair.difference("balanced_accuracy").difference == pytest.approx(0.15)
    assert pair.difference("nll").difference < 0
    assert pair.mcnemar_p == pytest.approx(2 * 6 / 32)
    a, b = pair.classes
    assert (a.label, a.difference, a.wins, a.losses) == ("a", pytest.approx(-0.1), 0, 1)
    assert (b.difference, b.wins, b.losses) == (pytest.approx(0.4), 4, 0)
    assert b.p == pytest.approx(2 / 16)
    assert b.p_holm == pytest.approx(4 / 16)


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 600).tolist()
    champion = [t if rng.random() < 0.7 else 1 - t for t in targets]
    challenger = [t if i < 6 else g for i, (t, g) in enumerate(zip(targets, champion, strict=True))]
    pair = compare_pair(scores(challenger, targets), scores(champion, targets), ScoringConfig(replicates=500))
    low, high = pair.difference("balanced_accuracy").interval
    assert high - low < 0.02, "unpaired it would be about 0.10"


def test_subjects_widen_the_difference() -> None:
    targets = [0] * 100 + [1] * 100
    better = [t if i % 10 < 7 else 1 - t for i, t in enumerate(targets)]
    worse = [t if i % 10 < 4 else 1 - t for i, t in enumerate(targets)]
    subjects = [str(i % 10) for i in range(200)]
    config = ScoringConfig(replicates=400)
    alone = compare_pair(scores(better, targets), scores(worse, targets), config)
    grouped = compare_pair(scores(better, targets, subjects), scores(worse, targets, subjects), config)
    assert np.diff(grouped.decision.d_interval)[0] > 2 * np.diff(alone.decision.d_interval)[0]


def test_other_images_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same images"):
        compare_pair(scores([0, 1], [0, 1]), scores([0], [0]), ScoringConfig())
