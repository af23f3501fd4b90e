"""A decoded frame as the image that a person sees: its colours by its own tags, square pixels, upright."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.records import Image

if TYPE_CHECKING:
    import av

MAX_ASPECT = 4
"""Pixels more than this many times as wide as high, or as high as wide, are a broken tag: real ones reach 2.9."""
LEAST_STRETCH = 0.01
"""Less than this is not seen, and not worth a resize of each frame: 401 instead of 400 columns."""
BT601, LIMITED = 6, 1
"""FFmpeg's AVCOL_SPC_SMPTE170M and AVCOL_RANGE_MPEG."""
MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
"""Colour matrices that FFmpeg's scaler knows; it refuses the others: YCgCo, constant luminance, ICtCp."""
BT2020, BT2020_CONSTANT = 9, 10
HDR = {16: "PQ", 18: "HLG"}
"""Transfer curves of high dynamic range, by FFmpeg's AVCOL_TRC number."""
QUICK = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p")
"""Formats that FFmpeg's scaler turns into RGB at once: 0.4 ms a 720p frame, others 2 to 4 (one thread)."""
SDR_WHITE_NITS, HDR_PEAK_NITS = 203.0, 1000.0
"""Reference white (ITU-R BT.2408), and the peak of HLG's nominal display, which most PQ is mastered for as well."""
SDR_GAMMA = 2.4
"""ITU-R BT.1886."""


class FrameConverter:
    """Turns the frames of one source into images; `notes` says, once each, what became of their colours."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        # One for each step: a reformatter builds its tables anew whenever its formats change.
        self._to_quick, self._to_rgb24 = VideoReformatter(), VideoReformatter()
        self.notes: list[str] = []

    def image(self, frame: av.VideoFrame, pixel_aspect: Fraction | None = None) -> Image:
        """Uint8 RGB (H, W, 3) of square pixels; `pixel_aspect` is the width of the frame's own to their height."""
        image = self._rgb(frame)
        if frame.color_trc in HDR:
            self._note(f"{HDR[frame.color_trc]} shown in standard range")
            image = to_standard_range(image, HDR[frame.color_trc])
        return np.ascontiguousarray(upright(squared(image, pixel_aspect), display_matrix(frame)))

    def _rgb(self, frame: av.VideoFrame) -> Image:
        if frame.colorspace not in MATRICES:
            near, name = (BT2020, "BT.2020") if frame.colorspace == BT2020_CONSTANT else (BT601, "BT.601")
            self._note(f"colour matrix {frame.colorspace} is not known, read as {name}")
            frame.colorspace = near
        name = frame.format.name
        # Also closer to the truth than the direct way: nv12 in BT.709 1.2 instead of 2.1 levels off on average.
        quick = _quick_format(name)
        if quick is not None and name != quick:
            frame = self._to_quick.reformat(frame, format=quick, threads=1)
        image = self._to_rgb24.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.asarray(image, np.uint8)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@cache
def _quick_format(name: str) -> str | None:
    """The 8-bit format of `QUICK` with the same chroma as the YUV format `name`; None where there is none."""
    if name in QUICK:
        return name
    if name.startswith(("yuv420p", "p01", "nv12", "nv21")):
        return "yuv420p"
    return "yuv422p" if name.startswith(("yuv422p", "p21", "nv16", "yuyv422", "uyvy422")) else None


def to_rgb(frame: av.VideoFrame) -> Image:
    """One decoded frame of square pixels as uint8 RGB (H, W, 3), upright; a source has a `FrameConverter`."""
    return FrameConverter().image(frame)


def squared(image: Image, pixel_aspect: Fraction | None) -> Image:
    """The image with square pixels: the side that is too short is stretched, so that nothing is lost.

    Cubic as FFmpeg does it: of 45 faces in a clip of half width a linear one finds 53, a cubic one 46.
    """
    import cv2

    aspect = float(pixel_aspect or 1)
    if abs(aspect - 1) < LEAST_STRETCH or not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        return image
    height, width = image.shape[:2]
    shape = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_CUBIC), np.uint8)


def display_matrix(frame: av.VideoFrame) -> NDArray[np.int32] | None:
    """The upper left (2, 2) of the matrix that the container gives to a frame, None where it gives none.

    `frame.rotation` is an angle alone and loses mirrors: a left-right mirror reads as −180.
    """
    from av.sidedata.sidedata import SideDataContainer

    # `frame.side_data` would keep its frame alive until the next full garbage collection: a gigabyte at 4K.
    found: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    return None if found is None else np.frombuffer(found, np.int32, 9).reshape(3, 3)[:2, :2]


def upright(image: Image, matrix: NDArray[np.int32] | None) -> Image:
    """The image turned by quarters and mirrored as a display matrix asks, nearest where its angle lies between."""
    import cv2

    if matrix is None:
        return image
    # x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 6.2.2).
    (a, b), (c, d) = matrix.astype(np.int64)
    if a * d - b * c == 0:
        return image
    is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
    x, y = (c, b) if is_transposed else (a, d)
    turned: Any = cv2.transpose(image) if is_transposed else image
    if x < 0 or y < 0:
        turned = cv2.flip(turned, -1 if x < 0 and y < 0 else 1 if x < 0 else 0)
    return np.asarray(turned, np.uint8)


def to_standard_range(image: Image, transfer: str) -> Image:
    """HLG or PQ in BT.2020, uint8 RGB (H, W, 3), as BT.709 for an ordinary display; bright light is rolled off.

    FFmpeg's own mapping takes three seconds before the first frame, and cuts off what is brighter than white.
    """
    import cv2

    linear: Any = cv2.LUT(image, _linear_table(transfer))
    # By the square root, the 8-bit steps lie nearly as the display's gamma wants them.
    roots: Any = cv2.sqrt(np.maximum(cv2.transform(linear, BT2020_TO_BT709), 0))
    return np.asarray(cv2.LUT(cv2.convertScaleAbs(roots, alpha=255), GAMMA_OF_ROOT), np.uint8)


@cache
def _linear_table(transfer: str) -> NDArray[np.float32]:
    """Linear light, 1 at the display's white, of each of 256 signal levels (ITU-R BT.2100), highlights compressed."""
    signal = np.linspace(0, 1, 256)
    if transfer == "PQ":
        nits = _pq_to_nits(signal)
    else:
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        nits = HDR_PEAK_NITS * scene**1.2
    return (_rolled_off(nits) / SDR_WHITE_NITS).astype(np.float32)


def _rolled_off(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light up to `HDR_PEAK_NITS` brought under `SDR_WHITE_NITS` by the Hermite spline of ITU-R BT.2390, 5.4.1."""
    level = np.minimum(_nits_to_pq(nits) / _nits_to_pq(HDR_PEAK_NITS), 1)
    white = _nits_to_pq(SDR_WHITE_NITS) / _nits_to_pq(HDR_PEAK_NITS)
    knee = 1.5 * white - 0.5
    t = np.clip((level - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    return np.asarray(_pq_to_nits(np.where(level < knee, level, spline) * _nits_to_pq(HDR_PEAK_NITS)))


def _pq_to_nits(signal: Any) -> Any:
    root = np.power(signal, 32 / 2523)
    return 10000 * np.power(np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root), 8192 / 1305)


def _nits_to_pq(nits: Any) -> Any:
    power = np.power(np.asarray(nits) / 10000, 1305 / 8192)
    return np.power((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power), 2523 / 32)


BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""ITU-R BT.2087."""
GAMMA_OF_ROOT = np.rint(255 * np.linspace(0, 1, 256) ** (2 / SDR_GAMMA)).astype(np.uint8)


def to_frame(image: Image) -> av.VideoFrame:
    """A uint8 RGB image as a yuv420p frame in BT.601 and limited range; `tag` says so to an encoder.

    An odd last column or row is doubled, since 4:2:0 needs even sides.
    """
    import av
    import cv2

    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.colorspace, frame.color_range = BT601, LIMITED
    return frame


def tag(encoder: Any) -> None:
    """Let the file say which colours `to_frame` makes: players take an HD video without tags for BT.709."""
    encoder.colorspace, encoder.color_range = BT601, LIMITED
