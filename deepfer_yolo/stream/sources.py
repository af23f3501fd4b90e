"""Readers: a file, network stream, camera or test pattern as decoded pictures with their own time stamps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from deepfer_yolo.errors import SourceError
from deepfer_yolo.records import Image
from deepfer_yolo.stream.address import Address, scrub
from deepfer_yolo.stream.pixels import to_rgb

if TYPE_CHECKING:
    import av.container

Reason = Literal[
    "refused", "timeout", "unauthorised", "not-found", "no-video", "codec", "unreadable", "truncated", "forbidden", "device", "network", "eof"
]

SLOW_REASONS = frozenset({"unauthorised", "not-found", "no-video", "codec"})
"""Failures that seldom heal within seconds."""
HINTS: dict[str, str] = {
    "refused": "check host and port, and that the publisher runs",
    "timeout": "check that the host is up; --open-timeout and --read-timeout set the limits",
    "unauthorised": "check user name and password in the URL; special characters must be percent-encoded",
    "not-found": "check the path of the URL",
    "no-video": "name a source that has a video stream",
    "codec": "re-encode it, for example as H.264",
    "unreadable": "check the file with: ffprobe",
    "device": "deepfer doctor lists the cameras",
}


class SourceReadError(SourceError):
    """A source that cannot be opened or read on; `reason` is one word that a program can act on."""

    def __init__(self, message: str, reason: Reason = "network") -> None:
        super().__init__(message, HINTS.get(reason))
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.reason)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How sources are opened. `ffmpeg` holds options that are passed on to FFmpeg for network sources."""

    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    rtsp_transport: str = "tcp"
    ffmpeg: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Grab:
    """One picture as it was read; `image` is None where it was corrupt. `offset_s` is the wall-clock time of PTS 0 where it is known."""

    image: Image | None
    pts_s: float | None = None
    offset_s: float | None = None


class Reader(Protocol):
    """An open source. `is_finite` says that its end is known; `has_pts` that its time stamps are its own."""

    is_finite: bool
    has_pts: bool

    def grabs(self) -> Iterator[Grab]:
        """Pictures in order, until the end. Raises SourceReadError where reading breaks."""
        ...

    def close(self) -> None:
        """Let go of the source; safe to call twice."""
        ...


class VideoReader:
    """Whatever FFmpeg reads: files, network streams and its synthetic patterns, by PyAV."""

    def __init__(self, address: Address, options: ReadOptions) -> None:
        self._address = address
        self._container = _open(address, options)
        try:
            self._stream = _video_stream(self._container, address)
        except SourceReadError:
            self._container.close()
            raise
        # Frame threading decodes files faster but holds frames back, which a live source must not do.
        self._stream.thread_type = "AUTO" if address.kind == "file" else "SLICE"
        self.is_finite = address.kind == "file" or (address.kind == "network" and (self._container.duration or 0) > 0)
        self.has_pts = not (address.kind == "network" and self._container.format.name in ("mpjpeg", "mjpeg"))

    def grabs(self) -> Iterator[Grab]:
        """Pictures in order; broken packets and frames that the decoder marks as corrupt come as `image=None`."""
        import av

        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    yield Grab(None)
                    continue
                for frame in frames:
                    yield self._grab(frame)
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError) as error:
            raise _explain(error, self._address, "reading") from None

    def _grab(self, frame: Any) -> Grab:
        if frame.is_corrupt:
            return Grab(None, frame.time)
        start = self._container.start_time_realtime if self._address.kind == "network" else None
        return Grab(to_rgb(frame), frame.time, start / 1e6 if start else None)

    def close(self) -> None:
        """Close the container."""
        self._container.close()


class CameraReader:
    """A camera that OpenCV opens: an index, or a /dev/video path. Its time stamps are arrival times."""

    is_finite = False
    has_pts = False

    def __init__(self, address: Address, options: ReadOptions) -> None:
        import cv2

        self._address = address
        self._timeout_s = options.read_timeout_s
        target: Any = int(address.target) if address.target.isdecimal() else address.target
        self._capture = cv2.VideoCapture(target)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceReadError(f"{address.name} cannot be opened", "device")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def grabs(self) -> Iterator[Grab]:
        """Pictures as they come. Raises SourceReadError when the camera gives none."""
        import cv2

        while True:
            is_read, image = self._capture.read()
            if not is_read:
                raise SourceReadError(f"{self._address.name} gives no more pictures", "device")
            yield Grab(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8))

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


def open_reader(address: Address, options: ReadOptions) -> Reader:
    """Open a source. Raises SourceReadError with a reason; its message shows no credentials."""
    return CameraReader(address, options) if address.kind == "camera" else VideoReader(address, options)


def _open(address: Address, options: ReadOptions) -> av.container.InputContainer:
    import av

    timeout = (options.open_timeout_s, options.read_timeout_s)
    try:
        if address.kind == "pattern":
            return av.open(f"{address.target},realtime", format="lavfi", timeout=timeout)
        if address.kind == "file":
            return av.open(address.target)
        return av.open(address.target, timeout=timeout, options=_network_options(address, options))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _explain(error, address, "opening") from None


def _network_options(address: Address, options: ReadOptions) -> dict[str, str]:
    chosen = {"rtsp_transport": options.rtsp_transport} if address.target.lower().startswith("rtsp") else {}
    return {**chosen, **options.ffmpeg}


def _video_stream(container: Any, address: Address) -> Any:
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams})
        raise SourceReadError(f"{address.name} has no video stream, only: {', '.join(kinds) or 'nothing'}", "no-video")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise SourceReadError(f"{address.name} is in a codec that cannot be decoded here", "codec")
    return stream


def _explain(error: Exception, address: Address, doing: str) -> SourceReadError:
    """The failure behind an exception of FFmpeg's; only its own words are kept, since PyAV's message holds the raw URL."""
    import av

    reasons: list[tuple[tuple[type[BaseException], ...], Reason]] = [
        ((av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError), "unauthorised"),
        ((av.error.HTTPNotFoundError, FileNotFoundError), "not-found"),
        ((ConnectionRefusedError,), "refused"),
        ((TimeoutError, av.error.ExitError), "timeout"),
        ((av.error.DecoderNotFoundError, av.error.PatchWelcomeError), "codec"),
        ((av.error.InvalidDataError,), "unreadable"),
    ]
    reason: Reason = next((reason for kinds, reason in reasons if isinstance(error, kinds)), "network" if address.kind == "network" else "unreadable")
    words = str(getattr(error, "strerror", None) or type(error).__name__)
    return SourceReadError(f"{doing} {address.name} failed: {scrub(words, address.target)}", reason)
