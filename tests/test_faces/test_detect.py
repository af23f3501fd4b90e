"""Detectors on real images and on none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.errors import ConfigError, ModelError
from deepfer_yolo.faces.detect import HaarDetector, WholeDetector, YuNetDetector, find_face_model, open_detector
from deepfer_yolo.faces.track import overlap
from deepfer_yolo.presets import resolve
from deepfer_yolo.records import Image


@pytest.fixture
def yunet(shared_dir: Path) -> Path:
    return shared_dir / "models" / "face_detection_yunet_2023mar.onnx"


@pytest.fixture
def photo(shared_dir: Path) -> Image:
    """Two people, 1280×720."""
    return load_image(shared_dir / "media" / "zidane.jpg")


@pytest.mark.parametrize("size", [320, 640])
def test_yunet_finds_two_faces_with_landmarks_in_their_boxes(yunet: Path, photo: Image, size: int) -> None:
    faces = YuNetDetector(yunet, size=size, min_score=0.6).detect(photo)
    assert len(faces) == 2
    assert faces[0].score >= faces[1].score > 0.6
    for face in faces:
        assert face.landmarks is not None
        assert (face.landmarks > face.box[:2] - 5).all()
        assert (face.landmarks < face.box[2:] + 5).all()
        right_eye, left_eye, nose, *mouth = face.landmarks
        assert right_eye[0] < left_eye[0]
        assert max(right_eye[1], left_eye[1]) < nose[1] < max(point[1] for point in mouth)


def test_sizes_give_the_same_boxes_in_the_photos_own_pixels(yunet: Path, photo: Image) -> None:
    coarse, fine = (YuNetDetector(yunet, size=size, min_score=0.6).detect(photo) for size in (320, 960))
    assert len(coarse) == 2
    for face in coarse:
        assert max(overlap(face.box[None].astype(float), other.box[None].astype(float))[0, 0] for other in fine) > 0.75


def test_one_detector_takes_images_of_any_size(yunet: Path, photo: Image) -> None:
    detector = YuNetDetector(yunet, size=320, min_score=0.6)
    assert len(detector.detect(photo)) == 2
    assert detector.detect(np.zeros((7, 5, 3), np.uint8)) == []
    assert len(detector.detect(photo[:, ::2])) >= 1
    assert len(detector.detect(photo)) == 2


def test_rgb_is_what_comes_in(yunet: Path, photo: Image) -> None:
    right = YuNetDetector(yunet, size=320, min_score=0.6).detect(photo)
    swapped = YuNetDetector(yunet, size=320, min_score=0.6).detect(np.ascontiguousarray(photo[:, :, ::-1]))
    assert right[0].score > max((face.score for face in swapped), default=0.0)


def test_haar_finds_what_yunet_finds(yunet: Path, photo: Image) -> None:
    sure = YuNetDetector(yunet, size=320, min_score=0.6).detect(photo)[0]
    found = HaarDetector(size=640, min_score=0.6).detect(photo)
    assert max(overlap(sure.box[None].astype(float), face.box[None].astype(float))[0, 0] for face in found) > 0.4
    assert all(0 <= face.score <= 1 and face.landmarks is None for face in found)


@pytest.mark.parametrize("detector", [HaarDetector(size=640, min_score=0.0), WholeDetector()])
def test_empty_images_do_not_break_a_detector(detector: HaarDetector | WholeDetector) -> None:
    for shape in ((1, 1, 3), (30, 2000, 3), (480, 640, 3)):
        assert isinstance(detector.detect(np.zeros(shape, np.uint8)), list)


def test_the_file_is_found_by_flag_variable_and_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    assert find_face_model() is None
    assert open_detector(FaceConfig(), "image").name == "haar"
    pulled, named, flagged = (
        tmp_path / name for name in ("models/face_detection_yunet_2023mar.onnx", "named.onnx", "flagged.onnx")
    )
    for path in (pulled, named, flagged):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert find_face_model() == pulled
    monkeypatch.setenv("DEEPFER_FACE_MODEL", str(named))
    assert find_face_model() == named
    assert find_face_model(flagged) == flagged


def test_missing_files_and_unknown_names_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    with pytest.raises(ModelError, match="YuNet"):
        open_detector(FaceConfig(detector="yunet"), "image")
    with pytest.raises(ModelError, match=r"none\.onnx"):
        find_face_model(tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match="retina"):
        resolve(FaceConfig, None, {"detector": "retina"})
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"junk\.onnx"):
        YuNetDetector(tmp_path / "junk.onnx", size=320, min_score=0.6)


@pytest.mark.parametrize("kind", ["yunet", "haar"])
def test_a_video_shows_the_faces_of_an_image_and_weaker_ones_to_carry_tracks(
    yunet: Path, photo: Image, kind: str
) -> None:
    config = resolve(FaceConfig, None, {"detector": kind, "face_model": yunet, "detect_size_px": 320, "min_score": 0.7})
    sure, all_found = open_detector(config, "image").detect(photo), open_detector(config, "video").detect(photo)
    assert [face.score for face in sure] == [face.score for face in all_found if face.score >= 0.7]
    assert all_found[-1].score >= config.carry_score == 0.35
    if kind == "yunet":
        assert len(sure) == 2 < len(all_found)
