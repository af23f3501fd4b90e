"""Intervals: exact where they can be, and against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.evaluate.intervals import (
    MIN_SUBJECTS,
    Units,
    clopper_pearson,
    cluster_ids,
    intervals,
    percentiles,
    resample,
    selective_rows,
)
from deepfer_yolo.evaluate.metrics import NOT_SHARES, Tally, headline, selective_accuracy, tally

CONFIG = ScoringConfig()


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    targets = rng.choice(4, 500, p=[0.5, 0.3, 0.15, 0.05])
    logits = rng.normal(size=(500, 4)) + 1.2 * np.eye(4)[targets]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), targets


def test_stratified_replicates_keep_the_class_counts_and_the_binomial_spread(
    scored: tuple[np.ndarray, np.ndarray],
) -> None:
    probs, targets = scored
    drawn = Tally(*resample(tally(probs, targets), Units(targets), 4000, 0))
    assert (drawn.labels == np.bincount(targets)).all()
    right = probs.argmax(1) == targets
    spread = np.sqrt(sum((targets == c).sum() * right[targets == c].var() for c in range(4))) / 500
    assert headline(drawn).top1.std() == pytest.approx(spread, rel=0.05)


def test_interval_of_top1_is_near_scipys_bootstrap(scored: tuple[np.ndarray, np.ndarray]) -> None:
    probs, targets = scored
    right = (probs.argmax(1) == targets).astype(float)
    other = stats.bootstrap(
        (right,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    ).confidence_interval
    # SciPy draws without strata, which is a little wider.
    assert intervals(probs, targets, CONFIG).top1 == pytest.approx([other.low, other.high], abs=0.012)


def test_surest_images_have_the_interval_of_what_they_are(scored: tuple[np.ndarray, np.ndarray]) -> None:
    probs, targets = scored
    found = intervals(probs, targets, ScoringConfig(replicates=4000)).selective_accuracy
    assert list(found) == ["90%", "80%", "70%", "50%"]
    half = np.argsort(-probs.max(1))[:250]
    k = int((probs.argmax(1) == targets)[half].sum())
    # Two ways to the interval of k right of 250; the threshold's own chance is small here.
    assert found["50%"] == pytest.approx(clopper_pearson(k, 250), abs=0.015)
    assert selective_rows(probs, targets).mean(0) == pytest.approx(list(selective_accuracy(probs, targets).values()))
    sure = np.where(targets[:, None] == np.arange(4), 0.97, 0.01)
    assert intervals(sure, targets, CONFIG).selective_accuracy["50%"] == pytest.approx([0.025 ** (1 / 250), 1])


def test_same_seed_same_interval(scored: tuple[np.ndarray, np.ndarray]) -> None:
    four, again, five = (intervals(*scored, ScoringConfig(replicates=200, seed=seed)) for seed in (4, 4, 5))
    assert four == again
    assert four != five


def test_images_of_one_person_widen_the_interval() -> None:
    # Ten subjects, each all right or all wrong: 200 images say as much as ten.
    subjects = np.repeat(np.arange(10), 20)
    right = subjects < 6
    targets = np.zeros(200, np.int64)
    probs = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    low, high = intervals(probs, targets, CONFIG, [str(s) for s in subjects]).top1
    single = intervals(probs, targets, CONFIG).top1
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 9) * np.sqrt(0.6 * 0.4 / 10), rel=0.15)
    assert high - low > 3 * (single[1] - single[0])


def test_the_surest_images_of_subjects_of_unequal_size_are_divided_by_their_own_number() -> None:
    """A resample of subjects has another size than the set: divided by the set's, 93 % right of 96 ended at 129 %."""
    random = np.random.default_rng(0)
    subjects = np.repeat(np.arange(12), [1, 1, 2, 2, 3, 4, 5, 8, 10, 15, 20, 25])
    targets = random.integers(0, 4, 96)
    logits = random.normal(size=(96, 4)) + 2.2 * np.eye(4)[targets]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = intervals(probs, targets, CONFIG, [str(subject) for subject in subjects])
    low, high = found.selective_accuracy["90%"]
    assert found.top1.low - 0.05 < low < 0.95
    assert high <= 1
    # Where all are right, each subject counts as one.
    sure = np.where(targets[:, None] == np.arange(4), 0.97, 0.01)
    one = intervals(sure, targets, CONFIG, [str(subject) for subject in subjects])
    assert one.top1 == one.selective_accuracy["90%"] == pytest.approx((0.025 ** (1 / 12), 1))


def test_of_few_subjects_nothing_is_claimed() -> None:
    targets = np.arange(40) % 2
    probs = np.where((np.arange(40) % 5 > 0)[:, None], np.eye(2)[targets], np.eye(2)[1 - targets]) * 0.8 + 0.1
    for count in range(1, MIN_SUBJECTS):
        subjects = [str(i % count) for i in range(40)]
        found = intervals(probs, targets, CONFIG, subjects)
        assert found.top1 == found.per_class[0].recall == found.selective_accuracy["50%"] == (0, 1)
        assert np.isnan(found.nll).all()
        assert list(found.of_card()) == ["top1", "macro_f1", "balanced_accuracy"]
        assert "too few" in Units.of(targets, subjects).method
    assert Units.of(targets, [str(i % MIN_SUBJECTS) for i in range(40)]).method == "over 6 subjects"


@pytest.mark.slow
def test_unequal_subjects_are_covered() -> None:
    """Persons who differ by far more than their images do, in sets where some have a hundred times as many."""
    random, hits = np.random.default_rng(0), np.zeros(2)
    skills = 1 / (1 + np.exp(-random.normal(0.9, 1, 400_000)))
    for seed in range(400):
        sizes = np.maximum(random.lognormal(3, 1, 14).astype(int), 1)
        subjects = np.repeat(np.arange(14), sizes)
        right = random.random(len(subjects)) < random.choice(skills, 14)[subjects]
        targets = random.integers(0, 3, len(subjects))
        sure = 0.5 + 0.4 * random.random(len(subjects))[:, None]
        answers = np.where(right, targets, (targets + 1) % 3)
        probs = np.where(answers[:, None] == np.arange(3), sure, (1 - sure) / 2)
        found = intervals(probs, targets, ScoringConfig(replicates=500, seed=seed), [str(one) for one in subjects])
        for i, (low, high) in enumerate((found.top1, found.selective_accuracy["50%"])):
            hits[i] += low <= skills.mean() <= high
    assert (hits / 400 >= 0.93).all(), hits
    assert (hits / 400 <= 0.98).all(), hits


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 9), st.integers(0, 20), st.floats(0, 6))
def test_no_share_leaves_zero_to_one(seed: int, n: int, n_classes: int, n_subjects: int, skill: float) -> None:
    random = np.random.default_rng(seed)
    targets = random.integers(0, n_classes, n)
    logits = random.normal(size=(n, n_classes)) * 2 + skill * np.eye(n_classes)[targets]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    subjects = [str(int(random.exponential(n_subjects))) if n_subjects else "" for _ in range(n)]
    found = intervals(probs, targets, ScoringConfig(replicates=100, seed=seed % 1000), subjects)
    shares = [span for name, span in found.by_name().items() if name not in NOT_SHARES]
    classes = [span for scores in found.per_class for span in (scores.precision, scores.recall, scores.f1)]
    known = [span for span in classes if not np.isnan(span).any()]
    assert len(known) == 3 * len(set(targets.tolist()))
    for low, high in [*shares, *found.selective_accuracy.values(), *known]:
        assert 0 <= low <= high <= 1
    values = headline(Tally(*(part.sum(0) for part in tally(probs, targets)))).by_name()
    assert all(-1e-12 <= value <= 1 + 1e-12 for name, value in values.items() if name not in NOT_SHARES)


def test_subjects() -> None:
    assert cluster_ids(["", ""]) is None
    ids = cluster_ids(["a", "", "a", ""])
    assert ids is not None
    assert ids[0] == ids[2]
    assert len(set(ids.tolist())) == 3


def test_all_right_still_has_an_interval() -> None:
    probs = np.tile([0.9, 0.1], (20, 1))
    found = intervals(probs, np.zeros(20, np.int64), CONFIG)
    assert found.top1 == pytest.approx((0.025 ** (1 / 20), 1))
    assert found.per_class[0].recall == pytest.approx((0.025 ** (1 / 20), 1))


def test_one_image_a_class_is_no_certainty() -> None:
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(7), 7)
    spans = intervals(probs, np.arange(7), CONFIG)
    right = float((probs.argmax(1) == np.arange(7)).mean())
    assert spans.top1.low <= right <= spans.top1.high
    assert spans.top1.high - spans.top1.low > 0.3
    assert spans.nll.high - spans.nll.low > 0.1
    # A lone class of one image joins the smallest of the others; larger classes are drawn as ever.
    strata = np.array([0] * 5 + [1] * 3 + [2])
    drawn = resample([(strata == 2).astype(float), (strata == 0).astype(float)], Units(strata), 500, 0)
    assert set(np.unique(drawn[0])) > {0.0}
    assert (drawn[1] == 5).all()


def test_no_share_has_an_interval_beyond_what_it_can_be() -> None:
    probs = np.array([[0.68, 0.32], [0.64, 0.36], [0.61, 0.39], [0.51, 0.49], [0.9, 0.1], [0.2, 0.8]])
    spans = intervals(probs, np.array([0, 0, 1, 0, 0, 1]), CONFIG)
    for low, high in (*spans.selective_accuracy.values(), spans.top1, spans.macro_f1):
        assert 0 <= low <= high <= 1


def test_clopper_pearson_worked_example() -> None:
    # 4 of 10: 12.16 % to 73.76 % (Clopper & Pearson's chart; Newcombe 1998 gives the same digits).
    assert clopper_pearson(4, 10) == pytest.approx((0.12155, 0.73762), abs=1e-5)


def test_percentiles_of_what_is_never_defined() -> None:
    assert np.isnan(percentiles(np.array([np.nan, np.nan]))).all()
    assert percentiles(np.array([1.0, np.nan, 3.0])) == pytest.approx((1.05, 2.95))


def test_memory_is_bounded_by_chunks(monkeypatch: pytest.MonkeyPatch, scored: tuple[np.ndarray, np.ndarray]) -> None:
    from deepfer_yolo.evaluate import intervals

    whole = resample(tally(*scored), Units(scored[1]), 30, 0)
    monkeypatch.setattr(intervals, "_CELLS", 1500)
    parts = resample(tally(*scored), Units(scored[1]), 30, 0)
    assert [part.shape for part in parts] == [part.shape for part in whole] == [(30, 4)] * 3 + [(30,)] * 5
