"""Decoded video frames to RGB and back, by OpenCV from the YUV planes: FFmpeg's own converter is four times slower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deepfer_yolo.records import Image

if TYPE_CHECKING:
    import av

FULL_RANGE = 2
"""FFmpeg's AVCOL_RANGE_JPEG: luma from 0 to 255 instead of 16 to 235."""


def to_rgb(frame: av.VideoFrame) -> Image:
    """A decoded frame as uint8 RGB (H, W, 3), upright where the container asks for a rotation by a quarter turn."""
    import cv2

    name = frame.format.name
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    if name == "yuv420p" and frame.color_range != FULL_RANGE and even:
        image = cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
    elif name == "nv12" and frame.color_range != FULL_RANGE and even:
        image = cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_NV12)
    elif name in ("yuvj420p", "yuvj422p", "yuvj444p", "yuv420p", "yuv422p", "yuv444p") and (
        name.startswith("yuvj") or frame.color_range == FULL_RANGE
    ):
        image = _full_range(frame)
    else:
        image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    upright = np.rot90(image, turns) if turns else image
    return np.ascontiguousarray(upright, np.uint8)


def to_frame(image: Image) -> av.VideoFrame:
    """A uint8 RGB picture as a yuv420p frame; an odd last column or row is doubled, since 4:2:0 needs even sides."""
    import av
    import cv2

    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8), format="yuv420p")


def _full_range(frame: av.VideoFrame) -> Any:
    """JPEG-range planes: chroma enlarged to the size of luma, then OpenCV's full-range YCrCb conversion."""
    import cv2

    luma, blue, red = (_plane(plane) for plane in frame.planes[:3])
    shape = (frame.width, frame.height)
    if blue.shape != luma.shape:
        blue, red = (cv2.resize(plane, shape, interpolation=cv2.INTER_LINEAR) for plane in (blue, red))
    return cv2.cvtColor(cv2.merge([luma, red, blue]), cv2.COLOR_YCrCb2RGB)


def _plane(plane: Any) -> Any:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return np.ascontiguousarray(rows[: plane.height, : plane.width])
