"""Smoothing in seconds: the same story at every frame rate, and few flips."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.faces.smooth import UNCERTAIN, Smoother, frame_weight
from deepfer_yolo.records import Event, Face, Quality, Track

CONFIG = StreamConfig()


def probs_of(label: str, sure: float = 0.7) -> np.ndarray:
    probs = np.full(len(EMOTIONS), (1 - sure) / (len(EMOTIONS) - 1), np.float32)
    probs[EMOTIONS.index(label)] = sure
    return probs


def noisy(label: str, random: np.random.RandomState) -> np.ndarray:
    """Probabilities whose best label is right in two of three frames."""
    said = label if random.rand() < 0.67 else EMOTIONS[random.randint(len(EMOTIONS))]
    return probs_of(said, random.uniform(0.35, 0.85))


def story(fps: float, config: StreamConfig = CONFIG) -> list[Event]:
    """Happy for 3 s, sad for 3 s, surprise for 3 s."""
    smoother = Smoother(1, EMOTIONS, config)
    events = []
    for step in range(int(9 * fps)):
        t = step / fps
        _, event = smoother.add(probs_of(("happy", "sad", "surprise")[min(2, int(t // 3))]), 1.0, t)
        events += [event] if event else []
    last = smoother.end()
    return [*events, last] if last else events


@pytest.mark.parametrize("config", [CONFIG, StreamConfig(smooth_s=1.2, hold_s=0.4)])
def test_events_are_the_same_at_5_10_and_30_fps(config: StreamConfig) -> None:
    told = {fps: story(fps, config) for fps in (5, 10, 30)}
    for events in told.values():
        assert [event.label for event in events] == ["happy", "sad", "surprise"]
        for one, reference in zip(events, told[30], strict=True):
            assert one.start_s == pytest.approx(reference.start_s, abs=config.smooth_s / 2)
            assert one.end_s == pytest.approx(reference.end_s, abs=config.smooth_s / 2)


@pytest.mark.parametrize("fps", [5, 10, 25, 30, 60])
@pytest.mark.parametrize("config", [CONFIG, StreamConfig(smooth_s=1.2, hold_s=0.4), StreamConfig(min_confidence=0.0)])
def test_a_change_is_dated_by_the_raw_answers_and_decided_later(config: StreamConfig, fps: float) -> None:
    happy, sad, surprise = story(fps, config)
    assert (happy.start_s, happy.decided_s) == (0.0, 0.0)
    for before, after, truth_s in ((happy, sad, 3.0), (sad, surprise, 6.0)):
        assert before.end_s == after.start_s == pytest.approx(truth_s, abs=1e-6)
        late_s = after.decided_s - after.start_s
        assert config.hold_s <= late_s <= 2 * config.smooth_s + config.hold_s + 2 / fps


def test_changes_among_noisy_answers_are_dated_within_a_tenth_of_a_second() -> None:
    """Of sixty changes, by answers of which one in three is wrong."""
    errors = []
    for seed in range(20):
        random, smoother, events = np.random.RandomState(seed), Smoother(1, EMOTIONS, CONFIG), []
        for step in range(25 * 12):
            truth = ("happy", "sad", "surprise", "neutral")[step // 75]
            _, event = smoother.add(confident(truth, random), 1.0, step / 25)
            events += [event] if event else []
        events += [event for event in [smoother.end()] if event]
        for change, label in enumerate(("sad", "surprise", "neutral"), 1):
            started = [event.start_s for event in events if event.label == label]
            errors.append(min((abs(start_s - 3 * change) for start_s in started), default=np.inf))
    assert np.median(errors) <= 0.1
    assert np.isfinite(errors).all()


def confident(label: str, random: np.random.RandomState) -> np.ndarray:
    """What a model of 67 % accuracy says of frames."""
    return probs_of(label if random.rand() < 0.67 else EMOTIONS[random.randint(7)], random.uniform(0.5, 0.95))


def test_what_the_answers_never_carried_is_no_event() -> None:
    """The average passes below the least confidence on its way from one label to another: that is no expression."""
    smoother, events = Smoother(1, EMOTIONS, StreamConfig(min_confidence=0.6)), []
    for step in range(200):
        _, event = smoother.add(probs_of("angry" if step == 0 else "happy" if step < 100 else "sad"), 1.0, step / 25)
        events += [event] if event else []
    last = smoother.end()
    assert [(event.label, event.start_s) for event in [*events, *([last] if last else [])]] == [
        ("happy", pytest.approx(0.04)),
        ("sad", pytest.approx(4.0)),
    ]


def test_a_face_that_goes_dark_ended_its_expression_there() -> None:
    smoother, ended = Smoother(1, EMOTIONS, CONFIG), None
    for step in range(150):
        _, event = smoother.add(probs_of("happy", 0.9), 0.8 if step < 50 else 0.0, step / 25)
        ended = ended or event
    assert ended is not None
    assert (ended.label, ended.start_s, ended.end_s) == ("happy", 0.0, pytest.approx(2.0))


def flips(labels: list[str]) -> int:
    return sum(a != b for a, b in itertools.pairwise(labels))


def noisy_minute(
    config: StreamConfig, fps: int, seed: int
) -> tuple[list[str], list[str], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Raw and steady labels of a minute in which the truth changes five times, and for each frame: is the steady label
    right, is it uncertain, and is the last change further back than the time constant and the hold together twice over.
    """
    random = np.random.RandomState(seed)
    smoother = Smoother(1, EMOTIONS, config)
    raw, steady, truth, settled = [], [], [], []
    for step in range(fps * 60):
        t = step / fps
        truth.append(("neutral", "happy", "sad")[int(t // 10) % 3])
        probs = noisy(truth[-1], random)
        raw.append(EMOTIONS[int(probs.argmax())])
        smoother.add(probs, 1.0, t)
        steady.append(smoother.label)
        settled.append(t % 10 > 2 * (config.smooth_s + config.hold_s))
    said = np.array(steady)
    return raw, steady, said == np.array(truth), said == UNCERTAIN, np.array(settled)


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_minute_at_the_default_config(seed: int) -> None:
    """The frames' mean confidence in the truth, 0.45, lies just above the least one, 0.4, so some of the time nothing
    can be said.
    """
    raw, steady, right, uncertain, settled = noisy_minute(CONFIG, 30, seed)
    assert flips(raw) > 800
    assert flips(steady) <= flips(raw) / 50
    assert right.mean() > 0.8
    assert (~right & ~uncertain).mean() < 0.08, "a change is noticed late, and that is all that is wrong"
    assert (~right & ~uncertain)[settled].mean() < 0.01


@pytest.mark.parametrize(("fps", "share"), [(5, 0.93), (10, 0.98), (30, 0.99)])
def test_without_a_least_confidence_all_is_right_once_a_change_was_noticed(fps: int, share: float) -> None:
    for seed in range(5):
        raw, steady, right, uncertain, settled = noisy_minute(StreamConfig(min_confidence=0.0), fps, seed)
        assert not uncertain.any()
        assert flips(steady) <= 8, "five changes of the truth, and hardly more"
        assert flips(raw) > 5 * flips(steady)
        assert right[settled].mean() >= share


def test_a_held_label_does_not_flicker_around_the_least_confidence() -> None:
    smoother = Smoother(1, EMOTIONS, StreamConfig(smooth_s=0.05, hold_s=0.0, min_confidence=0.5, margin=0.1))
    said = []
    for step in range(100):
        smoother.add(probs_of("happy", 0.6 if step < 20 else 0.45 if step % 2 else 0.52), 1.0, step / 10)
        said.append(smoother.label)
    assert set(said) == {"happy"}
    for step in range(100, 120):
        smoother.add(probs_of("happy", 0.35), 1.0, step / 10)
    assert smoother.label == UNCERTAIN


def test_a_flash_shorter_than_the_hold_changes_nothing() -> None:
    smoother = Smoother(1, EMOTIONS, StreamConfig(smooth_s=0.05, hold_s=0.5))
    events = [
        smoother.add(probs_of("sad" if 1.0 <= step / 25 < 1.3 else "happy"), 1.0, step / 25)[1] for step in range(75)
    ]
    assert events == [None] * 75
    assert smoother.label == "happy"


def test_below_the_threshold_a_label_is_uncertain_and_gives_no_event() -> None:
    smoother = Smoother(1, EMOTIONS, StreamConfig(min_confidence=0.5))
    for step in range(50):
        smoother.add(probs_of("happy", 0.3), 1.0, step / 25)
    assert smoother.label == UNCERTAIN
    assert smoother.end() is None


def test_an_event_tells_the_confidence_in_its_own_label() -> None:
    smoother = Smoother(1, EMOTIONS, StreamConfig(smooth_s=0.01, hold_s=5.0))
    for step in range(40):
        smoothed, _ = smoother.add(probs_of("happy", 0.9) if step < 20 else probs_of("sad", 0.8), 1.0, step / 10)
    track = Track(1, Face(np.array([0, 0, 9, 9], np.float32), 1.0), smoothed, smoothed, 4.0, smoother.label)
    assert (smoother.label, smoothed.label) == ("happy", "sad")
    assert track.confidence == pytest.approx(0.2 / 6, abs=1e-3)
    event = smoother.end()
    assert event is not None
    assert event.mean_confidence == pytest.approx((0.9 + 0.2 / 6) / 2, abs=1e-3)


def test_frames_of_little_weight_say_little() -> None:
    smoother = Smoother(1, EMOTIONS, CONFIG)
    for step in range(25):
        smoothed, _ = (
            smoother.add(probs_of("sad"), 0.05, step / 25)
            if step % 2
            else smoother.add(probs_of("happy"), 1.0, step / 25)
        )
    assert smoothed.label == "happy"
    assert smoothed.probs[EMOTIONS.index("sad")] < 0.15


def test_the_average_is_the_hand_computed_one() -> None:
    smoother = Smoother(1, EMOTIONS, StreamConfig(smooth_s=1.0))
    smoother.add(probs_of("happy", 0.9), 1.0, 0.0)
    smoothed, _ = smoother.add(probs_of("sad", 0.9), 0.5, 1.0)
    first, keep = 1 - np.exp(-0.04), np.exp(-1.0)
    weights = np.array([first * keep, 0.5 * (1 - keep)])
    wanted = (weights[0] * probs_of("happy", 0.9) + weights[1] * probs_of("sad", 0.9)) / weights.sum()
    assert smoothed.probs == pytest.approx(wanted, abs=1e-5)


def test_small_unsure_and_blurred_faces_weigh_less() -> None:
    good = Quality(100, 120, 50, 0.3)
    sure, unsure = (Face(np.array([0, 0, 100, 100], np.float32), score) for score in (0.9, 0.3))
    full = frame_weight(sure, good)
    assert full > 0.85
    assert frame_weight(sure, replace(good, size_px=16)) == pytest.approx(full * 16 / 48)
    assert frame_weight(unsure, good) == pytest.approx(full / 3)
    assert 0 < frame_weight(sure, replace(good, contrast=10, sharpness=0.05)) < full / 2


def test_the_reason_is_what_the_frames_lack_and_the_model_where_they_lack_nothing() -> None:
    smoother = Smoother(1, EMOTIONS, StreamConfig(smooth_s=0.1, hold_s=0.1, min_confidence=0.5))
    said = {}
    for step in range(100):
        lack, confidence = ("dark" if 50 <= step < 75 else None), (0.2 if step < 25 else 0.9)
        smoother.add(probs_of("happy", confidence), 0.0 if lack else 0.8, step / 25, lack)
        said[step] = smoother.label, smoother.reason
    assert said[20] == (UNCERTAIN, "low confidence")
    assert said[49] == said[52] == ("happy", None), "a moment in the dark changes nothing"
    assert said[74] == (UNCERTAIN, "dark")
    assert said[99] == ("happy", None)


def test_a_face_that_shows_nothing_is_uncertain_however_sure_the_model_is() -> None:
    smoother = Smoother(1, EMOTIONS, CONFIG)
    for step in range(25):
        smoother.add(probs_of("angry", 0.9), 0.0, step / 25)
    assert smoother.label == UNCERTAIN
    assert smoother.end() is None


def test_a_face_that_goes_dark_keeps_its_label_for_a_while() -> None:
    config = StreamConfig(smooth_s=0.5, hold_s=0.2)
    smoother = Smoother(1, EMOTIONS, config)
    said = {}
    for step in range(100):
        smoother.add(
            probs_of("happy", 0.9) if step < 25 else probs_of("angry", 0.9), 0.8 if step < 25 else 0.0, step / 25
        )
        said[step / 25] = smoother.label
    assert said[0.0] == said[2.0] == "happy"
    assert said[3.0] == UNCERTAIN
