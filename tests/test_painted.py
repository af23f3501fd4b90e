"""Painted faces are the same bytes on every machine: their hashes are frozen here."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np

from deepfer_yolo.emotions import EMOTIONS, FER2013_CODES
from deepfer_yolo.painted import paint_csv, paint_faces, paint_frames, paint_golden


def test_the_bytes_of_the_golden_inputs_are_frozen() -> None:
    golden = paint_golden(seed=2013, n=4, size=64)
    assert golden.shape == (4, 64, 64, 3)
    assert golden.dtype == np.uint8
    assert (
        hashlib.sha256(golden.tobytes()).hexdigest()
        == "f970afc33751872904a019e3f3f94886657e06c5ff35d536111d261f1692ca08"
    )


def test_golden_inputs_notice_swapped_channels() -> None:
    golden = paint_golden(seed=2013, n=4, size=64).astype(int)
    assert all(np.abs(image - image[:, :, ::-1]).mean() > 5 for image in golden)


def test_labels_are_balanced_and_the_seed_decides() -> None:
    faces, labels = paint_faces(3, 70)
    assert np.bincount(labels).tolist() == [10] * len(EMOTIONS)
    again, _ = paint_faces(3, 70)
    assert np.array_equal(faces, again)
    assert not np.array_equal(faces, paint_faces(4, 70)[0])


def test_csv_has_fer2013s_form(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    paint_csv(path, seed=5, n_train=14, n_val=7, n_test=7)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["Usage"] for row in rows] == ["Training"] * 14 + ["PublicTest"] * 7 + ["PrivateTest"] * 7
    faces, labels = paint_faces(15, 14)
    assert [FER2013_CODES[int(row["emotion"])] for row in rows[:14]] == [EMOTIONS[label] for label in labels]
    assert np.array_equal(np.array([row["pixels"].split() for row in rows[:14]], np.uint8).reshape(14, 48, 48), faces)


def test_frames_show_one_face_that_moves_from_label_to_label() -> None:
    frames = list(paint_frames(1, ("happy", "surprise"), frames_per_label=3, size=96))
    assert len(frames) == 6
    assert {frame.shape for frame in frames} == {(96, 96, 3)}
    assert not np.array_equal(frames[0], frames[2])
