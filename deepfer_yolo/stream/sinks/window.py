"""`--show`: a window a source. Sinks run in threads, but windows belong to the main one; so the sink only draws."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.records import Image
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.sinks.worker import ImageSink

REFRESH_S = 0.03
PROBE = "import cv2; cv2.namedWindow('deepfer'); cv2.waitKey(1)"
PROBE_S = 30.0
HINT = "use --sink video=FILE, and look at that"


class WindowSink(ImageSink):
    """Draws images, which `refresh` shows until Escape, q or a closed window. Raises DeepferError without a screen."""

    def __init__(self, config: StreamConfig) -> None:
        super().__init__("window", config)
        require_screen()
        self._lock = threading.Lock()
        self._newest: dict[str, Image] = {}
        self._shown: set[str] = set()
        self._is_open = True

    def take(self, result: Result) -> None:
        """Draw one frame; its window opens with the first."""
        if self._is_open:
            image = self.draw(result)
            with self._lock:
                self._newest[result.frame.source] = image

    def refresh(self) -> None:
        """Show what is new and take the keys; called by the main thread many times a second."""
        import cv2

        with self._lock:
            newest, self._newest = self._newest, {}
        for source in self._shown if self._is_open else ():
            self._is_open &= cv2.getWindowProperty(source, cv2.WND_PROP_VISIBLE) >= 1
        if not self._is_open:
            self.shut()
            return
        for source, image in newest.items():
            cv2.imshow(source, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            self._shown.add(source)
        if self._shown:
            self._is_open = cv2.waitKey(1) & 0xFF not in (27, ord("q"))

    def shut(self) -> None:
        """Close all windows; called by the main thread."""
        import cv2

        if self._shown:
            cv2.destroyAllWindows()
            cv2.waitKey(1)
        self._shown.clear()


def require_screen() -> None:
    """Raise DeepferError where no window can be opened; a child process tries, since Qt ends one without a screen."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DeepferError("there is no screen for --show: neither DISPLAY nor WAYLAND_DISPLAY is set", HINT)
    try:
        command = [sys.executable, "-c", PROBE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False)
        if done.returncode == 0:
            return
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
    except subprocess.TimeoutExpired:
        why = f"no answer in {PROBE_S:g} s"
    raise DeepferError(f"no window can be opened for --show: {why}", HINT)
