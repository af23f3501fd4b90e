"""Each lack has its reason, and the figures are those of their names, at any size of the crop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfer_yolo.config import LabelConfig
from deepfer_yolo.faces.quality import lack_of, quality_of
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.records import Face, Image
from deepfer_yolo.runtime.preprocess import resize

CONFIG = LabelConfig(min_face_px=16, min_brightness=20, min_contrast=10, min_sharpness=0.08, max_sharpness=1)


def face_of(width: float, height: float) -> Face:
    return Face(np.array([10, 20, 10 + width, 20 + height], np.float32), 0.9)


@pytest.fixture(scope="module")
def crop() -> Image:
    face: NDArray[np.uint8] = resize(paint_faces(3, 1)[0][0], 64, 64)
    return np.repeat(face[:, :, None], 3, axis=2)


def test_the_figures_by_hand() -> None:
    half = np.zeros((48, 48, 3), np.uint8)
    half[:, 24:] = 100
    quality = quality_of(face_of(30, 22), half)
    assert (quality.size_px, quality.brightness, quality.contrast) == (22, 50, 50)
    assert quality.sharpness == pytest.approx((100**2 / 47) / 50**2), "one step of 100 among 47 in each row"


def test_the_figures_do_not_depend_on_the_input_size(crop: Image) -> None:
    small = np.repeat(resize(crop[:, :, 0], 48, 48)[:, :, None], 3, axis=2)
    one, other = quality_of(face_of(60, 60), crop), quality_of(face_of(60, 60), small)
    assert one.brightness == pytest.approx(other.brightness, abs=0.5)
    assert one.contrast == pytest.approx(other.contrast, rel=0.02)
    assert one.sharpness == pytest.approx(other.sharpness, rel=0.1)


def test_a_small_input_is_not_taken_for_a_blurred_one(crop: Image) -> None:
    tiny = np.repeat(resize(crop[:, :, 0], 32, 32)[:, :, None], 3, axis=2)
    assert quality_of(face_of(60, 60), tiny).sharpness > quality_of(face_of(60, 60), crop).sharpness


def test_each_lack_is_found_and_the_plainest_is_named(crop: Image) -> None:
    seen = quality_of(face_of(60, 60), crop)
    assert lack_of(seen, CONFIG) is None
    assert lack_of(quality_of(face_of(60, 15), crop), CONFIG) == "small"
    assert lack_of(quality_of(face_of(60, 60), crop // 8), CONFIG) == "dark"
    assert lack_of(quality_of(face_of(60, 60), 120 + crop // 20), CONFIG) == "flat"
    soft = np.repeat(resize(resize(crop[:, :, 0], 6, 6), 64, 64)[:, :, None], 3, axis=2)
    assert lack_of(quality_of(face_of(60, 60), soft), CONFIG) == "blurred"
    noise = np.random.default_rng(0).normal(0, 60, (48, 48, 1))
    noisy = np.clip(np.repeat(resize(crop[:, :, 0], 48, 48)[:, :, None], 3, axis=2) + noise, 0, 255).astype(np.uint8)
    assert lack_of(quality_of(face_of(60, 60), noisy), CONFIG) == "noisy"
    assert lack_of(quality_of(face_of(9, 9), np.zeros_like(crop)), CONFIG) == "small"


def test_a_single_grey_is_flat_and_each_limit_is_a_setting(crop: Image) -> None:
    single = quality_of(face_of(60, 60), np.full_like(crop, 120))
    assert lack_of(single, CONFIG) == "flat"
    lenient = CONFIG.model_copy(update={"min_face_px": 0, "min_brightness": 0, "min_contrast": 0, "min_sharpness": 0})
    assert lack_of(replace(single, size_px=1), lenient) is None
