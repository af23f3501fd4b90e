"""Groups, votes and what is left without copies, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deepfer_yolo.data.dataset import Row
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.evaluate.intervals import clopper_pearson
from deepfer_yolo.evaluate.predictions import Scores
from deepfer_yolo.evaluate.subsets import by_column, vote_scores, without

LABELS = ("happy", "sad")


def scores(votes: list[str]) -> Scores:
    # Labels happy happy sad sad, answers happy sad sad happy.
    rows = tuple(
        Row(f"{i}.png", "test", LABELS[i // 2], subject="one" if i < 3 else "two", votes=v) for i, v in enumerate(votes)
    )
    return Scores(
        rows, LABELS, np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]], np.float32)
    )


def test_groups() -> None:
    one, two = by_column(scores([""] * 4), "subject")
    assert (one.value, one.n, one.top1) == ("one", 3, pytest.approx(2 / 3))
    assert one.interval == pytest.approx(clopper_pearson(2, 3))
    assert (two.value, two.n, two.top1) == ("two", 1, 0)


def test_unknown_column_and_too_many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no column 'subjekt' \(did you mean 'subject'"):
        by_column(scores([""] * 4), "subjekt")
    monkeypatch.setattr("deepfer_yolo.evaluate.subsets.MAX_GROUPS", 3)
    with pytest.raises(ConfigError, match="4 different values"):
        by_column(scores([""] * 4), "path")


def test_votes_worked_example() -> None:
    # Clear majorities: sad (answer happy), none (tie), sad (answer sad); the fourth has votes for unknown labels alone.
    found = vote_scores(scores(["sad:9 happy:1", "happy:5 sad:5", "sad:6 happy:2 contempt:2", "contempt:10"]))
    assert found is not None
    assert (found.n, found.n_clear) == (3, 2)
    assert found.majority_top1 == pytest.approx(1 / 2)
    # Exact for 1 of 2: 1 - sqrt(0.975) and its mirror image.
    assert found.majority_interval == pytest.approx((0.012579, 0.987421), abs=1e-6)
    assert found.vote_share == pytest.approx((0.1 + 0.5 + 0.75) / 3)
    assert found.label_majority_top1 == pytest.approx(1 / 2)
    assert found.label_vote_share == pytest.approx((0.1 + 0.5 + 0.75) / 3)
    logs = np.log([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    assert found.cross_entropy == pytest.approx(
        -(np.array([[0.1, 0.9], [0.5, 0.5], [0.25, 0.75]]) * logs).sum(1).mean(), rel=1e-6
    )
    assert vote_scores(scores([""] * 4)) is None


def test_a_winner_among_the_labels_must_beat_every_other_answer() -> None:
    found = vote_scores(scores(["unknown:5 sad:4", "contempt:4 sad:4", "sad:5 unknown:4", "happy:1"]))
    assert found is not None
    assert (found.n, found.n_clear) == (4, 2)


def test_broken_votes_are_quoted() -> None:
    with pytest.raises(DatasetError, match="not 'happy=8'"):
        vote_scores(scores(["happy=8"] * 4))


def test_without_leaves_order_and_refuses_nothing() -> None:
    rest = without(scores([""] * 4), {"1.png"})
    assert rest.paths == ["0.png", "2.png", "3.png"]
    assert rest.targets.tolist() == [0, 1, 1]
    assert rest.probs[1].tolist() == pytest.approx([0.4, 0.6])
    with pytest.raises(DatasetError, match="nothing is left"):
        without(rest, set(rest.paths))
