"""The reader: clocks, epochs and waiting times by numbers made by hand; publishers over RTSP, killed and paused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.stream.reader import LIVE_PACE, Pace, Timeline, backoff_s

LISTEN = {"open_timeout_s": 10.0, "input_option": {"rtsp_flags": "listen", "listen_timeout": "8"}}


def test_pts_is_taken_as_it_is_and_jumps_begin_epochs() -> None:
    line = Timeline(has_pts=True, is_live=False)
    stamps = [line.stamp(pts, None, 1000.0) for pts in (5.0, 5.5, 14.0, 25.0, 24.9)]
    assert [(s.time_s, s.clock, s.is_new_epoch) for s in stamps] == [
        (5.0, "pts", False),
        (5.5, "pts", False),
        (14.0, "pts", False),
        (25.0, "pts", True),
        (24.9, "pts", True),
    ]


@pytest.mark.parametrize("first_s", [-0.08, 0.0, 1.4, 3600.0])
def test_a_file_counts_from_its_first_image(first_s: float) -> None:
    line = Timeline(has_pts=True, is_live=False, starts_at_zero=True, named="derived")
    stamps = [line.stamp(first_s + step, None, 1000.0) for step in (0.0, 0.04, 0.08)]
    assert [stamp.time_s for stamp in stamps] == pytest.approx([0.0, 0.04, 0.08])
    assert {(stamp.clock, stamp.is_new_epoch) for stamp in stamps} == {("derived", False)}


def test_a_live_pause_is_no_jump() -> None:
    line = Timeline(has_pts=True, is_live=True)
    line.stamp(1.0, None, 1000.0)
    assert not line.stamp(31.0, None, 1030.5).is_new_epoch
    assert line.stamp(91.0, None, 1031.0).is_new_epoch


def played(pace: Pace, frames: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When frames are played that are (when they can be read, their time), on a clock made by hand."""
    now = 0.0

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now
            now += timeout or 0.0
            return False

    monkeypatch.setattr("deepfer_yolo.stream.reader.time.monotonic", lambda: now)
    at = []
    for ready_s, time_s in frames:
        now = max(now, ready_s)
        pace.wait(time_s, Stop())
        at.append(round(now, 3))
    return at


def test_bursts_of_a_live_stream_are_played_at_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six frames at once, a second late two more: they follow at their distance, and the next burst is waited for."""
    frames = [(10.0, 50.0 + i / 2) for i in range(6)] + [(13.5, 53.0), (13.5, 53.5)] + [(14.0, 54.0), (14.0, 90.0)]
    at = played(Pace(is_live=True), frames, monkeypatch)
    assert at[:6] == pytest.approx([10 + i / 2 / LIVE_PACE for i in range(6)], abs=1e-3)
    assert at[6:] == pytest.approx([13.5, 14.0, 14.5, 14.5], abs=2e-3), "a jump of the clock is not waited for"


def test_a_busy_machine_does_not_slow_a_live_stream_down(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [(0, 5.0), (0.6, 5.5), (1.15, 6.0), (0, 6.5)]
    assert played(Pace(is_live=True), frames, monkeypatch) == pytest.approx([0, 0.6, 1.15, 1.5], abs=5e-3)


def test_a_recording_that_was_late_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert played(Pace(), [(0, 5.0), (0, 5.5), (2.0, 6.0), (0, 6.5), (0, 7.5)], monkeypatch) == [0, 0.5, 2, 2, 2.5]


def test_rtcp_gives_capture_time_and_age() -> None:
    line = Timeline(has_pts=True, is_live=True)
    stamp = line.stamp(2.0, 1_700_000_000.0, 1_700_000_002.25)
    assert (stamp.time_s, stamp.clock) == (1_700_000_002.0, "rtcp")
    assert stamp.age_s == pytest.approx(0.25)


def test_a_wall_clock_that_was_never_set_is_not_believed() -> None:
    line = Timeline(has_pts=True, is_live=True)
    for step in range(3):
        stamp = line.stamp(2.0 + step, 0.0, 1_700_000_000.0 + step)
        assert (stamp.time_s, stamp.clock, stamp.age_s) == (2.0 + step, "pts", 0.0)


def test_a_believed_wall_clock_stays_so_after_a_long_pause() -> None:
    line = Timeline(has_pts=True, is_live=True)
    line.stamp(1.0, 1000.0, 1001.0)
    stamp = line.stamp(2.0, 1000.0, 1102.0)
    assert (stamp.time_s, stamp.clock, stamp.age_s) == (1002.0, "rtcp", 100.0)


def test_rtcp_that_comes_late_changes_the_age_but_not_the_clock() -> None:
    line = Timeline(has_pts=True, is_live=True)
    line.stamp(1.0, None, 1001.0)
    stamp = line.stamp(2.0, 1000.0, 1002.5)
    assert (stamp.time_s, stamp.clock, stamp.is_new_epoch) == (2.0, "pts", False)
    assert stamp.age_s == pytest.approx(0.5)


def test_without_stamps_arrival_counts() -> None:
    line = Timeline(has_pts=False, is_live=True)
    assert line.stamp(3.0, None, 1000.0).time_s == 1000.0
    assert line.stamp(None, None, 1000.5).clock == "arrival"


def test_backoff_doubles_with_jitter_up_to_its_cap() -> None:
    for attempts, full in enumerate((0.5, 1, 2, 4, 8, 16, 30, 30)):
        waits = [backoff_s(attempts) for _ in range(50)]
        assert full / 2 <= min(waits) < max(waits) <= full
    assert 5.0 <= backoff_s(0, is_slow=True) <= 10.0


def test_many_attempts_do_not_overflow() -> None:
    assert backoff_s(5000) <= 30


def test_a_killed_publisher_comes_back_with_another_size(
    run_of: Callable[..., Any], publish_rtsp: Callable[..., Any], free_port: Any
) -> None:
    port = free_port()
    run = run_of([f"rtsp://127.0.0.1:{port}/live"], read_timeout_s=2.0, **LISTEN).start()
    first = publish_rtsp(port)
    run.wait_for(lambda: len(run.sink.results) >= 30)
    first.kill()
    run.wait_for(lambda: "lost" in run.sink.states())
    time.sleep(1.0)
    publish_rtsp(port, size="320x240")
    run.wait_for(lambda: sum(result.epoch == 1 for result in run.sink.results) >= 10)
    summary = run.stop()

    (source,) = summary.sources
    assert source.reconnects >= 1
    assert source.epochs == 2
    assert (
        source.counters.captured
        == source.counters.processed + source.counters.overwritten + source.counters.stale + source.counters.corrupt
    )
    assert source.counters.in_flight == 0
    assert source.counters.processed == len(run.sink.results)
    shapes = {(result.epoch, result.frame.image.shape[:2]) for result in run.sink.results}
    assert shapes == {(0, (120, 160)), (1, (240, 320))}
    # The test image is bright and colourful; an invented frame would be black or flat.
    assert min(result.frame.image.std() for result in run.sink.results) > 40
    states = run.sink.states()
    assert states[:2] == ["connecting", "live"]
    assert states.index("lost") < states.index("live", 2)
    assert states[-1] == "ended"
    # The publisher tells its wall clock, so that the time of capture and the age since then are known from the first
    # frame on.
    assert {result.frame.clock for result in run.sink.results} == {"rtcp"}
    assert abs(run.sink.results[-1].frame.time_s - time.time()) < 10
    indices = [result.frame.index for result in run.sink.results]
    assert indices == sorted(set(indices))


def test_a_paused_publisher_is_stalled_and_then_fresh_again(
    run_of: Callable[..., Any], publish_rtsp: Callable[..., Any], free_port: Any, stopwatch: Callable[..., Any]
) -> None:
    port = free_port()
    run = run_of([f"rtsp://127.0.0.1:{port}/live"], stall_s=0.5, read_timeout_s=8.0, **LISTEN).start()
    publisher = publish_rtsp(port)
    run.wait_for(lambda: len(run.sink.results) >= 10)
    publisher.pause()
    watch = stopwatch()
    run.wait_for(lambda: "stalled" in run.sink.states())
    assert watch() < 1.5
    time.sleep(1.0)
    publisher.go_on()
    run.wait_for(lambda: run.sink.states()[-1] == "live")
    n = len(run.sink.results)
    # What piled up while it was paused comes in one burst; after that frames are fresh, by the time of their capture.
    run.wait_for(
        lambda: len(run.sink.results) >= n + 20 and max(result.age_ms for result in run.sink.results[-10:]) < 500
    )
    run.stop()
    assert run.sink.states()[:4] == ["connecting", "live", "stalled", "live"]


def test_a_live_playlist_that_gets_its_end_mark_is_not_played_again(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], serve_http: Callable[..., str], tmp_path: Path
) -> None:
    options = {"hls_time": "0.2", "hls_list_size": "0"}
    whole = make_clip("list.m3u8", container=options).read_bytes()
    asked = 0

    def handle(request: Any) -> None:
        nonlocal asked
        content = (tmp_path / request.path.strip("/")).read_bytes()
        if request.path == "/list.m3u8":
            asked += 1
            content = whole if asked > 2 else whole.replace(b"#EXT-X-ENDLIST\n", b"")
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    run = run_of([serve_http(handle) + "/list.m3u8"], open_timeout_s=15.0, read_timeout_s=15.0).start()
    (source,) = run.finish(60).sources
    assert (source.state, source.reason) == ("ended", None)
    assert source.counters.captured == 15, "three segments from the end, where a live playlist begins"


@pytest.mark.slow
def test_live_hls_is_played_by_its_own_clock(
    run_of: Callable[..., Any], publish: Callable[..., Any], serve_http: Callable[..., str], tmp_path: Path
) -> None:
    """Segments of two seconds arrive at once; of what came, `latest` throws away next to nothing."""
    source = ("-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=25", "-c:v", "libx264", "-preset", "ultrafast")
    live = ("-g", "25", "-f", "hls", "-hls_time", "2", "-hls_list_size", "5", "-hls_flags", "delete_segments")
    publish(*source, "-pix_fmt", "yuv420p", *live, str(tmp_path / "live.m3u8"))

    def handle(request: Any) -> None:
        path = tmp_path / request.path.strip("/")
        content = path.read_bytes() if path.exists() else b""
        request.send_response(200 if content else 404)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    wanted = tmp_path / "live2.ts"
    deadline = time.monotonic() + 60
    while not wanted.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    run = run_of([serve_http(handle) + "/live.m3u8"], slow_s=0.01, read_timeout_s=10.0, open_timeout_s=10.0).start()
    run.wait_for(lambda: len(run.sink.results) > 0, 60)
    time.sleep(12)
    summary = run.stop()
    (one,) = summary.sources
    assert 12 * 25 * 0.85 < one.counters.captured < 12 * 25 * 1.15
    assert one.counters.overwritten < 0.05 * one.counters.captured
    assert (one.epochs, one.reconnects) == (1, 0)
