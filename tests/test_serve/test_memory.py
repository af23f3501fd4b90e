"""What large uploads took is given back, and does not stay with the process for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.serve.limits import return_memory


def test_memory_falls_after_large_bodies(start_server: Callable[..., Any], linear_model: Path) -> None:
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        pytest.skip("resident memory is read from /proc")
    server = start_server(linear_model, max_body_mb=60, rate=0)

    def resident_mb() -> float:
        return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6

    def upload(_: int) -> int:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            return client.post("/v1/predict", files={"files": ("junk.png", b"\x89PNG" + bytes(40_000_000))}).status_code

    before = resident_mb()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(upload, range(8))) <= {413, 422, 429}
    deadline = time.monotonic() + 20
    while resident_mb() > before + 25:
        assert time.monotonic() < deadline, f"{before:.0f} MB before, {resident_mb():.0f} MB after"
        time.sleep(0.2)


def test_where_the_allocator_cannot_be_asked_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("ctypes.CDLL", asked.append)  # and gives None, which has no malloc_trim
    return_memory()
    assert asked == [None]
