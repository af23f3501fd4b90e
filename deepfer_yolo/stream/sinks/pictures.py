"""Pictures that leave: snapshots of expressions, and a window."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Image
from deepfer_yolo.stream.address import slug
from deepfer_yolo.stream.draw import Look, paint
from deepfer_yolo.stream.results import Output

MIN_GAP_S = 1.0
"""No two snapshots of one track come closer than this."""


class SnapshotSink:
    """An annotated JPEG each time a track's label changes: `<source>-<epoch>-<frame>-<track>-<label>.jpg`."""

    wants: Literal["records", "pictures"] = "pictures"
    depth = 8

    def __init__(self, target: str, look: Look) -> None:
        self.name = f"snapshots={target}"
        self._folder = Path(target)
        self._look = look
        self._last: dict[tuple[str, int, int], tuple[str, float]] = {}

    def open(self, sources: list[str]) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, output: Output) -> None:
        """Save the picture where a label is new."""
        result = output.result
        if result is None:
            return
        frame = result.frame
        for track in result.tracks:
            key = (frame.source, result.epoch, track.id)
            label, saved_s = self._last.get(key, ("uncertain", float("-inf")))
            if track.label in ("uncertain", label) or frame.time_s - saved_s < MIN_GAP_S:
                continue
            self._last[key] = (track.label, frame.time_s)
            name = f"{slug(frame.source)}-{result.epoch}-{frame.index:06d}-{track.id}-{slug(track.label)}.jpg"
            write_atomic(self._folder / name, to_jpeg(paint(result, self._look)))

    def close(self) -> None:
        """Nothing is open between pictures."""


class WindowSink:
    """A window a source; Escape or q in it ends nothing but the showing."""

    wants: Literal["records", "pictures"] = "pictures"
    name = "window"
    depth = 1

    def __init__(self, look: Look) -> None:
        self._look = look
        self._is_open = True

    def open(self, sources: list[str]) -> None:
        """Check that there is a screen. Raises DeepferError where there is none."""
        import os
        import sys

        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise DeepferError("there is no screen for --show", "use --sink video=FILE")

    def write(self, output: Output) -> None:
        """Show one picture."""
        import cv2

        if output.result is None or not self._is_open:
            return
        cv2.imshow(output.result.frame.source, cv2.cvtColor(paint(output.result, self._look), cv2.COLOR_RGB2BGR))
        if cv2.waitKey(1) & 0xFF in (27, ord("q")):
            self._is_open = False
            cv2.destroyAllWindows()

    def close(self) -> None:
        """Close the windows."""
        import cv2

        if self._is_open:
            cv2.destroyAllWindows()


def to_jpeg(image: Image) -> bytes:
    """A uint8 RGB picture as JPEG, without any metadata."""
    from PIL import Image as PillowImage

    stream = io.BytesIO()
    PillowImage.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()
