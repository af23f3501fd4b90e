"""Fixtures of the web app's tests: running servers, images, a video."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.painted import paint_faces, paint_frames
from deepfer_yolo.records import Image


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Any], linear_model: Path) -> Any:
    """A server without a limit on the rate."""
    return start_server(linear_model, rate_per_s=0)


@pytest.fixture
def client(server: Any) -> Iterator[httpx.Client]:
    """A client of `server`."""
    with httpx.Client(base_url=server.url, timeout=30) as opened:
        yield opened


@pytest.fixture(scope="session")
def png() -> Callable[[Image], bytes]:
    """A function that gives an image as the bytes of a PNG."""

    def encode(image: Image) -> bytes:
        content = io.BytesIO()
        PillowImage.fromarray(image).save(content, "PNG")
        return content.getvalue()

    return encode


@pytest.fixture(scope="session")
def faces() -> list[Image]:
    """Eight painted faces, 48 pixels."""
    return [np.repeat(face[:, :, None], 3, axis=2) for face in paint_faces(seed=21, n=8)[0]]


@pytest.fixture(scope="session")
def scene() -> list[Image]:
    """Images of 320×240 in which one painted face, the only one that the Haar detector finds, goes from happy to
    surprised.
    """
    from deepfer_yolo.config import FaceConfig
    from deepfer_yolo.faces.detect import open_detector

    detector = open_detector(FaceConfig(detector="haar"), "image")
    for seed in range(200):
        images = []
        for frame in paint_frames(seed, ("happy", "surprise"), 4, 160):
            image = np.full((240, 320, 3), (90, 110, 130), np.uint8)
            image[40:200, 80:240] = frame
            if len(detector.detect(image)) != 1:
                break
            images += [image, image]
        else:
            return images
    pytest.fail("the Haar detector finds no painted face")


@pytest.fixture(scope="session")
def write_video(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """A function that gives images as the bytes of a video file whose first image has the number `first`."""

    def write(images: list[Image], suffix: str = ".mp4", fps: int = 8, first: int = 0) -> bytes:
        import av

        path = tmp_path_factory.mktemp("video") / f"clip{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for index, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = first + index, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()

    return write
