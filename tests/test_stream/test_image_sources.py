"""Pipes, patterns, lists, numbered images, animations and snapshot URLs as sources; names with colons."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import SourceError
from deepfer_yolo.stream import address, file_names, image_sources
from deepfer_yolo.stream.address import parse_source, parse_sources
from deepfer_yolo.stream.batch import find_images
from deepfer_yolo.stream.source_errors import SourceReadError
from deepfer_yolo.stream.sources import open_source


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grabs(text: str, **settings: Any) -> list[tuple[float | None, int | None]]:
    """Time and mean brightness of each image of one source."""
    (one,) = parse_source(text)
    source = open_source(one, StreamConfig(**settings))
    found = [(grab.pts_s, None if grab.image is None else round(float(grab.image.mean()))) for grab in source.grabs()]
    source.close()
    return found


def write_images(folder: Path, *names: str) -> None:
    for index, name in enumerate(names):
        Image.new("RGB", (32, 24), (20 * index + 10,) * 3).save(folder / name)


def test_names_with_colons_are_files_where_there_is_one(here: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip()
    for name in ("12:30:05.mp4", "rtsp:x.mp4", "testsrc=1.mp4", "%d.mp4", "a[1].mp4", "@a.mp4"):
        clip.rename(here / name)
        clip = here / name
        assert len(grabs(name)) == 25, name
    with pytest.raises(SourceError, match="no such source"):
        parse_source("12:30:06.mp4")


def test_numbered_images_come_by_number_and_at_the_rate_asked(here: Path) -> None:
    write_images(here, "f_8.png", "f_9.png", "f_10.png")
    (here / "f_x.png").write_bytes(b"")
    assert grabs("f_%d.png", sequence_fps=10) == [(0.0, 10), (0.1, 30), (0.2, 50)]
    assert grabs("f_?*.png", sequence_fps=10)[:3] == [(0.0, 10), (0.1, 30), (0.2, 50)]  # 10 after 9 here too
    assert [path.name for path in find_images(["f_%d.png"])] == ["f_8.png", "f_9.png", "f_10.png"]
    write_images(here, "g_0002.png", "g_1.png", "g_0001.png")
    assert [value for _, value in grabs("g_%04d.png")] == [50, 10]


def test_a_broken_image_of_a_row_is_counted_and_keeps_its_time(here: Path, run_of: Callable[..., Any]) -> None:
    write_images(here, "1.png", "2.png", "3.png")
    (here / "2.png").write_bytes(b"broken")
    assert grabs("%d.png", sequence_fps=2) == [(0.0, 10), (0.5, None), (1.0, 50)]
    summary = run_of(["%d.png"]).start().finish()
    (source,) = summary.sources
    assert (source.state, source.counters.captured, source.counters.corrupt, source.epochs) == ("ended", 3, 1, 1)


def test_lists_stand_for_what_they_name(here: Path, make_clip: Callable[..., Path]) -> None:
    make_clip("a.mp4")
    make_clip("b.mp4")
    write_images(here, "2.png", "1.png")
    (here / "list.txt").write_text("# cameras\na.mp4\n\n  b.mp4  \nrtsp://me:secret@host/x\n0\n")
    found = parse_sources(["@list.txt"])
    assert [(one.name, one.kind) for one in found] == [
        ("a.mp4", "file"), ("b.mp4", "file"), ("rtsp://***@host/x", "network"), ("camera 0", "camera"),
    ]  # fmt: skip
    (here / "images.txt").write_text("2.png\n1.png\n")
    assert grabs("@images.txt") == [(0.0, 10), (0.04, 30)]  # in the order of the list
    assert [path.name for path in find_images(["@images.txt"])] == ["2.png", "1.png"]
    assert [one.name for one in parse_sources(["*.mp4"])] == ["a.mp4", "b.mp4"]


def test_lists_and_patterns_are_bounded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "again.txt").write_text("@elsewhere.txt\n")
    (here / "many.txt").write_text("0\n" * 20)
    (here / "empty.txt").write_text("# nothing\n")
    (here / "binary.txt").write_bytes(b"a\0/*.mp4\n")
    monkeypatch.setattr(address, "MAX_SOURCES", 10)
    for text, words in (
        ("@again.txt", "names no other list"), ("@many.txt", "more than 10 sources"),
        ("@none.txt", "no such list"), ("@empty.txt", "names no source"), ("*.nothing", "names no source"),
        ("f_%d.png", "names no source"), ("@binary.txt", "binary.txt, line 1: no name holds a NUL"),
    ):  # fmt: skip
        with pytest.raises(SourceError, match=words):
            parse_source(text)
    monkeypatch.setattr(file_names, "MAX_FILES", 2)
    write_images(here, "1.png", "2.png", "3.png")
    for text in ("*.png", "%d.png"):
        with pytest.raises(SourceError, match="more than 2 files"):
            parse_source(text)
    monkeypatch.setattr(file_names, "MAX_LINES", 5)
    with pytest.raises(SourceError, match="more than 5 lines"):
        parse_source("@many.txt")


def test_predict_and_stream_point_to_each_other(here: Path, make_clip: Callable[..., Path]) -> None:
    write_images(here, "photo.jpg")
    with pytest.raises(SourceError) as caught:
        parse_source("photo.jpg")
    assert caught.value.hint == "deepfer predict photo.jpg --faces"
    (here / "inner").mkdir()
    write_images(here / "inner", "a.png")
    with pytest.raises(SourceError) as caught:
        parse_source("inner")
    assert "deepfer predict inner" in str(caught.value.hint)
    assert "deepfer stream 'inner/*.png'" in str(caught.value.hint)
    with pytest.raises(SourceError) as caught:
        find_images(["rtsp://me:secret@host/x"])
    assert caught.value.hint == "deepfer stream rtsp://***@host/x"
    make_clip("videos.mp4")
    (here / "videos").mkdir()
    (here / "videos.mp4").rename(here / "videos" / "a.mp4")
    with pytest.raises(SourceError, match="but 1 videos") as caught:
        find_images(["videos"])
    assert caught.value.hint == "deepfer stream videos"


def run(source: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """`deepfer stream` over one source as a program, and the summary of the source."""
    words = ["stream", source, "--detector", "whole", "--sink", "jsonl=out.jsonl", "--overwrite", "-q", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "deepfer_yolo", *words], capture_output=True, timeout=120, check=False, **options
    )
    return done.returncode, json.loads(done.stdout)["sources"][0]


def test_standard_input_and_fifos_are_sources(here: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip("clip.ts")
    code, source = run("-", input=clip.read_bytes())
    assert (code, source["source"], source["state"], source["processed"]) == (0, "-", "ended", 25)
    os.mkfifo(here / "pipe")
    with subprocess.Popen(["sh", "-c", f"cat {clip} > pipe"]) as writer:
        code, source = run("pipe")
        assert writer.wait(10) == 0
    assert (code, source["state"], source["processed"]) == (0, "ended", 25)
    with pytest.raises(SourceError, match="once only"):
        parse_sources(["-", "pipe:0"])


def test_what_comes_through_a_pipe_leads_nowhere(here: Path, make_clip: Callable[..., Path]) -> None:
    clip = make_clip("clip.ts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{clip}\n#EXT-X-ENDLIST\n"
    code, source = run("-", input=playlist.encode())
    assert (code, source["state"], source["captured"]) == (1, "failed", 0)


def animation(n: int, kind: str = "WEBP") -> bytes:
    """An animation of `n` frames, each brighter, that stand for 80 ms."""
    content = io.BytesIO()
    first, *rest = [Image.new("RGB", (40, 30), (20 * index + 10,) * 3) for index in range(n)]
    first.save(content, kind, save_all=True, append_images=rest, duration=80, lossless=True)
    return content.getvalue()


def test_an_animated_webp_plays_at_its_own_times(here: Path) -> None:
    (here / "a.webp").write_bytes(animation(4))
    found = grabs("a.webp")
    assert [time_s for time_s, _ in found] == pytest.approx([0, 0.08, 0.16, 0.24])
    assert [value for _, value in found] == pytest.approx([10, 30, 50, 70], abs=2)
    (here / "still.webp").write_bytes(animation(1))
    with pytest.raises(SourceReadError, match="still image; for those there is: deepfer predict"):
        grabs("still.webp")
    (here / "cut.webp").write_bytes(animation(4)[:-40])
    with pytest.raises(SourceReadError):
        grabs("cut.webp")


class Camera:
    """A handler that gives a JPEG a request, each brighter, and remembers when it was asked."""

    def __init__(self, jpeg: Callable[..., bytes], kind: str = "image/jpeg") -> None:
        self.asked: list[float] = []
        self._jpeg, self._kind = jpeg, kind
        self.answer: bytes | None = None

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(time.monotonic())
        body = self.answer if self.answer is not None else self._jpeg(40 + 10 * (len(self.asked) % 10))
        request.send_response(200)
        request.send_header("Content-Type", self._kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.mark.parametrize("path", ["snap.jpg", "cgi/snapshot?channel=1"])
def test_a_snapshot_url_is_polled_at_the_rate_that_is_stated(
    path: str, serve_http: Callable[..., str], make_jpeg: Callable[..., bytes], stopwatch: Callable[..., Any]
) -> None:
    camera = Camera(make_jpeg)
    (one,) = parse_source(f"{serve_http(camera)}/{path}")
    source = open_source(one, StreamConfig(poll_s=0.3))
    opening = len(camera.asked)
    began, watch, images = time.monotonic(), stopwatch(), []
    for grab in source.grabs():
        images.append(grab.image)
        if len(images) == 4:
            break
    assert time.monotonic() - began > 0.85
    assert watch() < 3
    assert len(camera.asked) == opening + 3
    assert (source.is_finite, source.has_pts, source.period_s) == (False, False, 0.3)
    means = [float(np.asarray(image).mean()) for image in images]
    assert len({round(mean) for mean in means}) == 4


def test_snapshots_run_in_the_engine_and_a_slow_rate_is_no_stall(
    serve_http: Callable[..., str], make_jpeg: Callable[..., bytes], run_of: Callable[..., Any]
) -> None:
    url = f"{serve_http(Camera(make_jpeg))}/snap.jpg"
    run = run_of([url], poll_s=1.0, stall_s=0.4, frozen_s=0.5, max_frames=3).start()
    (source,) = run.finish(60).sources
    assert "a snapshot every 1 s (--poll)" in str(run.sink.records)
    assert (source.state, source.counters.captured, source.reconnects) == ("ended", 3, 0)
    assert run.sink.states() == ["connecting", "live", "ended"]


def test_what_a_snapshot_url_may_give_is_bounded(
    serve_http: Callable[..., str], make_jpeg: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = Camera(make_jpeg)
    url = f"{serve_http(camera)}/snap.jpg"
    camera.answer = b"no image"
    with pytest.raises(SourceReadError, match="gives no image"):
        grabs(url)
    camera.answer = make_jpeg(60)
    monkeypatch.setattr(image_sources, "MAX_SNAPSHOT_BYTES", 100)
    with pytest.raises(SourceReadError, match="larger than"):
        grabs(url)

    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", url)
        request.end_headers()

    with pytest.raises(SourceReadError, match="private address"):
        grabs(f"{serve_http(redirect, '127.0.0.2')}/snap.jpg")


def test_a_stream_whose_name_is_an_images_is_read_as_a_stream(
    serve_http: Callable[..., str], make_jpeg: Callable[..., bytes]
) -> None:
    def stream(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=x")
        request.end_headers()
        for value in range(40, 100, 10):
            body = make_jpeg(value)
            request.wfile.write(b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            request.wfile.write(b"\r\n")

    assert len(grabs(f"{serve_http(stream)}/video.jpg")) >= 4
