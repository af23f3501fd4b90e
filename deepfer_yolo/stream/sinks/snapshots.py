"""Snapshots: an annotated JPEG of each new expression."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Image
from deepfer_yolo.stream.address import slug, slugs
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.sinks.targets import refuse_unwritable
from deepfer_yolo.stream.sinks.worker import ImageSink

MIN_GAP_S = 1.0
"""No two snapshots of one track come closer than this."""
REMEMBERED = 1000
"""Tracks whose last snapshot is known; older ones have long left."""


class SnapshotSink(ImageSink):
    """An annotated JPEG each time a track's label changes: `<source>-<epoch>-<frame>-<track>-<label>.jpg`.

    Where that name is taken, `-2` and so on is added, unless `config.overwrite` is set. Raises DeepferError where
    nothing can be written to the folder.
    """

    def __init__(self, target: str, sources: Sequence[str], config: StreamConfig) -> None:
        super().__init__(f"snapshots={target}", config)
        self._folder = Path(target)
        refuse_unwritable(self._folder / "a.jpg")
        self._slugs = slugs(sources)
        self._last: dict[tuple[str, int, int], tuple[str, float]] = {}

    def open(self) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def take(self, result: Result) -> None:
        """Save the image where a label is new."""
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
            write_atomic(self._free(stem), to_jpeg(self.draw(result)))

    def _free(self, stem: str) -> Path:
        path, n = self._folder / f"{stem}.jpg", 1
        while path.exists() and not self._config.overwrite:
            n += 1
            path = self._folder / f"{stem}-{n}.jpg"
        return path


def to_jpeg(image: Image) -> bytes:
    """A uint8 RGB image as JPEG, without any metadata."""
    from PIL import Image as PillowImage

    stream = io.BytesIO()
    PillowImage.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()
