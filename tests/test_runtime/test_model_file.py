"""Pulled files: fetched from a local server, pinned by SHA-256, never half there."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deepfer_yolo.errors import ModelError
from deepfer_yolo.faces.detect import find_face_model
from deepfer_yolo.runtime import model_file
from deepfer_yolo.runtime.model_file import check_pin, digest

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server of CONTENT at /good, of other bytes at /bad, of an endless file at /endless; and the paths that were
    asked for.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(1000 if self.path == "/endless" else 1):
                    self.wfile.write(CONTENT if self.path == "/good" else CONTENT[::-1])
            except ConnectionError:
                asked.append("hung up")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    pinned = replace(model_file.PULLABLE["yunet"], sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
    monkeypatch.setitem(model_file.PULLABLE, "yunet", pinned)
    return tmp_path


def test_a_pulled_file_is_found_and_not_fetched_twice(server: tuple[str, list[str]]) -> None:
    base, asked = server
    assert find_face_model() is None
    path = model_file.pull("yunet", url=f"{base}/good")
    assert path.read_bytes() == CONTENT
    assert find_face_model() == path
    assert model_file.pull("yunet", url=f"{base}/good") == path
    assert asked == ["/good"]
    path.write_bytes(b"damaged")
    assert model_file.pull("yunet", url=f"{base}/good").read_bytes() == CONTENT


@pytest.mark.parametrize("page", ["bad", "endless", "missing"])
def test_what_is_wrong_is_never_kept(page: str, server: tuple[str, list[str]], home: Path) -> None:
    with pytest.raises(ModelError):
        model_file.pull("yunet", url=f"{server[0]}/{page}")
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_unknown_names_and_strange_mirrors_are_refused() -> None:
    with pytest.raises(ModelError, match="yunnet"):
        model_file.pull("yunnet")
    with pytest.raises(ModelError, match="file:///etc/passwd"):
        model_file.pull("yunet", url="file:///etc/passwd")


def test_the_pinned_hash_is_that_of_the_file_that_was_measured(
    shared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    file = shared_dir / "models" / model_file.PULLABLE["yunet"].file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == model_file.PULLABLE["yunet"].sha256
    assert file.stat().st_size == model_file.PULLABLE["yunet"].size


def test_folders_follow_the_variables_and_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("DEEPFER_CACHE", "DEEPFER_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    if sys.platform == "linux":
        assert model_file.cache_dir() == tmp_path / "c" / "deepfer"
        assert model_file.store_dir() == tmp_path / "d" / "deepfer" / "models"
    monkeypatch.setenv("DEEPFER_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path / "home"))
    assert model_file.cache_dir() == tmp_path / "own"
    assert model_file.store_dir() == tmp_path / "home" / "models"


def test_a_model_can_be_pinned(exported: Path) -> None:
    check_pin(exported, None)
    check_pin(exported, digest(exported)[:16])
    for wrong in ("0" * 64, digest(exported)[:8], ""):
        with pytest.raises(ModelError, match="has the SHA-256"):
            check_pin(exported, wrong)
