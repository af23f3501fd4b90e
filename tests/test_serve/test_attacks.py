"""What strangers may try: each is refused, and the server answers afterwards."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.records import Image

Connect = Callable[[], socket.socket]
HEAD_S, BODY_S, BODY_MB = 3.0, 2.5, 2


@pytest.fixture(scope="module")
def strict(start_server: Callable[..., Any], linear_model: Path) -> Any:
    """A server with tight limits, so that the attacks need not be large."""
    return start_server(
        linear_model, head_timeout_s=HEAD_S, body_timeout_s=BODY_S, max_body_mb=BODY_MB, max_uploads=6, max_cameras=1,
        rate_per_s=0, max_megapixels=4, max_video_s=2, worker_memory_mb=200, max_connections=300,
    )  # fmt: skip


@pytest.fixture
def alive(strict: Any) -> Iterator[Any]:
    """The strict server; after the test it must still answer, with all its workers."""
    before = len(strict.log.read_text())
    yield strict
    deadline = time.monotonic() + 60
    with httpx.Client(base_url=strict.url, timeout=5) as client:
        while "\ndeepfer_workers 2.0\n" not in client.get("/metrics").text:
            assert time.monotonic() < deadline, "a decode worker was not replaced"
            time.sleep(0.1)
        assert client.get("/readyz").status_code == 200
    assert "Exception in ASGI application" not in strict.log.read_text()[before:]


@pytest.fixture
def web(alive: Any) -> Iterator[httpx.Client]:
    """A client of the strict server."""
    with httpx.Client(base_url=alive.url, timeout=60, limits=httpx.Limits(max_connections=200)) as client:
        yield client


@pytest.fixture
def connect(alive: Any) -> Iterator[Callable[[], socket.socket]]:
    """A function that opens a raw connection to the strict server."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection(("127.0.0.1", alive.port), timeout=15))


def upload_head(more: str) -> bytes:
    """The head of an upload, with more headers."""
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x"
    return f"{head}\r\n{more}\r\n\r\n".encode()


def status_of(connection: socket.socket) -> int:
    """The status of the answer on a raw connection; 0 where it was closed without one."""
    try:
        head = connection.recv(4096)
    except ConnectionResetError:
        return 0
    return int(head.split()[1]) if head else 0


@pytest.mark.parametrize(
    ("more", "refusals"),
    [("", (413, 0)), ("Origin: http://evil.example\r\n", (403, 0))],
    ids=["too large", "not let in"],
)
def test_an_endless_chunked_upload_is_cut_off(
    alive: Any, connect: Connect, more: str, refusals: tuple[int, int]
) -> None:
    connection = connect()
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    connection.sendall(upload_head(f"{more}Transfer-Encoding: chunked") + b"%x\r\n%s\r\n" % (len(part), part))
    chunk, sent = b"40000\r\n" + bytes(0x40000) + b"\r\n", 0
    try:
        while sent < 2_000_000_000:
            connection.sendall(chunk)
            sent += 0x40000
    except (ConnectionResetError, BrokenPipeError):
        pass
    # The kernel's buffers on both sides hold a few megabytes more than the limit.
    assert sent < 40_000_000
    assert status_of(connection) in refusals


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(alive: Any, connect: Connect) -> None:
    connection = connect()
    connection.sendall(upload_head("Content-Length: 2000000000"))
    began = time.monotonic()
    assert status_of(connection) == 413
    assert time.monotonic() - began < BODY_S


def test_an_upload_under_way_is_in_memory_alone(alive: Any, web: httpx.Client, connect: Connect) -> None:
    connection = connect()
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    connection.sendall(upload_head("Content-Length: 1900000") + part + bytes(1_700_000))
    deadline = time.monotonic() + BODY_S
    while not re.search(r"\ndeepfer_upload_bytes_in_flight 1\.[67]\d*e\+06\n", web.get("/metrics").text):
        assert time.monotonic() < deadline, "the bytes did not arrive"
    files = [str(link.readlink()) for link in Path(f"/proc/{alive.process.pid}/fd").iterdir()]
    assert [name for name in files if name.endswith("(deleted)")] == []  # as a temporary file is


def test_ten_thousand_form_fields_are_refused(alive: Any, web: httpx.Client) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\nv\r\n'
    body = b"".join(part % index for index in range(10_000)) + b"--x--\r\n"
    answer = web.post("/v1/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["detail"]) == (413, "the form has more than 8 text fields")


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"", 415),
        ("multipart/form-data; boundary=x", b"garbage", 400),
        (f"multipart/form-data; boundary={'x' * 300}", b"", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc\r\n--x\r\nContent-Disp',
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n\r\n--x--\r\n", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--x--\r\n',
            422,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\nabc\r\n--x--\r\n',
            422,
        ),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
    ],
)
def test_forms_that_are_none_are_refused(
    alive: Any, web: httpx.Client, content_type: str, body: bytes, status: int
) -> None:
    answer = web.post("/v1/predict", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_slow_heads_are_cut_off_while_others_are_served(alive: Any, web: httpx.Client, connect: Connect) -> None:
    connections = [connect() for _ in range(50)]
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-")
    began, closed = time.monotonic(), 0
    while time.monotonic() - began < HEAD_S + 3 and closed < len(connections):
        assert web.get("/healthz").status_code == 200
        closed = 0
        for connection in connections:
            try:
                connection.sendall(b"a")
            except OSError:
                closed += 1
        time.sleep(0.1)
    assert closed == len(connections)


def test_endless_heads_are_cut_off(alive: Any, connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    sent = 0
    try:
        while sent < 20_000_000:
            connection.sendall(b"X-A: " + b"a" * 10_000 + b"\r\n")
            sent += 10_000
    except OSError:
        pass
    assert sent < 10_000_000


def test_a_slow_body_times_out(alive: Any, connect: Connect) -> None:
    connection = connect()
    connection.sendall(upload_head("Content-Length: 1000") + b"--x")
    began = time.monotonic()
    assert status_of(connection) == 408
    assert BODY_S - 0.2 < time.monotonic() - began < BODY_S + 3


def test_a_refused_body_that_goes_on_for_ever_is_cut_off(alive: Any, connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000000\r\n\r\n")
    assert status_of(connection) == 421
    began = time.monotonic()
    try:
        while time.monotonic() - began < 20:
            connection.sendall(b"a")
            time.sleep(0.1)
    except OSError:
        pass
    assert time.monotonic() - began < BODY_S + 5


def test_who_does_not_read_the_answer_is_cut_off_and_a_quiet_camera_is_not(alive: Any, connect: Connect) -> None:
    camera = connect()
    camera.sendall(upgrade(alive))
    assert status_of(camera) == 101
    connection = connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    # Many answers of a hundred kilobytes are more than the kernel holds for both sides.
    connection.sendall(b"GET /source.zip HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
    time.sleep(BODY_S + 3)
    received = 0
    try:
        while piece := connection.recv(1_000_000):
            received += len(piece)
    except ConnectionResetError:
        pass
    assert 0 < received < 20_000_000
    camera.sendall(b"\x89\x80\0\0\0\0")  # a ping
    assert camera.recv(100) == b"\x8a\x00"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", "", "localhost@evil.example", "192.168.1.9"],
)
def test_a_wrong_host_is_refused(alive: Any, web: httpx.Client, host: str) -> None:
    answer = web.get("/v1/model", headers={"Host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://evil.example:{port}"])
def test_requests_of_other_sites_are_refused(alive: Any, web: httpx.Client, connect: Connect, origin: str) -> None:
    headers = {"Origin": origin.format(port=alive.port)}
    assert web.post("/v1/predict", headers=headers).status_code == 403
    connection = connect()
    connection.sendall(upgrade(alive, f"Origin: {headers['Origin']}\r\n"))
    assert status_of(connection) == 403


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2fapp.py",
        "/static/../app.py",
        "/..%2f..%2fetc/passwd",
        "/static/%2e%2e/%2e%2e/config.py",
        "//etc/passwd",
        "/static/",
        "/%00",
    ],
)
def test_paths_lead_nowhere(alive: Any, connect: Connect, path: str) -> None:
    connection = connect()
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status_of(connection) in (400, 404)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><image href="file:///etc/passwd"/></svg>'


NO_IMAGES = {
    "svg": SVG, "html": b"<html><script>alert(1)</script></html>", "pdf": b"%PDF-1.4", "zip": b"PK\x03\x04",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n", "zeros": bytes(100), "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("content", NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_image_is_refused(alive: Any, web: httpx.Client, content: bytes) -> None:
    answer = web.post(
        "/v1/predict", files={"files": ("<script>alert(1)</script>.png", content)}, params={"faces": "true"}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.headers["x-content-type-options"] == "nosniff"


def png_of_zeros(width: int, height: int) -> bytes:
    """A PNG with one bit a pixel: small as a file, large in memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", packed)
        + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_before_it_is_decoded(alive: Any, web: httpx.Client) -> None:
    for side, said in (
        (2400, "2400×2400 pixels are more than the limit of 4,000,000"),
        (16_000, "the image has more than 4,000,000 pixels"),
    ):
        bomb = png_of_zeros(side, side)
        assert len(bomb) < 100_000
        answer = web.post("/v1/predict", files={"files": ("bomb.png", bomb)})
        assert (answer.status_code, answer.json()["detail"]) == (413, said)
    assert peak_worker_mb(alive) < 400


def test_a_large_image_within_the_limits_is_answered(alive: Any, web: httpx.Client) -> None:
    answer = web.post("/v1/predict", files={"files": ("large.png", png_of_zeros(1999, 1999))}, timeout=30)
    assert answer.status_code == 200


def peak_worker_mb(server: Any) -> float:
    """The largest resident memory that any decode worker of the server ever had."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    peaks = [
        line
        for pid in children
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    assert peaks
    return max(int(line.split()[1]) for line in peaks) / 1000


def test_a_video_that_is_too_long_is_refused(
    alive: Any, web: httpx.Client, scene: list[Image], write_video: Callable[..., bytes]
) -> None:
    answer = web.post("/v1/video", files={"files": ("long.mp4", write_video(scene * 2, fps=4))}, timeout=60)
    assert (answer.status_code, answer.json()["detail"]) == (413, "the video is longer than 2 s (max_video_s)")


def test_two_hundred_parallel_uploads_are_served_or_told_to_wait(
    alive: Any, web: httpx.Client, faces: list[Image], png: Callable[[Image], bytes]
) -> None:
    content = png(faces[0])
    barrier = threading.Barrier(200)

    def upload(_: int) -> tuple[int, str | None]:
        barrier.wait()
        answer = web.post("/v1/predict", files=[("files", ("a.png", content))] * 4, timeout=60)
        return answer.status_code, answer.headers.get("retry-after")

    with ThreadPoolExecutor(200) as pool:
        answers = set(pool.map(upload, range(200)))
    assert answers == {(200, None), (429, "1")}


def upgrade(server: Any, more: str = "") -> bytes:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = f"GET /v1/camera HTTP/1.1\r\nHost: localhost:{server.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    return f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n".encode()


MALFORMED = {
    "not masked": b"\x82\x01a",
    "reserved bits": b"\xf2\x81\x00\x00\x00\x00a",
    "unknown opcode": b"\x83\x81\x00\x00\x00\x00a",
    "says it is huge": b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"\x00" * 4,
    "fragmented ping": b"\x09\x81\x00\x00\x00\x00a",
    "continues nothing": b"\x80\x81\x00\x00\x00\x00a",
    "text": b"\x81\x81\x00\x00\x00\x00a",
    "text that is not UTF-8": b"\x81\x81\x00\x00\x00\x00\xff",
}


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED)
def test_malformed_websocket_frames_end_the_connection(alive: Any, connect: Connect, frame: bytes) -> None:
    connection = connect()
    connection.sendall(upgrade(alive))
    assert status_of(connection) == 101
    connection.sendall(frame)
    received = connection.recv(4096)
    assert received[:1] == b"\x88"


def test_a_broken_upgrade_is_refused(alive: Any, connect: Connect) -> None:
    connection = connect()
    connection.sendall(upgrade(alive).replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""))
    assert status_of(connection) == 400


def test_garbage_instead_of_http_is_refused(alive: Any, connect: Connect) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 1000 + b"X\r\n\r\n",
    ):
        connection = connect()
        connection.sendall(garbage)
        assert status_of(connection) in (400, 0)


def test_an_image_that_takes_a_worker_down_costs_one_request(
    alive: Any, web: httpx.Client, faces: list[Image], png: Callable[[Image], bytes]
) -> None:
    children = Path(f"/proc/{alive.process.pid}/task/{alive.process.pid}/children").read_text().split()
    for pid in children:
        os.kill(int(pid), signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(web.post, "/v1/predict", files={"files": ("a.png", png(faces[0]))}, timeout=30)
            for _ in range(2)
        ]
        time.sleep(0.5)
        os.kill(int(children[0]), signal.SIGKILL)
        os.kill(int(children[1]), signal.SIGCONT)
        statuses = sorted(future.result().status_code for future in waiting)
    assert statuses == [200, 422]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "WEBP", "PPM"])
def test_cut_and_scrambled_images_of_every_kind_are_refused_or_read(
    web: httpx.Client, faces: list[Image], kind: str
) -> None:
    import random

    from PIL import Image as PillowImage

    content = io.BytesIO()
    PillowImage.fromarray(faces[0]).save(content, kind)
    chance = random.Random(kind)
    scrambled = []
    for _ in range(12):
        data = bytearray(content.getvalue())
        for _ in range(6):
            data[chance.randrange(min(len(data), 400))] = chance.randrange(256)
        scrambled.append(("files", ("a", bytes(data[: chance.randrange(8, len(data) + 1)]))))
    assert web.post("/v1/predict", files=scrambled, params={"faces": "true"}).status_code in (200, 413, 422)
