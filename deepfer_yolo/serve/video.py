"""One uploaded video to faces over time, through the same scene that `deepfer stream` uses."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import SourceError, SourceTooLargeError
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.records import Event, Frame
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.serve.schemas import SCHEMA, TrackedFace, VideoEvent, VideoFrame, Watched
from deepfer_yolo.servers import ServeConfig
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.image_sources import Animation
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.scene import Scene
from deepfer_yolo.stream.source_errors import SourceReadError
from deepfer_yolo.stream.sources import ImageSource, VideoSource

CONTAINERS: tuple[tuple[str, str, int, bytes], ...] = (
    ("MP4", "mov", 4, b"ftyp"),
    ("Matroska or WebM", "matroska", 0, b"\x1a\x45\xdf\xa3"),
    ("AVI", "avi", 8, b"AVI "),
    ("Ogg", "ogg", 0, b"OggS"),
    ("GIF", "gif", 0, b"GIF8"),
    ("WebP", "webp", 8, b"WEBP"),
    ("MPEG-TS", "mpegts", 0, b"G"),
    ("MPEG-TS", "mpegts", 4, b"G"),
    ("raw H.264", "h264", 0, b"\0\0\0\1"),
    ("raw H.264", "h264", 0, b"\0\0\1"),
)
"""What is opened: its name, FFmpeg's, and the first bytes and where they stand.

Playlists and other formats that name further files are not among them, and nothing is opened as something else.
"""
TS_PACKET_BYTES = {0: 188, 4: 192}
"""By where the first packet's mark stands; cameras put the time of arrival in front of each."""
H264_BEGINNINGS = frozenset({6, 7, 9})
"""The types of unit that an H.264 stream may begin with: remarks, its parameters, a delimiter."""
THREADS = 2
"""Threads that decode one video: each holds frames, and a decode worker's memory has a limit."""
MAX_FRAME_PIXELS = 9_000_000
"""The largest frame, where images may be larger still: of a video many are in memory."""


def label_video(content: bytes, name: str, model: Model, config: ServeConfig) -> Watched:
    """Faces by frame, and events, of the bytes of a video file that its sender calls `name`.

    Raises SourceError where it cannot be read, SourceTooLargeError past a limit.
    """
    container = container_of(content)
    if container is None:
        known = ", ".join(dict.fromkeys(known for known, *_ in CONTAINERS))
        raise SourceError(f"not a video in a known container ({known})")
    scene = Scene(open_detector(config, "video"), model.card, StreamConfig.of_faces(config))
    frames: list[VideoFrame] = []
    events: list[Event] = []
    width = height = 0
    with _in_memory(content) as path:
        for frame in _frames(Address("the video", "file", path, container), config):
            result = scene.label(frame, model)
            height, width = frame.image.shape[:2]
            frames.append(VideoFrame(time_s=round(frame.time_s, 4), faces=tracked_faces(result)))
            events += result.events
    events += scene.end(0)
    return Watched(
        schema_version=SCHEMA,
        model=model.card.name,
        name=name,
        width=width,
        height=height,
        duration_s=frames[-1].time_s,
        frames=frames,
        events=[VideoEvent.model_validate(event.to_json()) for event in events],
    )


def container_of(content: bytes) -> str | None:
    """FFmpeg's name of the container that a file is in; None for one that is not opened."""
    for _, name, at, mark in CONTAINERS:
        if content[at : at + len(mark)] == mark and _is_sure(name, at, content[:1000], len(mark)):
            return name
    return None


def _is_sure(name: str, at: int, head: bytes, n: int) -> bool:
    """Whether what follows a mark fits, where the mark alone is too short to tell."""
    if name == "mpegts":
        size = TS_PACKET_BYTES[at]
        return head[at + size : at + 4 * size : size] == b"GGG"
    if name == "h264":
        return len(head) > n and not head[n] & 0x80 and head[n] & 0x1F in H264_BEGINNINGS
    return True


class _Sampling:
    """Which frames of a video are looked at: `video_fps` of them a second."""

    def __init__(self, start_s: float, config: ServeConfig) -> None:
        self._start_s, self._config = start_s, config
        self._due_s = 0.0
        self._first_s: float | None = None

    def time(self, time_s: float) -> float:
        """The time that players show: it begins with the file, whose sound may begin before the frames."""
        return max(0.0, time_s - self._start_s)

    def __call__(self, time_s: float) -> bool:
        """Whether the frame at a time of the source's is looked at. Raises SourceTooLargeError past the limit."""
        time_s, fps, limit_s = self.time(time_s), self._config.video_fps, self._config.max_video_s
        self._first_s = time_s if self._first_s is None else self._first_s
        if time_s - self._first_s > limit_s:
            raise SourceTooLargeError(f"the video is longer than {limit_s:g} s (max_video_s)")
        if time_s + 1e-6 < self._due_s:
            return False
        self._due_s = max(self._due_s, time_s - 1 / fps) + 1 / fps
        return True


def _frames(address: Address, config: ServeConfig) -> Iterator[Frame]:
    """The frames that are looked at. Raises SourceTooLargeError past the limits of length and size."""
    if address.container == "webp":
        source: VideoSource | ImageSource = ImageSource(Animation(address))
    else:
        source = VideoSource(address, StreamConfig(), THREADS)
    wanted, index = _Sampling(source.start_s, config), 0
    try:
        _check_pixels(source.frame_pixels, config)
        for grab in source.grabs(wanted):
            if grab.image is None or grab.pts_s is None:
                continue
            _check_pixels(grab.image.shape[0] * grab.image.shape[1], config)
            yield Frame(index, wanted.time(grab.pts_s), source.clock, grab.image, "video")
            index += 1
    except SourceReadError as error:
        if getattr(error.__context__, "errno", None) == errno.ENOMEM:
            raise MemoryError from None
        raise
    finally:
        source.close()
    if index == 0:
        raise SourceError("the video holds no frame that can be decoded")


def _check_pixels(n: int, config: ServeConfig) -> None:
    limit = min(int(config.max_megapixels * 1e6), MAX_FRAME_PIXELS)
    if n > limit:
        key = "max_megapixels" if limit < MAX_FRAME_PIXELS else "for videos not to be changed"
        raise SourceTooLargeError(f"the video's frames have more than {limit:,} pixels ({key})")


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path under which FFmpeg can open bytes that never touch a disk."""
    handle = os.memfd_create("video", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def tracked_faces(result: Result) -> list[TrackedFace]:
    """What a page needs of the tracks of one frame."""
    return [TrackedFace.model_validate(track.to_json()) for track in result.tracks]
