"""Pictures that leave: snapshots of expressions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Image
from deepfer_yolo.stream.address import slug, slugs
from deepfer_yolo.stream.draw import Look, paint
from deepfer_yolo.stream.records import Output

MIN_GAP_S = 1.0
"""No two snapshots of one track come closer than this."""
REMEMBERED = 1000
"""Tracks whose last snapshot is known; older ones have long left."""


class SnapshotSink:
    """An annotated JPEG each time a track's label changes: `<source>-<epoch>-<frame>-<track>-<label>.jpg`.

    Where that name is taken, `-2` and so on is added, unless `overwrite` was given.
    """

    wants: Literal["records", "pictures"] = "pictures"
    depth = 8
    is_remote = False

    def __init__(self, target: str, look: Look, *, overwrite: bool = False) -> None:
        self.name = f"snapshots={target}"
        self._folder = Path(target)
        self._look = look
        self._overwrite = overwrite
        self._slugs: dict[str, str] = {}
        self._last: dict[tuple[str, int, int], tuple[str, float]] = {}

    def open(self, sources: list[str]) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._slugs = slugs(sources)

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
            self._last.pop(key, None)
            self._last[key] = (track.label, frame.time_s)
            if len(self._last) > REMEMBERED:
                del self._last[next(iter(self._last))]
            stem = f"{self._slugs[frame.source]}-{result.epoch}-{frame.index:06d}-{track.id}-{slug(track.label)}"
            write_atomic(self._free(stem), to_jpeg(paint(result, self._look)))

    def _free(self, stem: str) -> Path:
        path, n = self._folder / f"{stem}.jpg", 1
        while path.exists() and not self._overwrite:
            n += 1
            path = self._folder / f"{stem}-{n}.jpg"
        return path

    def close(self) -> None:
        """Nothing is open between pictures."""


def to_jpeg(image: Image) -> bytes:
    """A uint8 RGB picture as JPEG, without any metadata."""
    from PIL import Image as PillowImage

    stream = io.BytesIO()
    PillowImage.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()
