"""The tracker: ids over time, at any frame rate, through gaps and crossings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.faces.track import Motion, Tracker, moved, overlap
from deepfer_yolo.records import Face


def face(x: float, y: float, side: float = 40.0, score: float = 0.9) -> Face:
    return Face(np.array([x, y, x + side, y + side], np.float32), score)


def ids(tracker: Tracker, faces: list[Face], time_s: float) -> list[int]:
    """The ids that the tracker gives to `faces`, in their order."""
    tracked = tracker.update(faces, time_s)
    return [next(t.id for t in tracked if t.face is one) for one in faces]


@pytest.mark.parametrize("fps", [5, 10, 30])
def test_two_faces_that_pass_each_other_keep_their_ids(fps: int) -> None:
    tracker = Tracker(StreamConfig(min_score=0.6))
    seen = []
    for step in range(4 * fps):
        t = step / fps
        seen.append(ids(tracker, [face(100 + 80 * t, 100), face(420 - 80 * t, 150)], t))
    assert all(one == [1, 2] for one in seen)


@given(st.integers(0, 10_000))
def test_order_of_the_detections_does_not_matter(seed: int) -> None:
    random = np.random.RandomState(seed)
    places = [(60 + 150 * i, 50 + 60 * (i % 3)) for i in range(5)]
    tracker = Tracker(StreamConfig(min_score=0.6))
    first = dict(zip(places, ids(tracker, [face(*place) for place in places], 0.0), strict=True))
    shuffled = [places[i] for i in random.permutation(5)]
    second = ids(tracker, [face(x + random.uniform(-4, 4), y + random.uniform(-4, 4)) for x, y in shuffled], 0.04)
    assert [first[place] for place in shuffled] == second


def test_a_short_gap_keeps_the_id_and_a_long_one_does_not() -> None:
    tracker = Tracker(StreamConfig(min_score=0.6, lost_s=1.0))
    for step in range(10):
        tracker.update([face(100 + 4 * step, 100)], step / 25)
    for step in range(10, 25):
        assert tracker.update([], step / 25) == []
    assert tracker.alive == {1}
    assert ids(tracker, [face(200, 100)], 25 / 25) == [1]
    tracker.update([], 2.5)
    assert tracker.alive == frozenset()
    assert ids(tracker, [face(200, 100)], 2.6) == [2]


def test_unsure_detections_carry_a_track_but_do_not_begin_one_over_another() -> None:
    tracker = Tracker(StreamConfig(min_score=0.6))
    assert ids(tracker, [face(100, 100)], 0.0) == [1]
    assert ids(tracker, [face(102, 101, score=0.4)], 0.04) == [1]
    assert tracker.update([face(400, 100, score=0.4)], 0.08) == []
    assert tracker.next_id == 2


def test_coasting_follows_the_motion() -> None:
    tracker = Tracker(StreamConfig(min_score=0.6))
    for step in range(20):
        tracker.update([face(100 + 4 * step, 100)], step / 25)
    (track,) = tracker.coast(24 / 25)
    assert track.face.box[0] == pytest.approx(100 + 4 * 24, abs=3)
    assert track.id == 1


def test_what_is_out_of_sight_is_still_expected_somewhere() -> None:
    tracker = Tracker(StreamConfig(min_score=0.6, lost_s=1.0))
    tracker.update([face(100, 100)], 0.0)
    tracker.update([], 0.5)
    (hidden,) = tracker.hidden(0.5)
    assert hidden.box[0] == pytest.approx(100, abs=2)


def test_a_moving_face_that_is_missed_may_have_stayed_or_gone_on() -> None:
    tracker = Tracker(StreamConfig(min_score=0.6, lost_s=1.0))
    for step in range(10):
        tracker.update([face(100 + 10 * step, 100)], step / 10)
    tracker.update([], 1.2)
    (hidden,) = tracker.hidden(1.2)
    width = face(0, 0).box[2]
    assert hidden.box[0] == pytest.approx(190, abs=1)
    assert hidden.box[2] == pytest.approx(220 + width, abs=5)


def test_ids_are_never_used_again() -> None:
    tracker = Tracker(StreamConfig(min_score=0.6, lost_s=0.1))
    seen = [ids(tracker, [face(100, 100)], float(step))[0] for step in range(20)]
    assert seen == list(range(1, 21))


@given(
    st.lists(st.tuples(st.floats(0, 500), st.floats(0, 500), st.floats(1, 200), st.floats(0, 1)), max_size=8),
    st.floats(0, 3),
)
def test_any_detections_give_each_face_one_id(rows: list[tuple[float, float, float, float]], step_s: float) -> None:
    tracker = Tracker(StreamConfig(min_score=0.6))
    for n in range(3):
        tracked = tracker.update([face(x, y, side, score) for x, y, side, score in rows], n * step_s)
        assert len({track.id for track in tracked}) == len(tracked)
        assert all(np.isfinite(track.motion.predict(n * step_s + 1)).all() for track in tracked)


def test_motion_does_not_depend_on_the_frame_rate() -> None:
    ends = []
    for fps in (5, 10, 30):
        motion = Motion(np.array([0.0, 0.0, 40.0, 40.0]), 0.0)
        for step in range(1, 2 * fps + 1):
            t = step / fps
            motion.update(np.array([60 * t, 0.0, 60 * t + 40, 40.0]), t)
        ends.append(motion.predict(2.5)[0])
    assert ends == pytest.approx([150, 150, 150], abs=5)


def test_overlap_of_known_boxes() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert overlap(a, b)[0].tolist() == pytest.approx([1, 1 / 3, 0])


def test_landmarks_move_with_their_box() -> None:
    points = np.array([[10, 10], [30, 10], [20, 20], [12, 30], [28, 30]], np.float32)
    out = moved(Face(np.array([0, 0, 40, 40], np.float32), 1.0, points), np.array([100.0, 50, 180, 130]))
    assert out.landmarks is not None
    assert out.landmarks[0].tolist() == [120, 70]
