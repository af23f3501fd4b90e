"""`deepfer serve`: what it refuses to start with, and how it stops."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx


def test_other_machines_are_let_in_only_with_a_token(
    deepfer: Callable[..., Any], linear_model: Path, monkeypatch: Any
) -> None:
    monkeypatch.delenv("DEEPFER_TOKEN", raising=False)
    refused = deepfer("serve", "-m", linear_model, "--host", "0.0.0.0")
    assert refused.returncode == 1
    assert "--host 0.0.0.0 lets other machines in, so a token is needed" in refused.stderr
    assert "DEEPFER_TOKEN" in refused.stderr
    behind_a_proxy = deepfer("serve", "-m", linear_model, "--port", 0, "--allow-host", "box.example.org")
    assert "--allow-host box.example.org lets other machines in, so a token is needed" in behind_a_proxy.stderr
    assert "less than 16" in deepfer("serve", "-m", linear_model, "--host", "0.0.0.0", "--token", "short").stderr


def test_a_taken_port_and_a_foreign_address_are_clear_errors(deepfer: Callable[..., Any], linear_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused = deepfer("serve", "-m", linear_model, "--port", other.getsockname()[1])
    assert (refused.returncode, "already in use" in refused.stderr) == (1, True)
    foreign = deepfer("serve", "-m", linear_model, "--host", "203.0.113.1", "--token", "0123456789abcdef")
    assert (foreign.returncode, "203.0.113.1" in foreign.stderr) == (1, True)


def test_a_missing_model_source_or_detector_is_a_clear_error(
    deepfer: Callable[..., Any], linear_model: Path, tmp_path: Path
) -> None:
    assert "no such model file" in deepfer("serve", "-m", tmp_path / "none.onnx").stderr
    assert "no such source" in deepfer("serve", "-m", linear_model, "--source", "nowhere.mp4").stderr
    assert (
        "no such face detector file"
        in deepfer("serve", "-m", linear_model, "--port", 0, "--face-model", tmp_path / "none.onnx").stderr
    )


def test_a_signal_lets_the_request_under_way_finish_and_exits_with_0(
    start_server: Callable[..., Any], linear_model: Path
) -> None:
    served = start_server(linear_model, workers=1)
    answers: list[int] = []
    content = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'

    def dribble() -> Any:
        yield content
        time.sleep(1.5)
        yield b"text\r\n--x--\r\n"

    def post() -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answers.append(
            httpx.post(f"{served.url}v1/predict", content=dribble(), headers=headers, timeout=30).status_code
        )

    thread = threading.Thread(target=post)
    thread.start()
    time.sleep(0.7)
    served.process.send_signal(signal.SIGTERM)
    thread.join(30)
    assert answers == [422]
    assert served.process.wait(20) == 0
    assert "Traceback" not in served.log.read_text()


def test_a_token_that_no_header_carries_and_a_name_with_a_port_are_clear_errors(
    deepfer: Callable[..., Any], linear_model: Path
) -> None:
    for words, said in (
        (("--token", "ümlaut-0123456789"), "characters that a header cannot carry"),
        (("--token", "0123456789 abcdef"), "characters that a header cannot carry"),
        (("--host", "", "--token", "0123456789abcdef"), "--host is empty"),
        (("--allow-host", "box.example.org:8000"), "'box.example.org:8000' is no host name"),
        (("--allow-host", "http://box"), "'http://box' is no host name"),
    ):
        refused = deepfer("serve", "-m", linear_model, "--port", 0, *words)
        assert (refused.returncode, said in refused.stderr) == (1, True), refused.stderr


def test_a_stop_that_is_asked_for_twice_and_outlasts_its_time_is_still_clean(
    start_server: Callable[..., Any], linear_model: Path
) -> None:
    served = start_server(linear_model, workers=1, stop_timeout_s=1)
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as upload:
        form = "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000"
        head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n{form}\r\n\r\n--x"
        upload.sendall(head.encode())
        time.sleep(0.5)
        for _ in range(2):
            served.process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        answer = b""
        while piece := upload.recv(4096):  # head and body may come apart
            answer += piece
        assert answer.split()[1] == b"503"
        assert b"the server stops" in answer
    assert served.process.wait(20) == 0
    log = served.log.read_text()
    assert "stopping; what is under way has 1 s" in log
    assert "Traceback" not in log


def test_a_source_that_fails_is_said_where_the_server_was_started(
    start_server: Callable[..., Any], linear_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    (tmp_path / "junk.mp4").write_bytes(b"no video" * 100)
    served = start_server(linear_model, "--source", tmp_path / "junk.mp4", workers=1, detector="auto")
    deadline = time.monotonic() + 60
    while "is failed: unreadable" not in served.log.read_text():
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.1)
    row = httpx.get(f"{served.url}v1/sources").json()["sources"][0]
    assert (row["name"], row["state"]) == ("junk.mp4", "failed")
    assert str(tmp_path) not in row["reason"]
    assert "junk.mp4" in row["reason"]
