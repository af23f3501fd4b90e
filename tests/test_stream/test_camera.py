"""USB cameras, by a stand-in for the hardware."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


class Capture:
    """Stands for cv2.VideoCapture over a camera that is unplugged after `n` images, and back the next time but one."""

    opened: list[Any]
    n_released: int

    def __init__(self, target: Any) -> None:
        type(self).opened.append(target)
        self._left = 4
        self._is_there = len(type(self).opened) != 2

    def isOpened(self) -> bool:
        return self._is_there

    def set(self, *_: Any) -> bool:
        return True

    def read(self) -> tuple[bool, Any]:
        time.sleep(0.02)
        self._left -= 1
        blue = np.zeros((48, 64, 3), np.uint8)
        blue[:, :, 0] = 200 + self._left
        return (True, blue) if self._left >= 0 else (False, None)

    def release(self) -> None:
        type(self).n_released += 1


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> type[Capture]:
    Capture.opened, Capture.n_released = [], 0
    monkeypatch.setattr("cv2.VideoCapture", Capture)
    return Capture


def test_a_camera_is_read_as_rgb_stamped_by_arrival_and_opened_again(
    capture: type[Capture], run_of: Callable[..., Any]
) -> None:
    run = run_of(["3"], policy="lossless", retries=2).start()
    run.wait_for(lambda: run.sink.states().count("live") == 2)
    run.wait_for(lambda: len(run.sink.results) >= 6)
    summary = run.stop()
    assert capture.opened[:3] == [3, 3, 3]
    assert run.sink.states()[:6] == ["connecting", "live", "lost", "connecting", "lost", "connecting"]
    assert {result.epoch for result in run.sink.results} == {0, 1}
    first = run.sink.results[0].frame
    assert (first.source, first.clock) == ("camera 3", "arrival")
    assert first.image[0, 0].tolist() == [0, 0, 203], "the image is blue in RGB"
    assert abs(first.time_s - time.time()) < 30
    assert capture.n_released == len(capture.opened)
    assert summary.sources[0].reconnects >= 2


def test_a_camera_that_is_not_there_says_where_to_look(
    capture: type[Capture], run_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "isOpened", lambda _: False)
    (source,) = run_of(["/dev/video9"], retries=0).start().finish().sources
    assert capture.opened == ["/dev/video9"]
    assert (source.state, source.reason) == ("failed", "device")
    assert "doctor" in str(source.hint)
