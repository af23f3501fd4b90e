"""`--show`: refused at once where there is no screen; windows are touched by the main thread alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.session import run_stream

SHOWN = StreamConfig(detector="whole", show=True)


@pytest.mark.parametrize("display", [None, ":97"])
def test_without_a_screen_no_source_is_opened(
    display: str | None,
    make_clip: Callable[..., Path],
    model: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second display is named and not there: Qt would end this process with SIGABRT."""
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(DeepferError, match="--show"):
        run_stream([str(make_clip())], model, [f"jsonl={tmp_path / 'o.jsonl'}"], SHOWN)
    assert not (tmp_path / "o.jsonl").exists()


class Screen:
    """Stands for a screen: remembers what is shown, by whom, and closes or types when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[tuple[str, Any]] = []
        self.threads: set[threading.Thread] = set()
        self.n_closed = 0
        self.key = -1
        for name, method in (
            ("imshow", self.show),
            ("waitKey", self.wait),
            ("destroyAllWindows", self.close),
            ("getWindowProperty", self.visible),
        ):
            monkeypatch.setattr(f"cv2.{name}", method)
        monkeypatch.setattr("deepfer_yolo.stream.sinks.images.require_screen", lambda: None)

    def show(self, name: str, image: Any) -> None:
        self.threads.add(threading.current_thread())
        self.shown.append((name, image))

    def wait(self, _: int) -> int:
        self.threads.add(threading.current_thread())
        return self.key

    def close(self) -> None:
        self.threads.add(threading.current_thread())
        self.n_closed += 1

    def visible(self, *_: Any) -> float:
        return 1.0


def test_windows_belong_to_the_thread_that_runs_the_stream(
    model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(monkeypatch)
    config = SHOWN.model_copy(update={"max_seconds": 1.5})
    sources = ["testsrc=size=320x240:rate=20", "color=c=red:size=320x240:rate=20"]
    summary = run_stream(sources, model, [f"jsonl={tmp_path / 'o.jsonl'}"], config)
    assert summary.exit_code == 0
    assert {name for name, _ in screen.shown} == set(sources)
    assert screen.threads == {threading.current_thread()}
    assert screen.n_closed == 1
    red = next(image for name, image in screen.shown if name == sources[1])
    assert np.asarray(red)[120, 160].tolist() == pytest.approx([0, 0, 254], abs=4), "OpenCV shows BGR"


def test_a_key_ends_the_showing_and_nothing_else(
    model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(monkeypatch)
    screen.key = ord("q")
    config = SHOWN.model_copy(update={"max_frames": 30})
    summary = run_stream(["testsrc=size=320x240:rate=20"], model, [f"jsonl={tmp_path / 'o.jsonl'}"], config)
    assert (summary.sources[0].counters.captured, summary.exit_code) == (30, 0)
    assert (len(screen.shown), screen.n_closed) == (1, 1)
