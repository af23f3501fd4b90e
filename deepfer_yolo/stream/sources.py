"""Open sources: a file, network stream, camera or test pattern as decoded images with their own time stamps."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.records import Clock, Image
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.frame_times import FrameTimes
from deepfer_yolo.stream.http_source import HttpOpener
from deepfer_yolo.stream.image_sources import Animation, ImageRow, Snapshots, is_webp, names_an_image
from deepfer_yolo.stream.pixels import FrameConverter
from deepfer_yolo.stream.source_errors import SourceReadError, explain

if TYPE_CHECKING:
    import av
    import av.container

TRUNCATION_S = 0.5
"""What may be missing at a file's declared end: the last image of a variable frame rate may stand that long."""
CLOCK_COUNTS_ON = 0x200
"""FFmpeg's AVFMT_TS_DISCONT: MPEG transport and programme streams."""
UNDATED = 5
"""Frames without a time that a network stream may begin with: RTSP often sends the first before the clock is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Grab:
    """One image as it was read, None where it was corrupt; `offset_s` is the wall-clock time of PTS 0, where known."""

    image: Image | None
    pts_s: float | None = None
    offset_s: float | None = None


class VideoSource:
    """Whatever FFmpeg reads: files, network streams and its synthetic patterns, by PyAV."""

    period_s = 0.0

    def __init__(self, address: Address, config: StreamConfig, threads: int = 0) -> None:
        self._address = address
        self._container = _open(address, config)
        try:
            self._stream = _video_stream(self._container, address)
        except SourceReadError:
            self._container.close()
            raise
        # Frame threading decodes files faster but holds frames back, which a live source must not do.
        self._stream.thread_type = "AUTO" if address.kind == "file" else "SLICE"
        self._stream.codec_context.thread_count = threads  # 0: as many as there are cores
        is_recording = address.kind == "network" and (self._container.duration or 0) > 0
        self.is_finite = address.kind in ("file", "pipe") or is_recording
        self.is_bursty = self._container.format.name == "hls" and not self.is_finite
        self.has_pts = not (address.kind == "network" and self._container.format.name in ("mpjpeg", "mjpeg"))
        self._times = FrameTimes(self._container, self._stream) if address.kind in ("file", "pipe") else None
        self._converter = FrameConverter()
        self._aspect = self._stream.sample_aspect_ratio
        self._coded_aspect = self._stream.codec_context.sample_aspect_ratio

    @property
    def clock(self) -> Clock:
        """Where the times of a source with PTS come from: `derived` where the file holds none."""
        return "derived" if self._times is not None and self._times.is_derived else "pts"

    @property
    def notes(self) -> Sequence[str]:
        """What a viewer must know of the images and times so far, once each."""
        note = self._times.note if self._times is not None else None
        return [*([note] if note else []), *self._converter.notes]

    @property
    def start_s(self) -> float:
        """What players show as 0: where the clock of an MPEG stream begins, which counts on from file to file."""
        counts_on = bool(self._container.format.flags & CLOCK_COUNTS_ON)
        return (self._container.start_time or 0) / 1e6 if counts_on else 0.0

    @property
    def is_still(self) -> bool:
        """Whether it is one image in a file of its own, as the snapshot URLs of cameras give."""
        return self._container.format.name.endswith("_pipe")

    @property
    def frame_pixels(self) -> int:
        """How many pixels a frame has, as the stream says."""
        return int(self._stream.codec_context.width) * int(self._stream.codec_context.height)

    def grabs(self, wants: Callable[[float], bool] | None = None) -> Iterator[Grab]:
        """Images in order; broken packets and frames that the decoder marks as corrupt come as `image=None`.

        Frames whose time `wants` refuses are decoded and passed over. Raises SourceReadError where reading breaks.
        """
        import av

        last_s = 0.0
        undated = UNDATED if self._address.kind == "network" and self.has_pts else 0
        try:
            for packet in self._container.demux(self._stream):
                if self._times is not None:
                    self._times.expect(packet)
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    yield Grab(None)
                    continue
                for frame in frames:
                    if frame.time is None and undated > 0:
                        undated -= 1
                        continue
                    undated = 0
                    time_s = frame.time if self._times is None else self._times.time_of(frame)
                    last_s = time_s or last_s
                    if wants is not None and time_s is not None and not wants(time_s):
                        continue
                    yield self._grab(frame, time_s)
        except av.error.EOFError:
            pass
        except (av.error.FFmpegError, OSError) as error:
            raise explain(error, self._address, "reading") from None
        self._check_whole(last_s)

    def _check_whole(self, last_s: float) -> None:
        """Raise SourceReadError where a file ends well before the length that it declares."""
        stream = self._stream
        if self._address.kind != "file" or not stream.duration or stream.time_base is None:
            return
        end_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        if last_s < end_s - TRUNCATION_S - 0.02 * end_s:
            raise SourceReadError(f"{self._address.name} breaks off at {last_s:.1f} s of {end_s:.1f} s", "truncated")

    def _grab(self, frame: Any, time_s: float | None) -> Grab:
        if frame.is_corrupt:
            return Grab(None, time_s)
        coded = self._stream.codec_context.sample_aspect_ratio
        if frame.key_frame and coded != self._coded_aspect:
            # The decoder's own value is of the packet that went in last; only a key frame may have another shape.
            self._aspect = self._coded_aspect = coded
        start = self._container.start_time_realtime if self._address.kind == "network" else None
        return Grab(self._converter.image(frame, self._aspect), time_s, start / 1e6 if start else None)

    def close(self) -> None:
        """Close the container."""
        self._container.close()


class CameraSource:
    """A camera that OpenCV opens: an index, or a /dev/video path. Its time stamps are arrival times."""

    is_finite = has_pts = is_bursty = False
    clock: Clock = "arrival"
    notes: Sequence[str] = ()
    period_s = 0.0

    def __init__(self, address: Address) -> None:
        import cv2

        self._address = address
        target: Any = int(address.target) if address.target.isdecimal() else address.target
        # OpenCV and its FFmpeg write pages about each backend that opens no camera; the error below says it in a line.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(target)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceReadError(f"{address.name} cannot be opened", "device")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def grabs(self) -> Iterator[Grab]:
        """Images as they come. Raises SourceReadError when the camera gives none."""
        import cv2

        while True:
            is_read, image = self._capture.read()
            if not is_read:
                raise SourceReadError(f"{self._address.name} gives no more images", "device")
            yield Grab(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8))

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


class ImageSource:
    """Images that are read one by one, without FFmpeg."""

    is_bursty = False
    start_s = 0.0
    frame_pixels = 0

    def __init__(self, images: ImageRow | Animation | Snapshots) -> None:
        self._images = images
        self.is_finite, self.has_pts, self.period_s = images.is_finite, images.has_pts, images.period_s
        self.clock, self.notes = images.clock, images.notes

    def grabs(self, wants: Callable[[float], bool] | None = None) -> Iterator[Grab]:
        """Images as they come, but for those whose time `wants` refuses. Raises SourceReadError where it breaks."""
        for image, time_s in self._images.images():
            if wants is None or time_s is None or wants(time_s):
                yield Grab(image, time_s)

    def close(self) -> None:
        """Close what is open."""
        self._images.close()


Source = VideoSource | CameraSource | ImageSource
"""An open source. `is_finite` says that its end is known, `has_pts` that its time stamps are its own, `is_bursty` that
its images come many at a time, `clock` what its time stamps are called, `notes` what a viewer must know of them,
`period_s` how long it waits between two images by its own will.
"""


def open_source(address: Address, config: StreamConfig, threads: int = 0) -> Source:
    """Open a source; `threads` decode a file, 0: one a core.

    Raises SourceReadError with a reason; its message shows no credentials.
    """
    if address.kind == "camera":
        return CameraSource(address)
    if address.kind == "images":
        return ImageSource(ImageRow(address, config))
    if address.kind == "file" and is_webp(address.target):
        return ImageSource(Animation(address))
    if address.kind == "network" and names_an_image(address.target):
        return _snapshots(address, config) or VideoSource(address, config)
    video = VideoSource(address, config, threads)
    if address.kind == "network" and video.is_still:
        video.close()
        return _snapshots(address, config) or VideoSource(address, config)
    return video


def _snapshots(address: Address, config: StreamConfig) -> ImageSource | None:
    """The snapshots of a URL; None where it gives a stream."""
    snapshots = Snapshots(address, config)
    return None if snapshots.is_stream else ImageSource(snapshots)


def _open(address: Address, config: StreamConfig) -> av.container.InputContainer:
    import av

    timeout = (config.open_timeout_s, config.read_timeout_s)
    started = time.monotonic()
    try:
        if address.kind == "pattern":
            return av.open(f"{address.target},realtime", format="lavfi", timeout=timeout)
        if address.kind == "file":
            # A file may be a playlist in disguise: it must not lead to the network. Without `file:` a colon in its name
            # would end the name of a protocol.
            options = {"protocol_whitelist": "file,crypto,data"}
            return av.open(f"file:{address.target}", format=address.container, options=options)
        if address.kind == "pipe":
            return av.open(_piped(address.target), "r", options={"protocol_whitelist": "crypto,data"})
        scheme = address.target.partition("://")[0].lower()
        if scheme in ("http", "https"):
            opener = HttpOpener(address.target, config)
            # Last, since nobody may set it otherwise: with connections that are kept, FFmpeg's HLS reader looks for a
            # connection of its own behind the files of `io_open`, and ends the whole process where there is none.
            own = {"protocol_whitelist": "http,https,crypto,data", "http_persistent": "0"}
            options = {**config.input_option, **own}
            return av.open(address.target, io_open=opener.open, options=options)
        chosen = {"rtsp_transport": config.rtsp_transport} if scheme in ("rtsp", "rtsps") else {}
        return av.open(address.target, timeout=timeout, options={**chosen, **config.input_option})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if address.kind == "network" and time.monotonic() - started >= config.open_timeout_s:
            # FFmpeg's RTSP reports an answer that never came as invalid data.
            words = f"{address.name} did not answer within {config.open_timeout_s:g} s"
            raise SourceReadError(words, "timeout") from None
        raise explain(error, address, "opening") from None


def _piped(target: str) -> io.FileIO:
    """Standard input or a FIFO, to be read as it comes; whoever writes waits where nobody reads."""
    # A copy without Python's lock on stdin, which a thread that still reads would hold when the program ends.
    return io.FileIO(os.dup(0) if target == "-" else target)


def _video_stream(container: Any, address: Address) -> Any:
    """The stream that is the video: the one that is marked as the default, else the first; never a cover picture."""
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.timed_thumbnails
    shown = [one for one in container.streams.video if not one.disposition & stills]
    if not shown:
        kinds = sorted({stream.type for stream in container.streams} - {"video"})
        kinds += ["a cover picture"] if container.streams.video else []
        raise SourceReadError(f"{address.name} holds no video, only: {', '.join(kinds) or 'nothing'}", "no-video")
    known = [one for one in shown if one.codec_context is not None]
    if not known:
        raise SourceReadError(f"{address.name} is in a codec that cannot be decoded here", "codec")
    return next((one for one in known if one.disposition & Disposition.default), known[0])
