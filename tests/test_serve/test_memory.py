"""What large uploads took is given back, and does not stay with the process for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.serve.middleware import return_memory


def test_memory_falls_after_large_bodies(start_server: Callable[..., Any], linear_model: Path) -> None:
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("resident memory is read from /proc")
    server = start_server(linear_model, max_body_mb=60, rate_per_s=0)

    def memory_mb(key: str) -> float:
        lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024 / 1e6

    def resident_mb() -> float:
        return memory_mb("VmRSS")

    # Many at a time, in small pieces: large ones the allocator gives back by itself; of these it keeps 80 MB and more.
    body = [("files", (f"{index}.png", b"\x89PNG" + bytes(100_000))) for index in range(60)]

    def upload(_: int) -> int:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for _ in range(100):
                status = client.post("/v1/predict", files=body).status_code
                if status != 429:
                    break
                time.sleep(0.2)  # only so many bytes are taken at once
        return status

    before = resident_mb()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(upload, range(48))) == [422] * 48
    assert memory_mb("VmHWM") > before + 40, "no large body was ever in memory"
    deadline = time.monotonic() + 60
    while resident_mb() > before + 25:
        assert time.monotonic() < deadline, f"{before:.0f} MB before, {resident_mb():.0f} MB after"
        time.sleep(0.2)


def test_where_the_allocator_cannot_be_asked_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("ctypes.CDLL", asked.append)  # and gives None, which has no malloc_trim
    return_memory()
    assert asked == [None]
