"""One uploaded video to faces over time, through the same scene that `deepfer stream` uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from deepfer_yolo.config import ServeConfig, StreamConfig
from deepfer_yolo.errors import SourceError, SourceTooLargeError
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.records import Event, Frame
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.serve.schemas import SCHEMA, TrackedFace, VideoEvent, VideoFrame, Watched
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.records import Result
from deepfer_yolo.stream.scene import Scene
from deepfer_yolo.stream.sources import VideoSource

SIGNATURES = {
    "mp4": (4, b"ftyp"),
    "matroska or webm": (0, b"\x1a\x45\xdf\xa3"),
    "avi": (0, b"RIFF"),
    "ogg": (0, b"OggS"),
}
"""Containers that are opened, by offset and first bytes.

Playlists and other formats that name further files are not among them.
"""
MAX_FRAME_PIXELS = 9_000_000
"""The largest frame, where images may be larger still: of a video many are in memory."""


def label_video(content: bytes, name: str, model: Model, config: ServeConfig) -> Watched:
    """Faces by frame, and events, of the bytes of a video file that its sender calls `name`.

    Raises SourceError where it cannot be read, SourceTooLargeError past a limit.
    """
    if not any(content[offset : offset + len(mark)] == mark for offset, mark in SIGNATURES.values()):
        raise SourceError(f"not a video in a known container ({', '.join(SIGNATURES)})")
    scene = Scene(open_detector(config, "video"), model.card, StreamConfig.of_faces(config))
    frames: list[VideoFrame] = []
    events: list[Event] = []
    width = height = 0
    with _in_memory(content) as path:
        for frame in _frames(path, config):
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


def _frames(path: str, config: ServeConfig) -> Iterator[Frame]:
    """The frames that are looked at. Raises SourceTooLargeError past the limits of length and size."""
    source = VideoSource(Address("the video", "file", path), StreamConfig())
    max_pixels = min(int(config.max_megapixels * 1e6), MAX_FRAME_PIXELS)
    due_s, first_s, index = 0.0, None, 0
    try:
        for grab in source.grabs():
            if grab.image is None or grab.pts_s is None:
                continue
            # The clock that players show: it begins with the file, whose sound may begin before the frames.
            time_s = max(0.0, grab.pts_s - source.start_s)
            first_s = time_s if first_s is None else first_s
            if time_s - first_s > config.max_video_s:
                raise SourceTooLargeError(f"the video is longer than {config.max_video_s:g} s")
            if grab.image.shape[0] * grab.image.shape[1] > max_pixels:
                raise SourceTooLargeError(f"the video's frames have more than {max_pixels:,} pixels")
            if time_s + 1e-6 < due_s:
                continue
            due_s = max(due_s, time_s - 1 / config.video_fps) + 1 / config.video_fps
            yield Frame(index, time_s, source.clock, grab.image, "video")
            index += 1
    finally:
        source.close()
    if index == 0:
        raise SourceError("the video holds no frame that can be decoded")


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
