"""Live sources that break: real ffmpeg publishers over RTSP, killed and paused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LISTEN = {"open_timeout_s": 10.0, "input_option": {"rtsp_flags": "listen", "listen_timeout": "8"}}


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
    run_of: Callable[..., Any], publish_rtsp: Callable[..., Any], free_port: Any
) -> None:
    port = free_port()
    run = run_of([f"rtsp://127.0.0.1:{port}/live"], stall_s=0.5, read_timeout_s=8.0, **LISTEN).start()
    publisher = publish_rtsp(port)
    run.wait_for(lambda: len(run.sink.results) >= 10)
    publisher.pause()
    paused = time.monotonic()
    run.wait_for(lambda: "stalled" in run.sink.states(), 3)
    assert time.monotonic() - paused < 1.5
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
