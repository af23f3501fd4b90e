"""One uploaded video to faces over time, through the same scene that `deepfer stream` uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deepfer_yolo.config import FaceConfig, StreamConfig
from deepfer_yolo.errors import SourceError
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.records import Event, Frame, Json, Track
from deepfer_yolo.runtime.backends.protocol import Model
from deepfer_yolo.serve.schemas import TooLarge
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.scene import Scene
from deepfer_yolo.stream.sources import open_source

SIGNATURES = {
    "mp4": (4, b"ftyp"),
    "matroska or webm": (0, b"\x1a\x45\xdf\xa3"),
    "avi": (0, b"RIFF"),
    "ogg": (0, b"OggS"),
}
"""Containers that are opened, by offset and first bytes.

Playlists and other formats that name further files are not among them.
"""


@dataclass(frozen=True, slots=True)
class VideoRules:
    """How long a video may be, how large its pictures, and how many pictures a second are looked at."""

    max_s: float
    max_pixels: int
    fps: float


def watch_video(content: bytes, model: Model, faces: FaceConfig, rules: VideoRules) -> dict[str, Any]:
    """Faces by picture, and events, of a video file's bytes.

    Raises SourceError where it cannot be read and TooLarge past a limit.
    """
    if not any(content[offset : offset + len(mark)] == mark for offset, mark in SIGNATURES.values()):
        raise SourceError(f"not a video in a known container ({', '.join(SIGNATURES)})")
    scene = Scene(open_detector(faces, "video"), model.card, StreamConfig.of_faces(faces))
    frames: list[dict[str, Any]] = []
    events: list[Event] = []
    size = (0, 0)
    with _in_memory(content) as path:
        for frame in _frames(path, rules):
            result = scene.label(frame, model)
            size = (frame.image.shape[1], frame.image.shape[0])
            frames.append({"time_s": round(frame.time_s, 4), "faces": [shortened(track) for track in result.tracks]})
            events += result.events
    events += scene.end(0)
    last_s = frames[-1]["time_s"] if frames else 0.0
    return {
        "width": size[0],
        "height": size[1],
        "duration_s": last_s,
        "frames": frames,
        "events": [event.to_json() for event in events],
    }


def _frames(path: str, rules: VideoRules) -> Iterator[Frame]:
    """The frames that are looked at. Raises TooLarge past the limits of length and size."""
    source = open_source(Address("the video", "file", path), StreamConfig())
    due_s, first_s, index = 0.0, None, 0
    try:
        for grab in source.grabs():
            if grab.image is None or grab.pts_s is None:
                continue
            # The file's own clock, as players show it: the sound may begin before the pictures.
            time_s = max(0.0, grab.pts_s)
            first_s = time_s if first_s is None else first_s
            if time_s - first_s > rules.max_s:
                raise TooLarge(f"the video is longer than {rules.max_s:g} s")
            if grab.image.shape[0] * grab.image.shape[1] > rules.max_pixels:
                raise TooLarge(f"the video's pictures have more than {rules.max_pixels:,} pixels")
            if time_s + 1e-6 < due_s:
                continue
            due_s = max(due_s, time_s - 1 / rules.fps) + 1 / rules.fps
            yield Frame(index, time_s, "pts", grab.image, "video")
            index += 1
    finally:
        source.close()
    if index == 0:
        raise SourceError("the video holds no picture that can be decoded")


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


def shortened(track: Track) -> Json:
    """What a page needs of a track."""
    record = track.to_json()
    return {key: record[key] for key in ("track", "box", "label", "confidence", "probs", "raw_label")}
