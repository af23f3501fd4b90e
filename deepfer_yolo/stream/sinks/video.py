"""Annotated video: H.264, in fragments where the file is an MP4, with the source's own time stamps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.files import atomic_path
from deepfer_yolo.records import Image
from deepfer_yolo.stream.address import slugs
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.sinks.worker import ImageSink
from deepfer_yolo.stream.sources import to_frame

TICKS = 90_000
"""Time stamps a second in the file, MPEG's usual clock."""
MAX_GAP_S = 10.0
KEY_S = 2.0
"""Seconds of video between key frames, and so of a fragment: what a kill may cost, and how exact a seek is."""
FRAGMENTED = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
"""An ordinary MP4 keeps a table of all frames in memory until its end (0.8 MB per 10,000), unreadable before that."""
MP4_SUFFIXES = (".mp4", ".m4v", ".mov")
SUFFIXES = (*MP4_SUFFIXES, ".mkv", ".ts")
"""Files that hold H.264 with any time stamps."""


class VideoSink(ImageSink):
    """One file a source and image size, renamed when it is complete. Raises ConfigError for an unknown suffix."""

    def __init__(self, target: str, sources: Sequence[str], config: StreamConfig) -> None:
        self._path = Path(target)
        if self._path.suffix.lower() not in SUFFIXES:
            hint = f"the name must end in {', '.join(SUFFIXES)}"
            raise ConfigError(f"H.264 video cannot be written to '{target}'", hint)
        self._stems = {name: f"-{made}" if len(sources) > 1 else "" for name, made in slugs(sources).items()}
        self._recordings: dict[str, Recording] = {}
        self._n_of: dict[str, int] = {}
        self._taken: set[Path] = set()
        super().__init__(f"video={target}", config, [self._path_of(source, 1) for source in sources])

    def take(self, result: Result) -> None:
        """Draw and encode one frame."""
        image, source = self.draw(result), result.frame.source
        recording = self._recordings.get(source)
        if recording is not None and recording.shape != image.shape[:2]:
            recording.close()
            recording = None
        if recording is None:
            recording = self._recordings[source] = Recording(self._next_path(source), image.shape[:2])
        recording.write(image, result)

    def close(self) -> None:
        """Finish all files."""
        for recording in self._recordings.values():
            recording.close()
        self._recordings.clear()

    def _next_path(self, source: str) -> Path:
        n = self._n_of.get(source, 0) + 1
        path = self._path_of(source, n)
        while path in self._taken or (n > 1 and not self._config.overwrite and path.exists()):
            n += 1
            path = self._path_of(source, n)
        self._n_of[source] = n
        self._taken.add(path)
        return path

    def _path_of(self, source: str, n: int) -> Path:
        number = f"-{n}" if n > 1 else ""
        return self._path.with_name(f"{self._path.stem}{self._stems[source]}{number}{self._path.suffix}")


class Recording:
    """One video file that is being written."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        import av

        self.shape = shape
        self._stack = ExitStack()
        part = self._stack.enter_context(atomic_path(path))
        options = FRAGMENTED if path.suffix.lower() in MP4_SUFFIXES else {}
        self._container: Any = self._stack.enter_context(av.open(str(part), "w", options=options))
        # ultrafast keeps up with 150 frames of 720p a second on one core; without B-frames each may have any time.
        coding = {"preset": "ultrafast", "crf": "23"}
        self._stream = self._container.add_stream("libx264", rate=Fraction(30), options=coding)
        self._stream.width, self._stream.height = shape[1] + shape[1] % 2, shape[0] + shape[0] % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._offset_s: float | None = None
        self._epoch = 0
        self._last_tick = -1
        self._key_tick = 0

    def write(self, image: Image, result: Result) -> None:
        """Encode one frame at its own time; an epoch goes on where the last one ended."""
        from av.video.frame import PictureType

        time_s = result.frame.time_s
        if self._offset_s is None:
            self._offset_s = time_s if result.age_ms is not None or not 0 <= time_s < MAX_GAP_S else 0.0
        elif result.epoch != self._epoch:
            self._offset_s = time_s - (self._last_tick / TICKS + 0.04)
        self._epoch = result.epoch
        tick = max(self._last_tick + 1, round((time_s - self._offset_s) * TICKS))
        self._last_tick = tick
        frame = to_frame(image)
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        if tick - self._key_tick >= KEY_S * TICKS:
            frame.pict_type = PictureType.I
            self._key_tick = tick
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Flush the encoder and give the file its name."""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._stack.close()
