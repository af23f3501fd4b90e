"""Sources whose images Pillow reads instead of FFmpeg: image files in a row, an animation, a URL that gives a snapshot.

Each has what an open source has (`sources.Source`), and `images`: pixels, None where they are broken, and the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image as PillowImage

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.data.image_formats import SUFFIXES
from deepfer_yolo.data.images import MAX_PIXELS, load_image
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.records import Clock, Image
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.file_names import sequence
from deepfer_yolo.stream.http_source import HttpFile, HttpOpener
from deepfer_yolo.stream.source_errors import SourceReadError

MAX_SNAPSHOT_BYTES = 20_000_000
UNSTATED_S = 0.1
"""How long a frame of an animation stands that does not say so, as in browsers."""

Timed = tuple[Image | None, float | None]


class ImageRow:
    """The images of a numbered name, a glob pattern or a list, at the rate of `sequence_fps`."""

    is_finite = has_pts = True
    period_s = 0.0
    clock: Clock = "derived"

    def __init__(self, address: Address, config: StreamConfig) -> None:
        self._paths = sequence(address.target)
        if not self._paths:
            raise SourceReadError(f"{address.name} names no images any more", "not-found")
        self._fps = config.sequence_fps
        self.notes = (f"{len(self._paths):,} images, taken as {self._fps:g} a second (--sequence-fps)",)

    def images(self) -> Iterator[Timed]:
        """Each image; one that cannot be read is None, and keeps its time."""
        for index, path in enumerate(self._paths):
            try:
                yield load_image(path), index / self._fps
            except (DatasetError, OSError):
                yield None, index / self._fps

    def close(self) -> None:
        """Nothing is open."""


class Animation:
    """An animated WebP, which FFmpeg does not decode."""

    is_finite = has_pts = True
    period_s = 0.0
    clock: Clock = "pts"
    notes: tuple[str, ...] = ()

    def __init__(self, address: Address) -> None:
        self._name = address.name
        try:
            self._image = PillowImage.open(address.target, formats=("WEBP",))
        except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
            raise SourceReadError(f"{address.name} cannot be read: {error}", "unreadable") from None
        self._n = getattr(self._image, "n_frames", 1)
        width, height = self._image.size
        if width * height > MAX_PIXELS:
            self.close()
            raise SourceReadError(f"{address.name} has more than {MAX_PIXELS:,} pixels", "unreadable")
        if self._n < 2:
            self.close()
            raise SourceReadError(f"{address.name} is a still image; for those there is: deepfer predict", "no-video")

    def images(self) -> Iterator[Timed]:
        """Each frame when it is shown, alpha dropped. Raises SourceReadError where the file breaks off."""
        time_s = 0.0
        for index in range(self._n):
            try:
                self._image.seek(index)
                pixels = np.asarray(self._image.convert("RGB"))
            except (OSError, SyntaxError, ValueError, EOFError):
                raise SourceReadError(f"{self._name} breaks off at {time_s:.1f} s", "truncated") from None
            yield pixels, time_s
            time_s += self._image.info.get("duration", 0) / 1000 or UNSTATED_S

    def close(self) -> None:
        """Close the file."""
        self._image.close()


class Snapshots:
    """A URL that gives one image a request, asked again every `poll_s` seconds."""

    is_finite = has_pts = False
    clock: Clock = "arrival"

    def __init__(self, address: Address, config: StreamConfig) -> None:
        self._address, self._config = address, config
        self._opener = HttpOpener(address.target, config)
        self.notes = (f"a snapshot every {config.poll_s:g} s (--poll)",)
        self.period_s = config.poll_s
        self._began = time.monotonic()
        with self._opener.open(address.target, 0, {}) as file:
            is_image = file.content_type.startswith("image/") or file.size is not None
            self.is_stream = "multipart" in file.content_type or not is_image
            """Whether the URL gives a stream after all."""
            self._first = b"" if self.is_stream else self._read(file)

    def images(self) -> Iterator[Timed]:
        """An image every `poll_s`. Raises SourceReadError where the first is none, or a request fails."""
        content, due = self._first, self._began
        is_first = True
        while True:
            try:
                image = load_image(content)
            except DatasetError as error:
                if is_first:
                    raise SourceReadError(
                        f"{self._address.name} gives no image: {error.reason}", "unreadable"
                    ) from None
                image = None
            is_first = False
            yield image, None
            due = max(due + self._config.poll_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            with self._opener.open(self._address.target, 0, {}) as file:
                content = self._read(file)

    def _read(self, file: HttpFile) -> bytes:
        """A whole answer, bounded in bytes and time."""
        parts, size, deadline = [], 0, time.monotonic() + self._config.read_timeout_s
        while part := file.read(1 << 16):
            parts.append(part)
            size += len(part)
            if size > MAX_SNAPSHOT_BYTES:
                limit = f"{MAX_SNAPSHOT_BYTES // 1_000_000} MB"
                raise SourceReadError(f"a snapshot of {self._address.name} is larger than {limit}", "unreadable")
            if time.monotonic() > deadline:
                raise SourceReadError(f"a snapshot of {self._address.name} did not arrive in time", "timeout")
        return b"".join(parts)

    def close(self) -> None:
        """No connection stays open between two images."""


def names_an_image(url: str) -> bool:
    """Whether a URL of HTTP ends like the name of an image."""
    parts = urlsplit(url)
    return parts.scheme.lower() in ("http", "https") and Path(parts.path).suffix.lower() in SUFFIXES - {".gif"}


def is_webp(path: str) -> bool:
    """Whether a file is a WebP, by its first bytes."""
    with Path(path).open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"
