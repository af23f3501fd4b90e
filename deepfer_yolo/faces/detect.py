"""Face detectors behind one Protocol. OpenCV wants BGR; the swap happens here and is not seen outside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.errors import MissingDependencyError, ModelError
from deepfer_yolo.records import Boxes, Face, Image
from deepfer_yolo.runtime.model_file import pulled

MODEL_VARIABLE = "DEEPFER_FACE_MODEL"
YUNET_NAME = "yunet"
HAAR_NOTE = (
    "no YuNet file: faces are searched by OpenCV's Haar cascade, which is slower and finds fewer "
    "(deepfer models pull yunet)"
)
"""Said on stderr where `auto` falls back to Haar."""
DETECT_SIZE, YUNET_VIDEO_SIZE = 640, 320
"""The longer side, in pixels, of what a detector sees where the configuration names none.

In a video YuNet takes the smaller one: 3.5 instead of 8.5 ms per 720p frame, and a face that one frame misses is found
in another.
"""


class Detector(Protocol):
    """What finds faces in an image."""

    name: str
    boxes: Boxes

    def detect(self, image: Image) -> list[Face]:
        """Faces in a uint8 RGB image, boxes in its pixels, best score first."""
        ...


class WholeDetector:
    """The whole image is one face: for clips and images that are face crops already."""

    name = "whole"
    boxes: Boxes = "crop"

    def detect(self, image: Image) -> list[Face]:
        """One face with the image's own box."""
        height, width = image.shape[:2]
        return [Face(np.array([0, 0, width, height], np.float32), 1.0)]


class YuNetDetector:
    """OpenCV's FaceDetectorYN with a YuNet file: boxes, scores, five landmarks; `size` is its images' longer side."""

    name = YUNET_NAME
    boxes: Boxes = "face"

    def __init__(self, path: Path, *, size: int, min_score: float) -> None:
        import cv2

        if not path.is_file():
            raise ModelError(f"no such face detector file: {path}", "deepfer models pull yunet fetches it")
        self._size = size
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (size, size), min_score, 0.3, 500)
        except cv2.error as error:
            why = f"{path} is not a YuNet file that OpenCV can open: {error.err or error}"
            raise ModelError(why, "deepfer models pull yunet fetches one") from None
        self._shape = (size, size)

    def detect(self, image: Image) -> list[Face]:
        """Faces in a uint8 RGB image, boxes and landmarks in its pixels, best score first."""
        import cv2

        small, scale = _shrink(image, self._size)
        shape = (small.shape[1], small.shape[0])
        if shape != self._shape:
            self._net.setInputSize(shape)
            self._shape = shape
        found: Any = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
        if found is None:
            return []
        rows = np.asarray(found)
        rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float32)
        faces = []
        for row in rows[np.argsort(-rows[:, 14], kind="stable")]:
            x, y, width, height = row[:4] / scale
            if width > 0 and height > 0:
                box = np.array([x, y, x + width, y + height], np.float32)
                faces.append(Face(box, float(row[14]), (row[4:14] / scale).reshape(5, 2)))
        return faces


class HaarDetector:
    """OpenCV's frontal-face cascade, which is always there: slower, frontal faces only, no landmarks."""

    name = "haar"
    boxes: Boxes = "face"

    def __init__(self, *, size: int, min_score: float) -> None:
        import cv2

        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        if not path.is_file():
            raise MissingDependencyError("this OpenCV carries no Haar cascade", 'pip install "opencv-python>=4.10,<5"')
        self._size = size
        self._min_score = min_score
        self._cascade = cv2.CascadeClassifier(str(path))

    def detect(self, image: Image) -> list[Face]:
        """Faces in a uint8 RGB image, best first; the score is the cascade's last stage weight, squeezed to 0..1."""
        import cv2

        small, scale = _shrink(image, self._size)
        grey = cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        least = max(24, min(grey.shape) // 12)
        found = self._cascade.detectMultiScale3(grey, 1.1, 5, minSize=(least, least), outputRejectLevels=True)
        boxes, weights = np.asarray(found[0]).reshape(-1, 4), np.asarray(found[2]).ravel()
        faces = []
        for (x, y, width, height), score in zip(boxes, 1 / (1 + np.exp(-weights / 2)), strict=True):
            if score >= self._min_score:
                box = np.array([x, y, x + width, y + height], np.float32) / np.float32(scale)
                faces.append(Face(box, float(score)))
        return sorted(faces, key=lambda face: -face.score)


def find_face_model(path: Path | None = None) -> Path | None:
    """The YuNet file: `path`, else $DEEPFER_FACE_MODEL, else the pulled one; a named one must be there."""
    named = path or (Path(os.environ[MODEL_VARIABLE]) if os.environ.get(MODEL_VARIABLE) else None)
    if named is None:
        return pulled(YUNET_NAME)
    if not named.is_file():
        hint = f"check --face-model and ${MODEL_VARIABLE}; deepfer models pull yunet fetches it"
        raise ModelError(f"no such face detector file: {named}", hint)
    return named


def open_detector(config: FaceConfig, use: Literal["image", "video"]) -> Detector:
    """The detector of `config`: `yunet`, `haar`, `whole`, or for `auto` YuNet where its file is there, else Haar.

    Made for a video, it also tells the weaker faces that carry on a track; the tracker must know `config.min_score`.
    Raises ModelError where `yunet` is asked for and its file is missing.
    """
    if config.detector == "whole":
        return WholeDetector()
    min_score = config.min_score if use == "image" else config.carry_score
    path = find_face_model(config.face_model) if config.detector != "haar" else None
    if path is not None:
        size = config.detect_size_px or (DETECT_SIZE if use == "image" else YUNET_VIDEO_SIZE)
        return YuNetDetector(path, size=size, min_score=min_score)
    if config.detector == "yunet":
        hint = "deepfer models pull yunet fetches it; --detector haar needs no file"
        raise ModelError("the YuNet face detector file is not here", hint)
    return HaarDetector(size=config.detect_size_px or DETECT_SIZE, min_score=min_score)


def _shrink(image: Image, size: int) -> tuple[Image, float]:
    """The image with its longer side at most `size`, and the scale it was reduced by."""
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, size / max(height, width))
    if scale == 1.0:
        return image, 1.0
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), np.uint8), scale
