"""What a playlist or a redirect may lead to, over real HTTP."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.stream.address import parse_source
from deepfer_yolo.stream.http_source import HttpOpener
from deepfer_yolo.stream.source_errors import SourceReadError
from deepfer_yolo.stream.sources import open_source


def send(request: BaseHTTPRequestHandler, body: bytes, kind: str = "application/octet-stream", **headers: str) -> None:
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture
def segment(make_clip: Callable[..., Path]) -> bytes:
    return make_clip("segment.ts").read_bytes()


def playlist(*urls: str) -> bytes:
    parts = "".join(f"#EXTINF:1.0,\n{url}\n" for url in urls)
    return f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n{parts}#EXT-X-ENDLIST\n".encode()


def count(url: str, **settings: Any) -> int:
    (address,) = parse_source(url)
    source = open_source(address, StreamConfig(open_timeout_s=3.0, read_timeout_s=3.0, **settings))
    try:
        return sum(grab.image is not None for grab in source.grabs())
    finally:
        source.close()


def test_hls_of_the_same_host_plays(serve_http: Callable[..., str], segment: bytes) -> None:
    def handle(request: BaseHTTPRequestHandler) -> None:
        send(request, playlist("one.ts") if request.path == "/list.m3u8" else segment)

    assert count(serve_http(handle) + "/list.m3u8") == 25


COUNT = """
import sys
from deepfer_yolo.config import StreamConfig
from deepfer_yolo.stream.address import parse_source
from deepfer_yolo.stream.sources import open_source
config = StreamConfig(input_option=dict(pair.split("=") for pair in sys.argv[2:]))
print(sum(grab.image is not None for grab in open_source(parse_source(sys.argv[1])[0], config).grabs()))
"""


@pytest.mark.parametrize("kind", ["mpegts", "fmp4"])
@pytest.mark.parametrize("asked", [[], ["http_persistent=1"]])
def test_hls_of_many_segments_plays_whatever_is_asked_of_connections(
    kind: str, asked: list[str], serve_http: Callable[..., str], make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    """In a process of its own: where connections are kept, FFmpeg ends the process at the second segment."""
    options = {"hls_time": "0.2", "hls_list_size": "0", "hls_segment_type": kind}
    assert make_clip("list.m3u8", container=options).read_text().count("#EXTINF") == 5
    url = serve_http(lambda request: send(request, (tmp_path / request.path.strip("/")).read_bytes())) + "/list.m3u8"
    program = [sys.executable, "-c", COUNT, url, *asked]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "25\n"), done.stderr


def test_hls_of_another_host_plays_only_where_it_is_allowed(serve_http: Callable[..., str], segment: bytes) -> None:
    asked: list[str] = []

    def other(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        send(request, segment)

    elsewhere = serve_http(other).replace("127.0.0.1", "localhost")
    base = serve_http(lambda request: send(request, playlist(f"{elsewhere}/one.ts")))
    with pytest.raises(SourceReadError) as caught:
        count(base + "/list.m3u8")
    assert caught.value.reason == "forbidden"
    assert asked == []
    assert count(base + "/list.m3u8", allow_host=("localhost",)) == 25


@pytest.mark.parametrize("target", ["file:///etc/hostname", "/etc/hostname", "concat:/etc/hostname"])
def test_hls_does_not_reach_local_files(target: str, serve_http: Callable[..., str]) -> None:
    base = serve_http(
        lambda request: send(request, playlist(target)) if request.path == "/list.m3u8" else request.send_error(404)
    )
    with pytest.raises(SourceReadError):
        count(base + "/list.m3u8")


def redirecting(serve_http: Callable[..., str], target: str) -> str:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return serve_http(handle)


@pytest.mark.parametrize(
    "form", ["http://localhost:{port}/x", "http://[::ffff:127.0.0.1]:{port}/x", "http://0x7f000001:{port}/x"]
)
def test_redirects_to_private_addresses_are_refused_before_a_byte_is_sent(
    form: str, serve_http: Callable[..., str]
) -> None:
    asked: list[str] = []
    inside = serve_http(lambda request: (asked.append(request.path), send(request, b"secret")))
    url = redirecting(serve_http, form.format(port=inside.rpartition(":")[2]))
    with pytest.raises(SourceReadError) as caught:
        HttpOpener(url + "/a", StreamConfig(read_timeout_s=2)).open(url + "/a", 1, {})
    assert caught.value.reason in ("forbidden", "network", "refused")
    assert asked == []


def test_redirects_to_other_schemes_are_refused(serve_http: Callable[..., str]) -> None:
    url = redirecting(serve_http, "file:///etc/passwd") + "/a"
    with pytest.raises(SourceReadError) as caught:
        HttpOpener(url, StreamConfig(read_timeout_s=2)).open(url, 1, {})
    assert caught.value.reason == "forbidden"


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
def test_credentials_of_the_url_are_used_and_kept_from_others(
    scheme: str, serve_http: Callable[..., str], make_clip: Callable[..., Path]
) -> None:
    clip = make_clip(container={"movflags": "faststart"}).read_bytes()
    seen: list[str] = []

    def handle(request: BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Authorization", "")
        seen.append(given)
        right = base64.b64encode(b"ann:p@ss").decode()
        if (scheme == "Basic" and given == f"Basic {right}") or (
            scheme == "Digest" and given.startswith('Digest username="ann"')
        ):
            send(request, clip)
            return
        request.send_response(401)
        request.send_header("WWW-Authenticate", f'{scheme} realm="camera", nonce="abc", qop="auth"')
        request.send_header("Content-Length", "0")
        request.end_headers()

    url = serve_http(handle).replace("http://", "http://ann:p%40ss@") + "/clip.mp4"
    assert count(url) == 25
    with pytest.raises(SourceReadError) as caught:
        count(url.replace("p%40ss", "wrong") if scheme == "Basic" else url.replace("ann", "bob"))
    assert caught.value.reason == "unauthorised"
    assert "wrong" not in str(caught.value)


def test_files_over_http_can_be_sought(serve_http: Callable[..., str], make_clip: Callable[..., Path]) -> None:
    content = make_clip().read_bytes()
    assert content.index(b"moov") > content.index(b"mdat")

    def handle(request: Any) -> None:
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        request.send_response(206 if wanted else 200)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start:])

    assert count(serve_http(handle) + "/clip.mp4") == 25
