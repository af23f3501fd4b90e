"""Sinks of annotated images: video files, snapshots and windows."""

from __future__ import annotations

import filecmp
import io
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import ConfigError, DeepferError
from deepfer_yolo.files import atomic_path, write_atomic
from deepfer_yolo.records import Image
from deepfer_yolo.stream.address import slug, slugs
from deepfer_yolo.stream.draw import draw_faces
from deepfer_yolo.stream.pixels import tag, to_frame
from deepfer_yolo.stream.records import Output, Result, State
from deepfer_yolo.stream.sinks.worker import Sink

TICKS = 90_000
"""Time stamps a second in the file, MPEG's usual clock."""
MAX_START_S = 10.0
"""A file whose first frame is later than this begins with it."""
KEY_S = 2.0
"""Seconds of video between key frames, and so of a fragment: what a kill may cost, and how exact a seek is."""
FRAGMENTED = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}
"""An ordinary MP4 keeps a table of all frames in memory until its end (0.8 MB per 10,000), unreadable before that."""
FRAGMENTED_SUFFIXES = (".mp4", ".m4v", ".mov")
VIDEO_SUFFIXES = (*FRAGMENTED_SUFFIXES, ".mkv", ".ts")
"""Files that hold H.264 with any time stamps."""
SNAPSHOT_GAP_S = 1.0
"""No two snapshots of one track come closer than this."""
REMEMBERED = 1000
"""Tracks whose last snapshot is known; older ones have long left."""
REFRESH_S = 0.03
SCREEN_PROBE = "import cv2; cv2.namedWindow('deepfer'); cv2.waitKey(1)"
SCREEN_PROBE_S = 30.0
NO_SCREEN_HINT = "use --sink video=FILE, and look at that"


class ImageSink(Sink):
    """A sink of annotated images."""

    wants = "images"
    depth = 8

    def __init__(self, name: str, config: StreamConfig, files: Sequence[Path] = ()) -> None:
        super().__init__(name, files)
        self._config = config

    def write(self, output: Output) -> None:
        """Take the frame, where the output has one, and note the sources that end."""
        if output.result is not None:
            self.take(output.result)
        for record in output.records:
            if isinstance(record, State) and record.is_last:
                self.end(record.source)

    def take(self, result: Result) -> None:
        """Take one frame."""
        raise NotImplementedError

    def end(self, source: str) -> None:
        """Finish what belongs to a source of which nothing follows."""

    def draw(self, result: Result) -> Image:
        """The annotated image."""
        return draw_faces(result, is_anonymous=self._config.anonymise)


class VideoSink(ImageSink):
    """One file a source and image size, renamed when it is complete. Raises ConfigError for an unknown suffix."""

    def __init__(self, target: str, sources: Sequence[str], config: StreamConfig) -> None:
        self._path = Path(target)
        if self._path.suffix.lower() not in VIDEO_SUFFIXES:
            hint = f"the name must end in {', '.join(VIDEO_SUFFIXES)}"
            raise ConfigError(f"H.264 video cannot be written to '{target}'", hint)
        self._stems = {name: f"-{made}" if len(sources) > 1 else "" for name, made in slugs(sources).items()}
        self._recordings: dict[str, Recording] = {}
        self._n_of: dict[str, int] = {}
        super().__init__(f"video={target}", config, [self._path_of(source, 1) for source in sources])
        self._first = set(self.files)
        """Names that no second file of another source may take."""

    def take(self, result: Result) -> None:
        """Draw and encode one frame."""
        image, source = self.draw(result), result.frame.source
        recording = self._recordings.get(source)
        if recording is not None and recording.shape != image.shape[:2]:
            self._finish(recording, source)
            recording = None
        if recording is None:
            recording = self._recordings[source] = Recording(self._next_path(source), image.shape[:2])
        recording.write(image, result)

    def end(self, source: str) -> None:
        """Finish the file of a source."""
        recording = self._recordings.pop(source, None)
        if recording is not None:
            self._finish(recording, source)

    def close(self) -> None:
        """Finish all files."""
        for source in list(self._recordings):
            self.end(source)

    def _next_path(self, source: str) -> Path:
        n = self._n_of.get(source, 0) + 1
        path = self._path_of(source, n)
        while self._is_taken(path, n):
            n += 1
            path = self._path_of(source, n)
        self._n_of[source] = n
        return path

    def _finish(self, recording: Recording, source: str) -> None:
        """Finish a file; one that the run which is resumed had finished already is there once."""
        recording.close()
        others = [self._path_of(source, n) for n in range(1, self._n_of[source])] if self._config.resume else []
        if any(path.exists() and filecmp.cmp(path, recording.path, shallow=False) for path in others):
            recording.path.unlink()

    def _is_taken(self, path: Path, n: int) -> bool:
        """Whether the n-th file of a source needs another name; what a run left that is resumed is kept."""
        if n > 1 and path in self._first:
            return True
        return (n > 1 or self._config.resume) and not self._config.overwrite and path.exists()

    def _path_of(self, source: str, n: int) -> Path:
        number = f"-{n}" if n > 1 else ""
        return self._path.with_name(f"{self._path.stem}{self._stems[source]}{number}{self._path.suffix}")


class Recording:
    """One video file that is being written."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        import av

        self.path, self.shape = path, shape
        self._stack = ExitStack()
        part = self._stack.enter_context(atomic_path(path))
        options = {"fflags": "+bitexact", **(FRAGMENTED if path.suffix.lower() in FRAGMENTED_SUFFIXES else {})}
        self._container: Any = self._stack.enter_context(av.open(str(part), "w", options=options))
        # ultrafast keeps up with 150 frames of 720p a second on one core; without B-frames each may have any time.
        coding = {"preset": "ultrafast", "crf": "23"}
        self._stream = self._container.add_stream("libx264", rate=Fraction(30), options=coding)
        self._stream.width, self._stream.height = shape[1] + shape[1] % 2, shape[0] + shape[0] % 2
        self._stream.pix_fmt = "yuv420p"
        tag(self._stream.codec_context)
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
            self._offset_s = time_s if result.age_ms is not None or not 0 <= time_s < MAX_START_S else 0.0
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


class SnapshotSink(ImageSink):
    """An annotated JPEG each time a track's label changes: `<source>-<epoch>-<frame>-<track>-<label>.jpg`.

    Where that name is taken, `-2` and so on is added, unless `config.overwrite` is set.
    """

    def __init__(self, target: str, sources: Sequence[str], config: StreamConfig) -> None:
        super().__init__(f"snapshots={target}", config)
        self.folder: Path = Path(target)
        self._slugs = slugs(sources)
        self._last: dict[tuple[str, int, int], tuple[str, float]] = {}

    def open(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def take(self, result: Result) -> None:
        """Save the image where a label is new."""
        frame = result.frame
        for track in result.tracks:
            key = (frame.source, result.epoch, track.id)
            label, saved_s = self._last.get(key, ("uncertain", float("-inf")))
            if track.label in ("uncertain", label) or frame.time_s - saved_s < SNAPSHOT_GAP_S:
                continue
            self._last.pop(key, None)
            self._last[key] = (track.label, frame.time_s)
            if len(self._last) > REMEMBERED:
                del self._last[next(iter(self._last))]
            stem = f"{self._slugs[frame.source]}-{result.epoch}-{frame.index:06d}-{track.id}-{slug(track.label)}"
            self._save(stem, to_jpeg(self.draw(result)))

    def _save(self, stem: str, content: bytes) -> None:
        """Save an image under a free name; a run that is resumed leaves it where it saved the same before."""
        path, n = self.folder / f"{stem}.jpg", 1
        while path.exists() and not self._config.overwrite:
            if self._config.resume and path.read_bytes() == content:
                return
            n += 1
            path = self.folder / f"{stem}-{n}.jpg"
        write_atomic(path, content)


def to_jpeg(image: Image) -> bytes:
    """A uint8 RGB image as JPEG, without any metadata."""
    from PIL import Image as PillowImage

    stream = io.BytesIO()
    PillowImage.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


class WindowSink(ImageSink):
    """Draws images, which `refresh` shows until Escape, q or a closed window. Raises DeepferError without a screen."""

    def __init__(self, config: StreamConfig) -> None:
        super().__init__("window", config)
        require_screen()
        self._lock = threading.Lock()
        self._newest: dict[str, Image] = {}
        self._shown: set[str] = set()
        self._ended: set[str] = set()
        self._is_open = True

    def take(self, result: Result) -> None:
        """Draw one frame; its window opens with the first."""
        if self._is_open:
            image = self.draw(result)
            with self._lock:
                self._newest[result.frame.source] = image

    def end(self, source: str) -> None:
        """Let the window of a source go when that of another opens."""
        with self._lock:
            self._ended.add(source)

    def refresh(self) -> None:
        """Show what is new and take the keys; called by the main thread many times a second."""
        import cv2

        with self._lock:
            newest, self._newest = self._newest, {}
            ended = self._ended & self._shown if newest.keys() - self._shown else set()
            self._ended -= ended
        for source in ended:
            cv2.destroyWindow(source)
            self._shown.remove(source)
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
        raise DeepferError("there is no screen for --show: neither DISPLAY nor WAYLAND_DISPLAY is set", NO_SCREEN_HINT)
    try:
        command = [sys.executable, "-c", SCREEN_PROBE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCREEN_PROBE_S, check=False)
        if done.returncode == 0:
            return
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
    except subprocess.TimeoutExpired:
        why = f"no answer in {SCREEN_PROBE_S:g} s"
    raise DeepferError(f"no window can be opened for --show: {why}", NO_SCREEN_HINT)
