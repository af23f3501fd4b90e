"""The engine: policies and their counters, bounded age, many sources, limits and stops."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.stream.sinks.network import WebhookSink
from deepfer_yolo.stream.sinks.worker import SinkWorker

CAMERA = "testsrc=size=160x120:rate=30"


def assert_law(run: Any) -> None:
    """captured = processed + dropped + in flight, now and at the end."""
    for source in run.pipeline.summary().sources:
        n = source.counters
        assert n.captured == n.processed + n.overwritten + n.stale + n.corrupt + n.in_flight


def share_lost(stopwatch: Callable[..., Any]) -> Callable[[], float]:
    """How many times as long as on a machine of their own the tests have taken since; 1 where no other is busy."""
    began, watch = time.monotonic(), stopwatch()
    return lambda: (time.monotonic() - began) / watch()


def ages_of(run: Any, source: str) -> list[float]:
    return [result.age_ms for result in run.sink.results if result.frame.source == source]


def test_a_file_is_processed_whole_and_in_order(run_of: Callable[..., Any], make_clip: Callable[..., Path]) -> None:
    run = run_of([str(make_clip())], slow_s=0.01).start()
    summary = run.finish()
    (source,) = summary.sources
    assert (source.counters.captured, source.counters.processed, source.counters.in_flight) == (25, 25, 0)
    assert [result.frame.index for result in run.sink.results] == list(range(25))
    assert run.sink.states() == ["connecting", "live", "ended"]
    assert summary.exit_code == 0


def test_latest_bounds_the_age_with_a_model_ten_times_too_slow(
    run_of: Callable[..., Any], stopwatch: Callable[..., Any]
) -> None:
    slow_s, lost = 10 / 30, share_lost(stopwatch)
    run = run_of([CAMERA], slow_s=slow_s).start()
    for n in range(1, 10):
        run.wait_for(lambda n=n: len(run.sink.results) >= n)
        assert_law(run)
    (source,) = run.stop().sources
    assert source.counters.overwritten > 5 * source.counters.processed
    ages = [result.age_ms for result in run.sink.results]
    # A frame waits for one inference at most, then takes one.
    assert max(ages) < (1000 * 2 * slow_s + 300) * lost()


def test_bounded_drops_what_is_too_old(run_of: Callable[..., Any], stopwatch: Callable[..., Any]) -> None:
    lost = share_lost(stopwatch)
    run = run_of([CAMERA], slow_s=0.15, policy="bounded", max_age_s=0.3).start()
    run.wait_for(lambda: len(run.sink.results) >= 15)
    (source,) = run.stop().sources
    assert_law(run)
    assert source.counters.stale > source.counters.processed
    assert source.counters.in_flight == 0
    assert max(result.age_ms for result in run.sink.results) < (1000 * (0.3 + 0.15) + 300) * lost()


def test_lossless_makes_a_live_source_wait(run_of: Callable[..., Any]) -> None:
    run = run_of([CAMERA], slow_s=0.05, policy="lossless", max_frames=20).start()
    (source,) = run.finish().sources
    assert (source.counters.captured, source.counters.processed) == (20, 20)


def test_a_file_under_latest_plays_at_its_own_speed(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], stopwatch: Callable[..., Any]
) -> None:
    started, watch = time.monotonic(), stopwatch()
    run = run_of([str(make_clip(times=[i / 20 for i in range(31)]))], policy="latest").start()
    run.finish()
    assert time.monotonic() - started > 1.4
    assert watch() < 4


def test_four_sources_one_dead_one_stalled_a_slow_model_and_a_blocked_sink(
    run_of: Callable[..., Any], free_port: Callable[[], int], collect: Any, stopwatch: Callable[..., Any]
) -> None:
    gate = threading.Event()

    class Blocked(collect):  # type: ignore[misc]
        def write(self, output: Any) -> None:
            gate.wait(20)

    blocked = SinkWorker(Blocked("images", name="blocked", depth=4))
    slow_s, lost = 10 / 30, share_lost(stopwatch)
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(5)
        sources = [
            CAMERA,
            "testsrc2=size=160x120:rate=30",
            f"rtsp://127.0.0.1:{free_port()}/x",
            f"http://127.0.0.1:{hole.getsockname()[1]}/x",
        ]
        run = run_of(
            sources,
            slow_s=slow_s,
            workers=[blocked],
            retries=0,
            open_timeout_s=2.0,
            read_timeout_s=2.0,
        ).start()
        run.wait_for(lambda: run.sink.states().count("failed") == 2)
        for camera in sources[:2]:
            run.wait_for(lambda camera=camera: len(ages_of(run, camera)) >= 5)
        summary = run.stop()
    gate.set()
    assert_law(run)
    for camera in sources[:2]:
        assert max(ages_of(run, camera)) < (1000 * 2 * slow_s + 400) * lost()
    states = {source.source: (source.state, source.reason) for source in summary.sources}
    assert states[sources[2]] == ("failed", "refused")
    assert states[sources[3]] == ("failed", "timeout")
    (trouble,) = [sink for sink in summary.sinks if sink.sink == "blocked"]
    assert trouble.dropped > 0
    assert trouble.error is not None
    assert "sink" in run.sink.states("blocked")


def test_some_failed_sources_give_exit_code_4(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    summary = run_of([str(make_clip()), str(tmp_path / "broken.mp4")]).start().finish()
    assert summary.exit_code == 4


@pytest.mark.parametrize(
    "text", ["testsrc=size=0x0", "testsrc=nonsense=1", "color=c=nocolour", "testsrc=size=64x48:rate=1/0"]
)
def test_parameters_that_cannot_be_are_a_failure_at_once(text: str, run_of: Callable[..., Any]) -> None:
    run = run_of([text]).start()
    summary = run.finish()
    assert run.sink.states() == ["connecting", "failed"]
    (source,) = summary.sources
    assert (source.reason, source.reconnects, summary.exit_code) == ("invalid", 0, 1)
    assert text in str(source.error)


def test_options_that_the_network_reader_does_not_take_are_a_failure_at_once(
    run_of: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    read = {"open_timeout_s": 2.0, "read_timeout_s": 2.0, "input_option": {"rtsp_flags": "nonsense"}}
    run = run_of([f"rtsp://127.0.0.1:{free_port()}/x"], **read).start()
    assert run.finish().sources[0].reason == "invalid"
    assert run.sink.states() == ["connecting", "failed"]


def test_a_pattern_with_a_length_ends(run_of: Callable[..., Any]) -> None:
    run = run_of(["testsrc=size=64x48:rate=25:duration=0.4"], policy="lossless").start()
    summary = run.finish()
    assert run.sink.states() == ["connecting", "live", "ended"]
    assert (summary.sources[0].counters.processed, summary.exit_code) == (10, 0)


def test_fail_fast_ends_the_run(
    run_of: Callable[..., Any], free_port: Callable[[], int], stopwatch: Callable[..., Any]
) -> None:
    watch = stopwatch()
    run = run_of([CAMERA, f"rtsp://127.0.0.1:{free_port()}/x"], fail_fast=True).start()
    summary = run.finish()
    assert watch() < 5
    assert summary.exit_code == 4


def test_stop_returns_within_a_second_while_connecting(
    run_of: Callable[..., Any], stopwatch: Callable[..., Any]
) -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(5)
        run = run_of([f"rtsp://127.0.0.1:{hole.getsockname()[1]}/x"]).start()
        run.wait_for(lambda: "connecting" in run.sink.states())
        time.sleep(0.3)
        watch = stopwatch()
        summary = run.stop()
        assert watch() < 1.2
    assert run.sink.states()[-1] in ("ended", "failed")
    assert summary.sources[0].counters.captured == 0


def test_stop_does_not_wait_for_a_webhook_that_does_not_answer(
    run_of: Callable[..., Any], free_port: Callable[[], int], stopwatch: Callable[..., Any]
) -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(5)
        hooks = [SinkWorker(WebhookSink(f"http://127.0.0.1:{port}/x")) for port in (hole.getsockname()[1], free_port())]
        run = run_of([CAMERA], workers=hooks).start()
        run.wait_for(lambda: len(run.sink.results) >= 3)
        watch = stopwatch()
        summary = run.stop()
        assert watch() < 2.0
    assert [sink.error for sink in summary.sinks][1:] == ["it did not finish"] * 2


def test_a_dead_live_source_is_given_up_after_its_attempts(
    run_of: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    run = run_of([f"http://127.0.0.1:{free_port()}/x"], retries=2).start()
    summary = run.finish()
    assert run.sink.states() == ["connecting", "lost", "connecting", "lost", "connecting", "failed"]
    assert summary.exit_code == 1
    assert summary.sources[0].reconnects == 2


def test_an_exception_of_the_model_ends_the_run_and_is_raised(
    run_of: Callable[..., Any], make_clip: Callable[..., Path]
) -> None:
    run = run_of([str(make_clip())])
    run.pipeline._model.predict = None  # type: ignore[method-assign,assignment]
    run.start()
    with pytest.raises(TypeError):
        run.finish()


def test_a_jump_of_the_clock_begins_a_new_epoch(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    times = [*(i / 25 for i in range(20)), *(60 + i / 25 for i in range(20))]
    run = run_of([str(make_clip(times=times))]).start()
    run.finish()
    assert [result.epoch for result in run.sink.results] == [0] * 20 + [1] * 20
    tracks = {(result.epoch, track.id) for result in run.sink.results for track in result.tracks}
    assert tracks == {(0, 1), (1, 2)}


def test_a_frozen_image_is_told(run_of: Callable[..., Any]) -> None:
    run = run_of(["color=c=red:size=64x48:rate=20"], frozen_s=0.5).start()
    run.wait_for(lambda: "frozen" in run.sink.states(), 5)
    n = len(run.sink.results)
    run.wait_for(lambda: len(run.sink.results) > n + 3)
    run.stop()
    assert run.sink.states() == ["connecting", "live", "frozen", "ended"]


def test_between_detections_tracks_coast(run_of: Callable[..., Any], make_clip: Callable[..., Path]) -> None:
    run = run_of([str(make_clip())], detect_every=5)
    calls: list[int] = []
    detector = run.pipeline._open[0][1].detector
    found = detector.detect
    detector.detect = lambda image: (calls.append(1), found(image))[1]  # type: ignore[func-returns-value]
    run.start().finish()
    assert len(calls) == 5
    assert all(len(result.tracks) == 1 for result in run.sink.results)


def test_events_cover_the_tracks_and_carry_their_epoch(
    run_of: Callable[..., Any], make_clip: Callable[..., Path]
) -> None:
    quick = {"smooth_s": 0.1, "margin": 0.0, "hold_s": 0.0, "min_confidence": 0.0}
    run = run_of([str(make_clip(times=[i / 25 for i in range(75)]))], **quick).start()
    run.finish()
    events = [record for record in run.sink.records if record["kind"] == "event"]
    assert events
    assert events[0]["start_s"] == 0.0
    assert events[-1]["end_s"] == pytest.approx(74 / 25, abs=1e-3)
    for before, after in itertools.pairwise(events):
        assert before["end_s"] == after["start_s"]
        assert before["label"] != after["label"]
    keys = {"schema", "kind", "source", "epoch", "time_s", "clock"}
    assert all(keys <= record.keys() for record in run.sink.records)


def test_faces_of_a_record_match_the_result(run_of: Callable[..., Any], make_clip: Callable[..., Path]) -> None:
    run = run_of([str(make_clip())]).start()
    run.finish()
    faces = [record for record in run.sink.records if record["kind"] == "face"]
    assert len(faces) == 25
    assert faces[3]["frame"] == 3
    assert faces[3]["box"] == [0.0, 0.0, 96.0, 64.0]
    assert sum(faces[3]["probs"].values()) == pytest.approx(1, abs=1e-2)
    assert faces[3]["age_ms"] is None
    assert np.isclose(faces[3]["time_s"], 3 / 25)
