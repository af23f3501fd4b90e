"""What comes and goes over a connection: uploads to `deepfer serve`, sources and sinks of `deepfer stream`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

kind = pytest.mark.fault
FORM = "multipart/form-data; boundary=x"
FILE = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc\r\n'


@pytest.fixture(scope="module")
def served(start_server: Callable[..., Any], linear_model: Path) -> Any:
    """A server that takes at most two images and 100 kB."""
    return start_server(linear_model, max_pictures=2, max_body_mb=0.1, rate_per_s=0)


def see_upload(fault: Any, served: Any, status: int, body: bytes, kind: str = FORM, **headers: str) -> None:
    """Send a body, and record the answer; the server must be alive after it."""
    with httpx.Client(base_url=served.url, timeout=60) as web:
        answer = web.post("/v1/predict", content=body, headers={"Content-Type": kind, **headers})
        assert answer.status_code == status, answer.text
        assert web.get("/healthz").status_code == 200
    assert "Traceback" not in served.log.read_text()
    fault.note(f"HTTP {status}, `{fault.shown(answer.json()['detail'])}`; the server goes on", {})


@kind("upload: overlong boundary", "a form whose boundary has 300 characters", "HTTP 400")
def test_boundary(fault: Any, served: Any) -> None:
    see_upload(fault, served, 400, b"", f"multipart/form-data; boundary={'x' * 300}")


@kind("upload: cut off", "a form that ends before its closing boundary", "HTTP 400")
def test_cut_form(fault: Any, served: Any) -> None:
    see_upload(fault, served, 400, FILE)


@kind("upload: too many files", "three files where two are allowed", "HTTP 413")
def test_too_many_files(fault: Any, served: Any) -> None:
    see_upload(fault, served, 413, FILE * 3 + b"--x--\r\n")


@kind("upload: wrong field", "a file in the field `other`", "HTTP 422")
def test_wrong_field(fault: Any, served: Any) -> None:
    see_upload(fault, served, 422, FILE.replace(b'"files"', b'"other"') + b"--x--\r\n")


@kind("upload: too large", "a body of 200 kB where 100 are allowed", "HTTP 413")
def test_too_large(fault: Any, served: Any) -> None:
    see_upload(fault, served, 413, FILE + bytes(200_000))


@kind("upload: no form", "JSON instead of a form", "HTTP 415")
def test_no_form(fault: Any, served: Any) -> None:
    see_upload(fault, served, 415, b"{}", "application/json")


@kind("upload: no image", "a form whose one file is a text", "HTTP 422")
def test_no_image(fault: Any, served: Any) -> None:
    see_upload(fault, served, 422, FILE + b"--x--\r\n")


@kind("upload: endless header", "a header of a part of 100,000 characters", "HTTP 400")
def test_endless_header(fault: Any, served: Any) -> None:
    see_upload(fault, served, 400, b"--x\r\nX: " + b"a" * 90_000 + b"\r\n\r\n\r\n--x--\r\n")


@kind("upload: other site", "a request that a page of another site sends", "HTTP 403")
def test_other_site(fault: Any, served: Any) -> None:
    see_upload(fault, served, 403, FILE + b"--x--\r\n", Origin="http://other.example")


@pytest.fixture
def clip(fault: Any) -> Path:
    """`clip.mp4` in the folder: 50 images, its index at the beginning."""
    import av
    import numpy as np

    path = Path(fault.folder) / "clip.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        track = container.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
        for index in range(50):
            pixels = np.random.RandomState(index).randint(0, 255, (64, 96, 3)).astype(np.uint8)
            container.mux(track.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(track.encode())
    return path


PLAIN = {"COLUMNS": "200"}
STREAM = ("stream", "clip.mp4", "-m", "model.onnx", "--detector", "whole")


@kind("source: ends within a frame", "a video without its second half", "what it has is kept; its state says truncated")
def test_cut_video(fault: Any, model: Path, clip: Path) -> None:
    content = clip.read_bytes()
    clip.write_bytes(content[: (content.index(b"mdat") + len(content)) // 2])
    fault.see(*STREAM, "--sink", "jsonl=out.jsonl", new=["out.jsonl"], says="breaks off at", environ=PLAIN)
    lines = (fault.folder / "out.jsonl").read_text().splitlines()
    assert '"truncated: clip.mp4 breaks off' in lines[-1]
    assert len(lines) > 5


@kind("source: not there", "`stream none.mp4`", "one clear line")
def test_no_source(fault: Any, model: Path) -> None:
    fault.see("stream", "none.mp4", *STREAM[2:], "--sink", "jsonl=out.jsonl")


@kind("source: no video", "a text called `clip.mp4`", "one clear line; its state says why")
def test_no_video(fault: Any, model: Path) -> None:
    (fault.folder / "clip.mp4").write_text("hello\n" * 100)
    fault.see(*STREAM, "--sink", "jsonl=out.jsonl", new=["out.jsonl"], says="clip.mp4", environ=PLAIN)


@kind("sink: file exists", "`--sink jsonl=old.jsonl` where that file has records", "refused; the file stays")
def test_sink_exists(fault: Any, model: Path, clip: Path) -> None:
    (fault.folder / "old.jsonl").write_text("{}\n")
    fault.see(*STREAM, "--sink", "jsonl=old.jsonl")


@kind("sink: the source itself", "`stream clip.mp4 --sink video=clip.mp4`", "refused; the source stays")
def test_sink_is_source(fault: Any, model: Path, clip: Path) -> None:
    fault.see(*STREAM, "--sink", "video=clip.mp4")


@kind("sink: unknown kind", "`--sink josnl=out`", "refused with the nearest kind")
def test_unknown_sink(fault: Any, model: Path, clip: Path) -> None:
    fault.see(*STREAM, "--sink", "josnl=out")


@contextmanager
def refusing() -> Iterator[str]:
    """The address of a server that answers 403 to everything."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    server.server_close()


@kind("sink: webhook that refuses", "a webhook answers 403, beside a file", "the file is whole; exit 1")
def test_refusing_webhook(fault: Any, model: Path, clip: Path) -> None:
    with refusing() as url:
        words = ("--sink", f"webhook={url}", "--sink", "jsonl=out.jsonl")
        fault.see(*STREAM, *words, new=["out.jsonl"], says="403", environ=PLAIN)
    lines = (fault.folder / "out.jsonl").read_text().splitlines()
    assert sum('"kind": "frame"' in line or '"frame"' in line for line in lines) >= 50
