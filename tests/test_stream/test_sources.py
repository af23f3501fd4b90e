"""Every way a source may refuse or disappoint, and the record or reason it must give."""

from __future__ import annotations

import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.stream.address import parse_source
from deepfer_yolo.stream.source_errors import SourceReadError
from deepfer_yolo.stream.sources import open_source


def reason_of(target: str, timeout_s: float = 1.0) -> str:
    """Open and read a source that must fail; the reason it gives."""
    (address,) = parse_source(target)
    source = None
    try:
        source = open_source(address, StreamConfig(open_timeout_s=timeout_s, read_timeout_s=timeout_s))
        for _ in source.grabs():
            pass
    except SourceReadError as error:
        return error.reason
    finally:
        if source is not None:
            source.close()
    return "nothing was wrong"


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield listener.getsockname()[1]


@pytest.fixture
def rtsp_refusal() -> Iterator[Callable[[str], int]]:
    """A function that starts an RTSP server which answers everything with one status line."""
    servers: list[socketserver.ThreadingTCPServer] = []

    def start(status: str) -> int:
        class Refuse(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                number = "0"
                for line in self.rfile:
                    if line.startswith(b"CSeq"):
                        number = line.decode().split()[1]
                    if line == b"\r\n":
                        extra = 'WWW-Authenticate: Basic realm="x"\r\n' if status.startswith("401") else ""
                        self.wfile.write(f"RTSP/1.0 {status}\r\nCSeq: {number}\r\n{extra}\r\n".encode())

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuse)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_black_hole_times_out(scheme: str, black_hole: int, stopwatch: Callable[..., Any]) -> None:
    watch = stopwatch()
    assert reason_of(f"{scheme}://127.0.0.1:{black_hole}/x", 0.5) == "timeout"
    assert watch() < 2.5


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp"])
def test_a_closed_port_refuses(scheme: str, free_port: Callable[[], int]) -> None:
    assert reason_of(f"{scheme}://127.0.0.1:{free_port()}/x") == "refused"


@pytest.mark.parametrize(("status", "reason"), [("401 Unauthorized", "unauthorised"), ("404 Not Found", "not-found")])
def test_rtsp_refusals(status: str, reason: str, rtsp_refusal: Callable[[str], int]) -> None:
    assert reason_of(f"rtsp://user:secret@127.0.0.1:{rtsp_refusal(status)}/x") == reason


@pytest.mark.parametrize(
    ("code", "reason"), [(401, "unauthorised"), (403, "unauthorised"), (404, "not-found"), (500, "network")]
)
def test_http_refusals(code: int, reason: str, serve_http: Callable[..., str]) -> None:
    assert reason_of(serve_http(lambda request: request.send_error(code)) + "/x.mp4") == reason


def test_a_codec_that_nobody_knows(make_clip: Callable[..., Path]) -> None:
    path = make_clip()
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zz99").replace(b"avcC", b"zzzC"))
    assert reason_of(str(path)) in ("codec", "unreadable")


def test_audio_only_and_empty_and_text_and_truncated_files(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    import av

    audio = tmp_path / "audio.mp4"
    with av.open(str(audio), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason_of(str(audio)) == "no-video"
    for name, content in (
        ("empty.mp4", b""),
        ("text.mp4", b"not a video\n" * 50),
        ("cut.mp4", make_clip().read_bytes()[:900]),
    ):
        (tmp_path / name).write_bytes(content)
        assert reason_of(str(tmp_path / name)) == "unreadable", name


def test_a_file_without_images_fails_as_unreadable(run_of: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "none.y4m"
    path.write_bytes(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg\n")
    run = run_of([str(path)]).start()
    summary = run.finish()
    assert run.sink.states()[-1] == "failed"
    assert summary.exit_code == 1
    assert summary.sources[0].reason in ("unreadable", "no-video")


def test_a_file_cut_short_gives_what_it_has_and_says_so(
    run_of: Callable[..., Any], make_clip: Callable[..., Path]
) -> None:
    path = make_clip(times=[i / 25 for i in range(75)], container={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2])
    run = run_of([str(path)]).start()
    summary = run.finish()
    (source,) = summary.sources
    assert 20 < source.counters.processed < 60
    assert (source.state, source.reason) == ("failed", "truncated")
    assert summary.exit_code == 1


def test_time_stamps_are_the_files_own(run_of: Callable[..., Any], make_clip: Callable[..., Path]) -> None:
    times = (0.0, 0.04, 0.1, 0.5, 0.52, 1.7, 1.74)
    run = run_of([str(make_clip(times=times))]).start()
    run.finish()
    assert [result.frame.time_s for result in run.sink.results] == pytest.approx(times, abs=1e-3)
    assert {result.frame.clock for result in run.sink.results} == {"pts"}
    assert {result.age_ms for result in run.sink.results} == {None}


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuv420p10le"])
def test_pixel_formats_give_the_same_colours(pix_fmt: str, tmp_path: Path) -> None:
    import av

    colour = np.zeros((48, 64, 3), np.uint8)
    colour[:, :32], colour[:, 32:] = (200, 60, 30), (40, 90, 180)
    path = tmp_path / "colour.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "4", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        container.mux(stream.encode(av.VideoFrame.from_ndarray(colour, format="rgb24")))
        container.mux(stream.encode(None))
    (address,) = parse_source(str(path))
    (grab,) = open_source(address, StreamConfig()).grabs()
    assert grab.image is not None
    for columns, wanted in ((slice(4, 28), (200, 60, 30)), (slice(36, 60), (40, 90, 180))):
        assert np.abs(grab.image[4:44, columns].reshape(-1, 3).mean(axis=0) - wanted).max() < 6


def test_odd_sizes_and_rotated_files_come_out_whole_and_upright(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    odd = make_clip("odd.mkv", size=(63, 47), pix_fmt="yuv444p")
    (address,) = parse_source(str(odd))
    assert next(open_source(address, StreamConfig()).grabs()).image.shape == (47, 63, 3)

    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg program to write a rotation with")
    import av

    plain, rotated = tmp_path / "plain.mp4", tmp_path / "rotated.mp4"
    pattern = np.full((48, 96, 3), 128, np.uint8)
    pattern[:, :24] = 250
    with av.open(str(plain), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pattern, format="rgb24")))
        container.mux(stream.encode(None))
    subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-i", str(plain), "-metadata:s:v:0", "rotate=90", "-c", "copy", str(rotated)],
        check=True,
    )
    (address,) = parse_source(str(rotated))
    image = next(open_source(address, StreamConfig()).grabs()).image
    assert image is not None
    assert image.shape == (96, 48, 3)
    seen = tmp_path / "seen.png"
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", str(rotated), "-frames:v", "1", str(seen)], check=True)
    wanted = load_image(seen)
    assert np.abs(image.astype(int) - wanted).mean() < 2
    assert np.abs(image[::-1].astype(int) - wanted).mean() > 20


def test_mjpeg_counts_broken_parts_and_stamps_by_arrival(
    run_of: Callable[..., Any], serve_http: Callable[..., str], make_jpeg: Any
) -> None:
    def play(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        request.end_headers()
        for index in range(12):
            body = make_jpeg(20 * index)
            body = body[: len(body) // 3] if index in (4, 7) else body
            request.wfile.write(
                b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body + b"\r\n"
            )
            request.wfile.flush()
            time.sleep(0.03)

    run = run_of([serve_http(play) + "/stream"], policy="lossless", retries=0).start()
    summary = run.finish()
    (source,) = summary.sources
    assert source.counters.captured == 12
    assert source.counters.corrupt == 2
    assert source.counters.processed == 10
    assert {result.frame.clock for result in run.sink.results} == {"arrival"}
    assert abs(run.sink.results[0].frame.time_s - time.time()) < 30
    assert (source.state, source.reason) == ("failed", "eof")


def test_an_http_camera_that_dies_within_a_chunk_is_lost_and_tried_again(
    run_of: Callable[..., Any], serve_http: Callable[..., str], make_jpeg: Any
) -> None:
    def play(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for index in range(6):
            body = make_jpeg(20 * index)
            part = b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body + b"\r\n"
            request.wfile.write(b"%x\r\n" % len(part) + part + b"\r\n")
        request.wfile.write(b"400\r\nnot all of it")

    run = run_of([serve_http(play) + "/stream"], policy="lossless", retries=1).start()
    summary = run.finish()
    (source,) = summary.sources
    assert run.sink.states() == ["connecting", "live", "lost", "connecting", "live", "failed"]
    assert (source.state, source.reason, summary.exit_code) == ("failed", "network", 1)
    assert source.reconnects == 1


def test_a_reader_that_raises_anything_is_a_lost_source(
    run_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a library's mistake")

    monkeypatch.setattr("deepfer_yolo.stream.reader.open_source", broken)
    run = run_of(["testsrc=size=64x48"], retries=0).start()
    summary = run.finish()
    assert run.sink.states() == ["connecting", "failed"]
    assert summary.exit_code == 1


def test_what_is_no_source_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    from deepfer_yolo.errors import SourceError

    for text in ("nowhere.mp4", str(tmp_path), "file:///etc/passwd", "gopher://host/x", ""):
        with pytest.raises(SourceError):
            parse_source(text)


def test_a_playlist_on_disk_does_not_reach_the_network(tmp_path: Path, serve_http: Callable[..., str]) -> None:
    asked: list[str] = []
    base = serve_http(lambda request: (asked.append(request.path), request.send_error(404)))
    path = tmp_path / "innocent.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{base}/segment.ts\n#EXT-X-ENDLIST\n")
    reason_of(str(path))
    assert asked == []
