"""How an image is searched: sizes, tiles, duplicates, the second look, and what is refused before native code."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfer_yolo.faces.search import BASE_PX, OVERLAP_PX, STEP, TILE_PX, search, sizes, tiles
from deepfer_yolo.faces.track import overlap
from deepfer_yolo.records import Face, Image


def marks(image: Image, least_px: int = 20, most_px: int = 350) -> list[Face]:
    """A detector of red patches from `least_px` to `most_px`, whose score falls with what is cut off."""
    assert max(image.shape[:2]) <= TILE_PX
    red = ((image[:, :, 0] > 128) & (image[:, :, 1] < 100)).astype(np.uint8)
    faces = []
    for x, y, width, height, area in cv2.connectedComponentsWithStats(red)[2][1:]:
        if least_px <= max(width, height) <= most_px and area >= 0.6 * width * height:
            squareness = min(width, height) / max(width, height)
            faces.append(Face(np.array([x, y, x + width, y + height], np.float32), 0.95 * squareness**0.5))
    return faces


def painted(height: int, width: int, squares: list[tuple[int, int, int]]) -> Image:
    image = np.full((height, width, 3), 120, np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = (220, 30, 30)
    return image


def are_at(faces: list[Face], squares: list[tuple[int, int, int]]) -> bool:
    true = np.array([(x, y, x + side, y + side) for x, y, side in squares], float)
    found = np.array([face.box for face in faces], float).reshape(-1, 4)
    return len(found) == len(true) and bool((overlap(true, found).max(axis=1) > 0.8).all())


@pytest.mark.parametrize(
    ("height", "width", "size_px", "expected"),
    [
        (720, 1280, 4096, [(720, 1280), (180, 320)]),
        (720, 1280, 320, [(180, 320)]),
        (720, 1280, 640, [(360, 640), (180, 320)]),
        (3024, 4032, 4096, [(3024, 4032), (852, 1136), (240, 320)]),
        (4000, 6000, 4096, [(2731, 4096), (763, 1145), (213, 320)]),
        (300, 400, 4096, [(300, 400)]),
        (48, 48, 4096, [(160, 160)]),
        (120, 160, 320, [(160, 213)]),
        (1, 1, 4096, [(160, 160)]),
    ],
)
def test_sizes_by_hand(height: int, width: int, size_px: int, expected: list[tuple[int, int]]) -> None:
    assert sizes(height, width, size_px) == expected


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(32, 4096))
def test_sizes_leave_no_gap_and_never_pass_the_limit(height: int, width: int, size_px: int) -> None:
    longer = [max(size) for size in sizes(height, width, size_px)]
    assert longer[0] <= size_px
    assert longer[-1] <= 420
    assert all(1 < large / small <= STEP * 1.01 for large, small in itertools.pairwise(longer))
    if max(height, width) >= size_px >= BASE_PX:
        assert longer[0] == size_px


@given(st.integers(1, 9000))
def test_tiles_cover_a_side_and_overlap(length: int) -> None:
    parts = list(tiles(length))
    assert parts[0][0] == 0
    assert parts[-1][1] == length
    assert all(end - start <= TILE_PX for start, end in parts)
    assert all(before[1] - after[0] >= OVERLAP_PX - 1 for before, after in itertools.pairwise(parts))


@pytest.mark.parametrize("seed", range(4))
def test_faces_of_all_sizes_are_found_once_wherever_they_lie(seed: int) -> None:
    random = np.random.RandomState(seed)
    cells = [(x, y) for y in range(0, 2400, 480) for x in range(0, 3200, 480) if x + 480 <= 3200]
    squares = []
    for x, y in cells:
        side = round(math.exp(random.uniform(math.log(20), math.log(440))))
        squares.append((x + random.randint(0, 479 - side), y + random.randint(0, 479 - side), side))
    assert are_at(search(painted(2400, 3200, squares), 4096, 0.7, marks), squares)


def test_a_face_fills_an_image_of_any_size() -> None:
    for side in (60, 300, 900, 2500):
        assert are_at(search(painted(side, side, [(0, 0, side)]), 4096, 0.7, marks), [(0, 0, side)]), side


def test_a_small_face_that_is_not_sure_is_looked_at_again_enlarged() -> None:
    squares = [(100, 100, 22), (124, 100, 21), (900, 650, 20), (5, 690, 24), (400, 300, 90)]
    looked: list[tuple[int, ...]] = []

    def look(image: Image) -> list[Face]:
        looked.append(image.shape[:2])
        return [Face(face.box, 0.5 if face.box[2] - face.box[0] < 30 else 0.9) for face in marks(image)]

    image = painted(720, 960, squares)
    assert are_at(search(image, 4096, 0.7, look), squares)
    # The first two lie in one window; the others' reach past the border.
    assert sorted(looked[2:]) == [(164, 256), (248, 228), (256, 256)]
    assert len(search(image, 900, 0.7, look)) == 1, "an image that is reduced has no more to show"
    assert len(search(image, 4096, 0.35, look)) == 5


def test_two_faces_side_by_side_are_two() -> None:
    squares = [(200, 200, 80), (282, 200, 80), (200, 282, 80)]
    assert are_at(search(painted(1500, 1500, squares), 4096, 0.7, marks), squares)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((50, 50, 3), np.float32),
        np.zeros((50, 50), np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros((0, 50, 3), np.uint8),
        np.zeros((50, 50, 3), np.int8),
    ],
)
def test_what_is_no_image_is_refused_before_native_code(image: Image) -> None:
    with pytest.raises(ValueError, match="faces are searched in uint8"):
        search(image, 4096, 0.7, lambda _: pytest.fail("it was looked at"))
