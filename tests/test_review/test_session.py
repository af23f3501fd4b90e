"""The state of a review: leases, decisions, undo, repeats, filters, second opinions; by a clock that tests turn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from deepfer_yolo.data.corrections import CorrectionsWriter, read_corrections
from deepfer_yolo.data.dataset import Row
from deepfer_yolo.data.decisions import Decision, decision_of, fault_of, shown_by
from deepfer_yolo.review.queue import CONFLICT, Entry
from deepfer_yolo.review.session import AHEAD, GAP, Filter, Review
from deepfer_yolo.serve.schemas import ProblemError
from deepfer_yolo.servers import ReviewConfig

LABELS = ("fear", "happy", "sad")


class Clock:
    """Seconds that only a test lets pass."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def entry(
    number: int, label: str = "sad", kind: str = "label-errors", why: tuple[str, ...] = ("label-error",)
) -> Entry:
    row = Row(f"train/{label}/{number}.png", "train", label, sha256=sha256(str(number).encode()).hexdigest())
    return Entry(row, (kind,), why, {"fear": 0.9, "happy": 0.1, "sad": 0.0}, {}, ())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Review]]:
    """A function that starts a review of `n` images, or of `entries`, on the same file."""
    writers: list[CorrectionsWriter] = []

    def begin(n: int = 40, entries: list[Entry] | None = None, **settings: object) -> Review:
        for writer in writers:
            writer.close()
        writers.append(CorrectionsWriter(tmp_path / "c.csv"))
        config = ReviewConfig.model_validate({"repeat": 0, **settings})
        found = entries if entries is not None else [entry(number) for number in range(n)]
        return Review(found, [str(place) for place in range(len(found))], LABELS, writers[-1], config, clock)

    yield begin
    for writer in writers:
        writer.close()


def refused(call: Callable[[], object]) -> int:
    with pytest.raises(ProblemError) as problem:
        call()
    return problem.value.status


def test_a_decision_is_on_the_disk_and_the_next_image_comes(start: Callable[..., Review], tmp_path: Path) -> None:
    review = start()
    assert review.next("one", "Ada") == list(range(AHEAD))
    review.decide("one", "Ada", "0", "fear", 0.7)
    (written,) = read_corrections(tmp_path / "c.csv").decisions
    assert (written.path, written.old_label, written.new_label, written.reviewer) == (
        "train/sad/0.png", "sad", "fear", "Ada",
    )  # fmt: skip
    assert (written.why, written.how, written.seconds) == ("label-error", ("model",), 0.7)
    assert review.next("one", "Ada") == list(range(1, AHEAD + 1))
    assert review.progress("one", "Ada") == {"total": 40, "done": 1, "left": 39, "here": 1}


def test_two_browsers_never_hold_or_decide_the_same_image(start: Callable[..., Review]) -> None:
    review = start()
    one, two = list(review.next("one", "Ada")), list(review.next("two", "Bob"))
    assert not set(one) & set(two)
    assert refused(lambda: review.decide("two", "Bob", str(one[0]), "fear")) == 409
    review.decide("one", "Ada", str(one[0]), "fear")
    assert refused(lambda: review.decide("two", "Bob", str(one[0]), "happy")) == 409
    decided: Counter[str] = Counter()
    turns = random.Random(3)
    while True:
        session, who = turns.choice([("one", "Ada"), ("two", "Bob"), ("three", "")])
        ahead = review.next(session, who)
        if not ahead:
            if review.progress(session, who)["left"] == 0:
                break
            continue
        decided[review.decide(session, who, str(turns.choice(ahead)), "happy").path] += 1
    assert set(decided.values()) == {1}
    assert len(decided) == 39


def test_a_silent_browser_gives_its_images_back_in_their_order(start: Callable[..., Review], clock: Clock) -> None:
    review = start(AHEAD + 2, lease_s=60)
    held = list(review.next("one", "Ada"))
    assert review.next("two", "Bob") == [AHEAD, AHEAD + 1]
    clock.at_s = 61
    assert review.next("two", "Bob")[:2] == [AHEAD, AHEAD + 1]
    assert sorted(review.next("two", "Bob")) == sorted([AHEAD, AHEAD + 1, *held[: AHEAD - 2]])
    assert review.next("one", "Ada") == held[AHEAD - 2 :]
    # What it had on screen while it was silent, and nobody else has taken, it may still decide.
    review.decide("one", "Ada", str(held[-1]), "fear")
    assert refused(lambda: review.decide("one", "Ada", str(held[0]), "fear")) == 409


def test_a_browser_that_closes_gives_its_images_back_at_once_and_may_come_again(start: Callable[..., Review]) -> None:
    review = start(4)
    assert review.next("one", "Ada") == [0, 1, 2, 3]
    review.decide("one", "Ada", "0", "fear")
    assert review.next("two", "Bob") == []
    review.release("one")
    review.release("nobody")
    assert review.next("two", "Bob") == [1, 2, 3]
    assert review.undo("one", "Ada") == 0


def test_undo_brings_the_image_back_and_is_a_line_of_its_own(start: Callable[..., Review], tmp_path: Path) -> None:
    review = start()
    review.next("one", "Ada")
    for name, answer in (("0", "fear"), ("1", "leave-out")):
        review.decide("one", "Ada", name, answer)
        review.next("one", "Ada")
    assert review.undo("one", "Ada") == 1
    assert review.next("one", "Ada")[:2] == [1, 2]
    review.decide("one", "Ada", "1", "sad")
    assert review.undo("one", "Ada") == 1
    assert review.undo("one", "Ada") == 0
    assert refused(lambda: review.undo("one", "Ada")) == 409
    read = read_corrections(tmp_path / "c.csv")
    assert [decision.new_label for decision in read.decisions] == [
        "fear", "leave-out", "undo", "sad", "undo", "undo",
    ]  # fmt: skip
    assert read.settled() == ()
    assert review.progress("one", "Ada")["done"] == 0


def test_an_answer_whose_reply_was_lost_is_written_once(start: Callable[..., Review], tmp_path: Path) -> None:
    review = start()
    review.next("one", "Ada")
    first = review.decide("one", "Ada", "0", "fear")
    assert review.decide("one", "Ada", "0", "fear") is first
    assert refused(lambda: review.decide("one", "Ada", "0", "happy")) == 409
    assert len(read_corrections(tmp_path / "c.csv").decisions) == 1


def test_what_was_decided_before_a_restart_does_not_come_again(start: Callable[..., Review]) -> None:
    review = start()
    review.next("one", "Ada")
    for name in ("0", "1", "2"):
        review.decide("one", "Ada", name, "unsure")
    review.undo("one", "Ada")
    again = start()
    assert again.next("one", "Bob")[:2] == [2, 3]
    assert again.progress("one", "Bob") == {"total": 40, "done": 2, "left": 38, "here": 0}


def test_a_second_opinion_sees_all_and_settles_by_the_majority(start: Callable[..., Review], tmp_path: Path) -> None:
    review = start(3)
    review.next("one", "Ada")
    for name in ("0", "1", "2"):
        review.decide("one", "Ada", name, "fear")
    assert start(3).next("two", "Bob") == []
    again = start(3, second=True)
    assert again.next("one", "Ada") == []
    assert again.next("two", "Bob") == [0, 1, 2]
    assert again.next("three", "Cyd") == [0, 1, 2]
    again.decide("two", "Bob", "0", "happy")
    again.decide("two", "Bob", "1", "fear")
    read = read_corrections(tmp_path / "c.csv")
    assert [conflict.path for conflict in read.conflicts()] == ["train/sad/0.png"]
    assert [pair.n for pair in read.kappa()] == [2]
    # Where reviewers disagree the image comes up for anybody.
    third = start(entries=[entry(0, kind="conflicts", why=(CONFLICT,)), entry(1)])
    assert third.next("three", "Cyd") == [0]
    third.decide("three", "Cyd", "0", "happy")
    assert read_corrections(tmp_path / "c.csv").conflicts() == ()


def test_a_share_is_shown_twice_to_the_same_reviewer_after_others(start: Callable[..., Review], tmp_path: Path) -> None:
    review = start(200, repeat=0.1)
    order: list[str] = []
    while ahead := review.next("one", "Ada"):
        order.append(review.decide("one", "Ada", str(ahead[0]), LABELS[len(order) % 3]).path)
    counts = Counter(order)
    twice = [path for path, n in counts.items() if n == 2]
    assert len(counts) == 200
    assert max(counts.values()) == 2
    assert 10 <= len(twice) <= 32
    gaps = [len(order) - order[::-1].index(path) - 1 - order.index(path) for path in twice]
    assert min(gap for path, gap in zip(twice, gaps, strict=True) if order.index(path) < 150) > GAP
    read = read_corrections(tmp_path / "c.csv")
    assert sum(decision.is_repeat for decision in read.decisions) == len(twice)
    (ada,) = read.consistency()
    assert ada.n == len(twice)
    # After a restart the same images are marked, and those that were repeated are not again.
    assert start(200, repeat=0.1).next("one", "Ada") == []
    assert start(200, repeat=0.1).next("two", "Bob") == []


def test_repeats_go_on_after_a_restart_and_can_be_undone(start: Callable[..., Review], tmp_path: Path) -> None:
    review = start(30, repeat=1)
    for _ in range(5):
        review.decide("one", "Ada", str(review.next("one", "Ada")[0]), "fear")
    again = start(30, repeat=1)
    n = 0
    while ahead := again.next("one", "Ada"):
        again.decide("one", "Ada", str(ahead[0]), "fear")
        n += 1
    assert n == 55
    place = again.undo("one", "Ada")
    assert read_corrections(tmp_path / "c.csv").decisions[-1].how == ("model", "repeat")
    assert again.next("one", "Ada") == [place]
    again.decide("one", "Ada", str(place), "happy")
    read = read_corrections(tmp_path / "c.csv")
    assert (read.consistency()[0].n, read.consistency()[0].same) == (30, 29)
    assert {decision.new_label for decision in read.settled()} == {"fear"}


def test_filters_change_what_a_browser_holds(start: Callable[..., Review]) -> None:
    kinds = ["label-errors", "duplicates"]
    review = start(entries=[entry(n, LABELS[n % 3], kinds[n % 2]) for n in range(60)])
    assert review.next("one", "Ada")[:3] == [0, 1, 2]
    assert review.next("one", "Ada", Filter(label="fear"))[:3] == [0, 3, 6]
    assert review.next("one", "Ada", Filter(label="fear", kind="duplicates"))[:3] == [3, 9, 15]
    assert review.next("one", "Ada", Filter(split="val")) == []
    assert review.next("two", "Bob")[:3] == [0, 1, 2]


def test_a_decision_that_cannot_be_written_is_told_and_can_be_made_again(
    start: Callable[..., Review], tmp_path: Path
) -> None:
    review, file = start(), tmp_path / "c.csv"
    (first, *_) = review.next("one", "Ada")
    review.decide("one", "Ada", str(first), "fear")
    kept = file.read_bytes()
    file.rename(tmp_path / "moved.csv")
    (second, *_) = review.next("one", "Ada")
    for call in (lambda: review.decide("one", "Ada", str(second), "sad"), lambda: review.undo("one", "Ada")):
        assert refused(call) == 507
    assert review.next("one", "Ada")[0] == second
    assert (tmp_path / "moved.csv").read_bytes() == kept
    (tmp_path / "moved.csv").rename(file)
    review.decide("one", "Ada", str(second), "sad")
    assert [one.new_label for one in read_corrections(file).decisions] == ["fear", "sad"]


def test_answers_that_are_none_are_refused(start: Callable[..., Review]) -> None:
    review = start()
    review.next("one", "Ada")
    assert refused(lambda: review.decide("one", "Ada", "0", "bored")) == 422
    assert refused(lambda: review.decide("one", "Ada", "0", "undo")) == 422
    assert refused(lambda: review.decide("one", "Ada", "1000", "fear")) == 404


def test_blind_decisions_say_so(start: Callable[..., Review]) -> None:
    review = start(blind=True)
    review.next("one", "Ada")
    assert review.decide("one", "Ada", "0", "fear").how == ("blind",)


def test_many_browsers_are_too_many(start: Callable[..., Review]) -> None:
    review = start(2000)
    for number in range(64):
        review.next(f"browser-{number}", "Ada")
    assert refused(lambda: review.next("one-more", "Ada")) == 429


@pytest.mark.parametrize(
    ("model", "words"),
    [("deepfer-n", ("model", "by:deepfer-n")), ("", ("model",)), ("my net, v2\n=1", ("model", "by:my-net-v2-1"))],
)
def test_the_line_names_the_model_whose_answer_was_shown(model: str, words: tuple[str, ...]) -> None:
    assert shown_by(model) == words
    cells = Decision("a.png", "0" * 64, "train", "sad", "fear", how=words, time="2026-11-28T02:10:16Z").cells()
    assert fault_of(cells) == ""
    assert decision_of(cells).models == [word.removeprefix("by:") for word in words[1:]]
