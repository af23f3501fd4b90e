"""When each frame of a file is shown, also where its container stores decoding order alone, or no time at all."""

from __future__ import annotations

import heapq
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

NO_TIMESTAMPS = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS: raw H.264, H.265, MPEG video and MJPEG."""
STILLS = "_pipe"
"""The end of FFmpeg's names for images one after another, among them MJPEG without headers; they state no rate."""
ASSUMED_RATE = Fraction(25)
"""Frames a second where a raw stream states none, as FFmpeg assumes."""
PLAUSIBLE_RATES = (1, 1000)
SMALL_STEP_S = 0.5
"""A step back of less than this is a wrong stamp, since frames come in the order in which they are shown."""


class FrameTimes:
    """Times in seconds of the frames of one file, which a decoder gives in the order in which they are shown.

    Containers such as AVI know only when a frame is decoded. FFmpeg then invents stamps for the packets in that order;
    the n-th frame that comes out is given the n-th smallest of them. `is_derived` says that the file itself holds no
    times, `note` by what rate they were made.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._stream = stream
        form = container.format
        is_still = form.name.endswith(STILLS) and stream.codec_context.framerate is None
        self.is_derived = bool(form.flags & NO_TIMESTAMPS) or is_still
        self.note: str | None = None
        self._waiting: list[int] = []
        self._delay: int | None = None
        self._stores_order = False
        self._last_s: float | None = None
        self._n = 0

    def expect(self, packet: av.Packet[Any]) -> None:
        """Take note of a packet that goes to the decoder."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or packet.size == 0 or packet.is_discard:
            return
        heapq.heappush(self._waiting, stamp)
        if packet.pts is not None and packet.dts is not None:
            delay, self._delay = self._delay, packet.pts - packet.dts
            self._stores_order |= delay not in (None, self._delay)

    def time_of(self, frame: av.VideoFrame) -> float:
        """The time of the next frame that came out of the decoder."""
        stamp = self._stamp(frame)
        if self.note is None and self.is_derived:
            self.note = self._rate()[1]
        if stamp is None:
            step_s = float(1 / self._rate()[0])
            time_s = self._n * step_s if self.is_derived else 0.0 if self._last_s is None else self._last_s + step_s
        else:
            time_s = float(stamp * (frame.time_base or self._stream.time_base))
        if self._last_s is not None and 0 < self._last_s - time_s < SMALL_STEP_S:
            time_s = self._last_s
        self._n += 1
        self._last_s = time_s
        return time_s

    def _stamp(self, frame: av.VideoFrame) -> int | None:
        own = frame.pts
        if own is None and not self._waiting:
            return None
        is_trusted = own is not None and (self._stores_order or not self._stream.codec_context.has_b_frames)
        if own is not None and (is_trusted or frame.key_frame):
            # Smaller stamps belong to packets that gave no frame: what comes later is shown later.
            while self._waiting and self._waiting[0] < own:
                heapq.heappop(self._waiting)
        smallest = heapq.heappop(self._waiting) if self._waiting else None
        return own if is_trusted or smallest is None else smallest

    def _rate(self) -> tuple[Fraction, str]:
        stated = self._stream.codec_context.framerate
        if stated is not None and not PLAUSIBLE_RATES[0] <= stated <= PLAUSIBLE_RATES[1]:
            stated = self._stream.guessed_rate  # MPEG-4 states ticks a second as its rate
        if stated:
            return stated, f"times derived from the {float(stated):.5g} frames a second that the stream states"
        return ASSUMED_RATE, f"no times and no rate in the file: {ASSUMED_RATE} frames a second assumed"
