"""The crop rule: geometry by hand-made numbers, and what a model gets to see."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfer_yolo.faces.align import crop_face, crop_square, cut, eye_angle
from deepfer_yolo.records import Face
from deepfer_yolo.runtime.card import CropSpec, InputSpec
from deepfer_yolo.runtime.preprocess import to_input

PLAIN = CropSpec(reference="longer", margin=0.0, alignment="none")


def face_at(x1: float, y1: float, x2: float, y2: float, angle: float = 0.0) -> Face:
    """A face whose eye line is tilted by `angle` degrees, clockwise."""
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    turn = np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.array([[-10, -10], [10, -10], [0, 0], [-8, 12], [8, 12]]) @ matrix.T + centre
    return Face(np.array([x1, y1, x2, y2], np.float32), 0.9, points.astype(np.float32))


def test_the_square_by_hand() -> None:
    face = face_at(100, 50, 140, 110)
    assert crop_square(face, PLAIN) == pytest.approx((120, 80, 60))
    assert crop_square(face, CropSpec(margin=0.1)) == pytest.approx((120, 80, 48))
    assert crop_square(face, CropSpec(margin=0.0, shift_x=0.1, shift_y=-0.25)) == pytest.approx((124, 70, 40))


def test_without_turning_the_crop_is_the_pixels_themselves() -> None:
    image = np.random.RandomState(0).randint(0, 255, (120, 160, 3)).astype(np.uint8)
    assert np.array_equal(cut(image, face_at(40, 30, 80, 70), PLAIN), image[30:70, 40:80])


def test_what_lies_outside_repeats_the_border() -> None:
    image = np.random.RandomState(0).randint(0, 255, (60, 60, 3)).astype(np.uint8)
    crop = cut(image, face_at(-20, 40, 20, 80), PLAIN)
    assert crop.shape == (40, 40, 3)
    assert np.array_equal(crop[:20, 20:], image[40:, :20])
    assert (crop[:, :20] == crop[:, 20:21]).all()
    assert (crop[20:] == crop[19:20]).all()


@pytest.mark.parametrize("angle", [-30, -10, 10, 45])
def test_a_tilted_face_is_turned_upright(angle: float) -> None:
    soft = cv2.GaussianBlur(np.random.RandomState(3).rand(200, 200, 3), (0, 0), 5)
    upright = np.clip(128 + 1200 * (soft - 0.5), 0, 255).astype(np.uint8)
    tilted = cv2.warpAffine(upright, cv2.getRotationMatrix2D((100, 100), -angle, 1.0), (200, 200))
    face = face_at(70, 70, 130, 130, angle)
    assert eye_angle(face) == pytest.approx(angle, abs=0.1)
    turned = cut(tilted, face, CropSpec(reference="longer", margin=0.0))
    wanted = upright[70:130, 70:130].astype(int)
    off = np.abs(turned - wanted).mean()
    assert off < 8
    assert np.abs(cut(tilted, face, PLAIN) - wanted).mean() > 3 * off


def test_eyes_one_above_the_other_turn_nothing() -> None:
    assert eye_angle(face_at(0, 0, 40, 40, 85)) == 0
    assert eye_angle(Face(np.array([0, 0, 9, 9], np.float32), 1.0)) == 0


def test_mirrored_landmarks_mean_the_same_tilt() -> None:
    face = face_at(0, 0, 40, 40, 12)
    swapped = Face(face.box, 0.9, face.landmarks[[1, 0, 2, 4, 3]])
    assert eye_angle(swapped) == pytest.approx(eye_angle(face))


def test_the_model_sees_grey_at_its_native_detail() -> None:
    image = np.random.RandomState(0).randint(0, 255, (480, 640, 3)).astype(np.uint8)
    spec = InputSpec(size=64, colour="grey", native_px=48)
    face = face_at(100, 100, 388, 388)
    crop = crop_face(image, face, PLAIN, spec)
    assert crop.shape == (64, 64, 3)
    assert (crop[:, :, 0] == crop[:, :, 1]).all()
    assert np.array_equal(crop, to_input(image[100:388, 100:388], spec))
    assert crop.std() < to_input(image[100:388, 100:388], InputSpec(size=64, colour="grey")).std()


def test_a_crop_needs_no_rule() -> None:
    image = np.random.RandomState(0).randint(0, 255, (48, 48, 3)).astype(np.uint8)
    spec = InputSpec(size=64, colour="grey", native_px=48)
    whole = Face(np.array([0, 0, 48, 48], np.float32), 1.0)
    assert np.array_equal(crop_face(image, whole, None, spec), to_input(image, spec))


@given(st.floats(-300, 300), st.floats(-300, 300), st.floats(0.5, 500), st.floats(0.5, 500), st.floats(-180, 180))
def test_any_box_gives_a_crop(x: float, y: float, width: float, height: float, angle: float) -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    crop = crop_face(image, face_at(x, y, x + width, y + height, angle), CropSpec(), InputSpec(size=32))
    assert crop.shape == (32, 32, 3)


def test_a_grey_image_enlarged_and_coloured_comes_back_nearly_as_it_was() -> None:
    """The rule's purpose: a sharp colour face looks to the model like the 48-pixel grey images it learned from."""
    small = cv2.GaussianBlur(np.random.RandomState(5).randint(0, 255, (48, 48)).astype(np.uint8), (0, 0), 1.5)
    spec = InputSpec(size=64, colour="grey", native_px=48)
    wanted = to_input(np.repeat(small[:, :, None], 3, axis=2), spec).astype(int)
    big = cv2.resize(small, (240, 240), interpolation=cv2.INTER_CUBIC)
    image = np.repeat(big[:, :, None], 3, axis=2)
    box = Face(np.array([0, 0, 240, 240], np.float32), 1.0)
    assert np.abs(crop_face(image, box, PLAIN, spec).astype(int) - wanted).mean() < 4
