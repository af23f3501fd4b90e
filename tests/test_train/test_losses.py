"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.losses import class_weights, distillation, make_loss, soft_labels, softened

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
TARGETS = torch.eye(3)[:2]
EQUAL = torch.tensor([10, 10, 10])


def test_cross_entropy_is_the_libraries_own_for_hard_targets() -> None:
    wanted = functional.cross_entropy(LOGITS, torch.tensor([0, 1]))
    assert float(make_loss(TrainConfig(), EQUAL)(LOGITS, TARGETS)) == pytest.approx(float(wanted))


def test_soft_targets_are_weighted_by_their_share() -> None:
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    wanted = functional.cross_entropy(LOGITS, soft)
    assert float(make_loss(TrainConfig(), EQUAL)(LOGITS, soft)) == pytest.approx(float(wanted))


def test_focal_loss_without_focus_is_cross_entropy_and_with_it_forgives_what_is_sure() -> None:
    plain = make_loss(TrainConfig(), EQUAL)
    assert float(make_loss(TrainConfig(loss="focal", focal_gamma=0), EQUAL)(LOGITS, TARGETS)) == pytest.approx(
        float(plain(LOGITS, TARGETS))
    )
    one = torch.tensor([[0.0, 0.0]])
    assert float(
        make_loss(TrainConfig(loss="focal", focal_gamma=2), torch.tensor([1, 1]))(one, torch.tensor([[1.0, 0.0]]))
    ) == pytest.approx(0.25 * math.log(2))


def test_logit_adjustment_at_equal_logits_asks_for_the_prior() -> None:
    loss = make_loss(TrainConfig(loss="logit_adjust"), torch.tensor([90, 10]))
    assert float(loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))) == pytest.approx(-math.log(0.1), rel=1e-5)


def test_class_weights_average_to_one_over_the_images() -> None:
    counts = torch.tensor([90, 10])
    assert class_weights("none", counts).tolist() == [1.0, 1.0]
    balanced = class_weights("balanced", counts)
    assert balanced.tolist() == pytest.approx([1 / 1.8, 5.0])
    root = class_weights("sqrt", counts)
    assert float(root[1] / root[0]) == pytest.approx(3.0)
    assert float((root * counts).sum() / 100) == pytest.approx(1.0)


def test_distillation_worked_out_by_hand() -> None:
    """Halved logits (0, ln 2) are shares of 1/3 and 2/3, against a half each: (ln(2/3) + 2 ln(4/3)) / 3, times four."""
    teacher, student = torch.tensor([[0.0, 2 * math.log(2)]]), torch.zeros(1, 2)
    expected = 4 * (math.log(2 / 3) + 2 * math.log(4 / 3)) / 3
    assert float(distillation(student, softened([teacher], 2.0), 2.0)) == pytest.approx(expected, rel=1e-5)


def test_distillation_is_nothing_from_an_equal_teacher_and_grows_with_the_distance() -> None:
    wanted = softened([LOGITS], 2.0)
    assert float(distillation(LOGITS, wanted, 2.0)) == pytest.approx(0.0, abs=1e-6)
    near, far = LOGITS + torch.tensor([0.1, 0, 0]), LOGITS + torch.tensor([2.0, 0, 0])
    assert 0 < float(distillation(near, wanted, 2.0)) < float(distillation(far, wanted, 2.0))


def test_teachers_say_together_the_geometric_mean_of_what_each_says() -> None:
    first, second = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.2, 0.8]])
    root = (first * second).sqrt()
    torch.testing.assert_close(softened([first.log() + 5, second.log()], 1.0), root / root.sum())


def test_logit_adjustment_weakens_with_its_power() -> None:
    loss = make_loss(TrainConfig(loss="logit_adjust", logit_tau=0.5), torch.tensor([90, 10]))
    wanted = -math.log(0.1**0.5 / (0.1**0.5 + 0.9**0.5))
    assert float(loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))) == pytest.approx(wanted, rel=1e-5)


def test_the_label_counts_as_votes_only_where_an_annotator_agrees() -> None:
    votes = [{"sad": 1, "neutral": 5}, {"neutral": 6}, {}]
    shares = soft_labels(votes, [1, 1, 1], ("neutral", "sad"), label_votes=2)
    assert shares[0].tolist() == pytest.approx([5 / 8, 3 / 8])
    assert shares[1].tolist() == [1, 0]
    assert shares[2].tolist() == [0, 1]
