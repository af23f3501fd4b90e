"""Network sources in processes of their own: the same images, and a child that dies or hangs harms nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.stream import source_process
from deepfer_yolo.stream.address import Address, parse_source
from deepfer_yolo.stream.source_errors import SourceReadError
from deepfer_yolo.stream.source_process import SourceProcess
from deepfer_yolo.stream.sources import open_source

ABORTING = """
import os, resource
from deepfer_yolo.stream import source_process, sources
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

class Aborting:
    is_finite, has_pts, is_bursty, period_s = {is_finite}, True, False, 0.0
    notes = ()
    def __init__(self, *_): pass
    def grabs(self):
        import numpy as np
        for index in range(5):
            yield sources.Grab(np.full((48, 64, 3), 50 + index, np.uint8), index / 25)
        os.abort()
    def close(self): pass

source_process.open_source = Aborting
source_process.main()
"""
"""A child that gives five images and ends as a library's failed assertion would end it."""


@pytest.fixture
def clip_url(serve_http: Callable[..., str], make_clip: Callable[..., Path]) -> str:
    content = make_clip(container={"movflags": "faststart"}).read_bytes()

    def handle(request: Any) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return serve_http(handle) + "/clip.mp4"


def address_of(url: str) -> Address:
    (address,) = parse_source(url)
    return address


def test_images_and_times_are_those_of_a_source_in_this_process(clip_url: str) -> None:
    address, config = address_of(clip_url), StreamConfig()
    here = open_source(address, config)
    there = SourceProcess(address, config)
    there.open()
    assert (there.is_finite, there.has_pts, there.is_bursty) == (here.is_finite, here.has_pts, here.is_bursty)
    pairs = list(zip(here.grabs(), there.grabs(), strict=True))
    here.close()
    there.close()
    assert len(pairs) == 25
    assert all(np.array_equal(ours.image, theirs.image) for ours, theirs in pairs)
    assert [(ours.pts_s, ours.offset_s) for ours, _ in pairs] == [(grab.pts_s, grab.offset_s) for _, grab in pairs]


def test_a_child_imports_nothing_from_the_working_folder(
    tmp_path: Path, clip_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    process = SourceProcess(address_of(clip_url), StreamConfig())
    try:
        process.open()
        assert next(process.grabs()).image is not None
    finally:
        process.close()


def test_failures_keep_their_reason_and_hide_the_password(serve_http: Callable[..., str]) -> None:
    url = serve_http(lambda request: request.send_error(401)).replace("://", "://ann:topsecret@")
    source = SourceProcess(address_of(url + "/a.mp4"), StreamConfig())
    with pytest.raises(SourceReadError) as caught:
        source.open()
    source.close()
    assert caught.value.reason == "unauthorised"
    assert caught.value.hint is not None
    assert "topsecret" not in str(caught.value)


def test_a_native_abort_costs_its_own_source_one_connection(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], clip_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (sys.executable, "-c", ABORTING.format(is_finite=False))
    monkeypatch.setattr(source_process, "PROGRAM", program)
    monkeypatch.setattr("deepfer_yolo.stream.reader.FIRST_SLOW_WAIT_S", 0.1)
    run = run_of([clip_url, str(make_clip("other.mp4"))]).start()
    run.wait_for(lambda: run.sink.states(clip_url).count("lost") >= 2)
    summary = run.stop()
    assert summary.sources[0].counters.captured >= 10
    assert summary.sources[1].counters.processed == 25
    lost = [r["reason"] for r in run.sink.records if r["source"] == clip_url and r.get("state") == "lost"]
    assert lost[0] == f"crashed: the process that read {clip_url} ended (SIGABRT)"


def test_a_recording_that_breaks_its_reader_is_not_begun_again(
    run_of: Callable[..., Any], make_clip: Callable[..., Path], clip_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_process, "PROGRAM", (sys.executable, "-c", ABORTING.format(is_finite=True)))
    run = run_of([clip_url, str(make_clip("other.mp4"))]).start()
    summary = run.finish()
    assert [source.state for source in summary.sources] == ["failed", "ended"]
    assert [source.counters.processed for source in summary.sources] == [5, 25]
    assert (summary.sources[0].reason, summary.exit_code) == ("crashed", 4)


def test_a_child_that_hangs_does_not_hold_up_the_end(
    run_of: Callable[..., Any], serve_http: Callable[..., str], stopwatch: Callable[..., Any]
) -> None:
    asked = threading.Event()

    def handle(request: Any) -> None:
        asked.set()
        time.sleep(20)

    run = run_of([serve_http(handle) + "/a.mp4"], open_timeout_s=60.0, read_timeout_s=60.0).start()
    assert asked.wait(20)
    child = run.pipeline.readers[0]._process._process
    os.kill(child.pid, signal.SIGSTOP)
    watch = stopwatch()
    run.stop()
    assert watch() < 5
    assert child.wait(5) == -signal.SIGKILL


def test_a_child_ends_with_its_parent(serve_http: Callable[..., str]) -> None:
    asked = threading.Event()

    def handle(request: Any) -> None:
        asked.set()
        time.sleep(20)

    code = (
        "import sys, threading; from deepfer_yolo.config import StreamConfig\n"
        "from deepfer_yolo.stream.address import parse_source; from deepfer_yolo.stream.source_process import *\n"
        "source = SourceProcess(parse_source(sys.argv[1])[0], StreamConfig(read_timeout_s=60))\n"
        "print(source._process.pid, flush=True); source.open()"
    )
    program = [sys.executable, "-c", code, serve_http(handle) + "/a.mp4"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert asked.wait(20)
        parent.kill()
    deadline = time.monotonic() + 60
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_isolation_the_source_is_read_here(run_of: Callable[..., Any], clip_url: str) -> None:
    run = run_of([clip_url], isolate=False).start()
    assert run.finish().processed == 25
    assert run.pipeline.readers[0]._process is None


def test_a_protocol_that_ffmpeg_lacks_is_not_tried_again(run_of: Callable[..., Any]) -> None:
    """PyAV's own builds have no SRT; where one has, this is a host that refuses."""
    run = run_of(["srt://127.0.0.1:9"]).start()
    (source,) = run.finish().sources
    if "Protocol not found" in str(source.error):
        assert (source.reason, source.reconnects) == ("invalid", 0)


PROTOCOLS = {
    "tcp": ("tcp://127.0.0.1:{port}?listen=1", {}, "mpegts", "tcp://127.0.0.1:{port}"),
    "udp": ("udp://127.0.0.1:{port}", {}, "mpegts", "udp://127.0.0.1:{port}?pkt_size=1316"),
    "rtmp": ("rtmp://127.0.0.1:{port}/live/a", {"listen": "1"}, "flv", "rtmp://127.0.0.1:{port}/live/a"),
}
"""For each: the source, its options, and in what form and to where ffmpeg publishes. RTSP is tested with its reader."""


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_is_read_and_its_loss_ends_nothing_else(
    protocol: str, run_of: Callable[..., Any], publish: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    source, options, form, target = PROTOCOLS[protocol]
    port = free_port()
    url = source.format(port=port)
    times = {"open_timeout_s": 15.0, "read_timeout_s": 15.0}
    run = run_of([url, "testsrc=size=64x48:rate=10"], input_option=options, retries=0, **times).start()
    coding = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "5", "-pix_fmt", "yuv420p")
    picture = ("-re", "-f", "lavfi", "-i", "testsrc=size=96x64:rate=25", *coding)
    deadline = time.monotonic() + 60
    while run.pipeline.summary().sources[0].counters.captured < 25:
        assert time.monotonic() < deadline, run.pipeline.summary().sources[0]
        publisher = publish(*picture, "-f", form, target.format(port=port))
        until = time.monotonic() + 6
        while publisher.process.poll() is None and time.monotonic() < until:
            if run.pipeline.summary().sources[0].counters.captured >= 25:
                break
            time.sleep(0.05)
        else:
            publisher.kill()
    other = run.pipeline.summary().sources[1].counters.captured
    publisher.kill()
    run.wait_for(lambda: run.pipeline.summary().sources[1].counters.captured > other + 20)
    run.stop()
