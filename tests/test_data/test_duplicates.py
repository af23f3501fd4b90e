"""Near copies: planted ones are found, unrelated faces are not, and FER2013 has the same pairs as ever."""

from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deepfer_yolo.data.dataset import open_dataset, read_description, read_manifest, register
from deepfer_yolo.data.duplicates import best_correlations, copies_in_train, group, near_pairs, thumbnail
from deepfer_yolo.data.layouts.fer2013 import read_csv
from deepfer_yolo.data.layouts.item import Reading
from deepfer_yolo.data.near_candidates import Shapes, candidates, cell_pairs, high_pass, pairs_within
from deepfer_yolo.files import sha256_of
from deepfer_yolo.painted import paint_faces

Grey = NDArray[np.uint8]


def jpeg(face: Grey) -> Grey:
    file = io.BytesIO()
    PillowImage.fromarray(face).save(file, "JPEG", quality=50)
    return np.asarray(PillowImage.open(file))


def crop(face: Grey) -> Grey:
    return np.asarray(
        PillowImage.fromarray(face).resize((48, 48), PillowImage.Resampling.BILINEAR, box=(1.44, 1.44, 46.56, 46.56))
    )


PLANTED = {
    "jpeg": jpeg,
    "crop": crop,
    "brighter": lambda face: np.clip(face * 1.1, 0, 255).astype(np.uint8),
    "darker": lambda face: (face * 0.9).astype(np.uint8),
    "shifted": lambda face: np.pad(face, ((0, 0), (1, 0)), "edge")[:, :48],
}

FER2013_PAIRS = "427bb984344fb760bd4dccbef977f5ccb22f6b97ecb20c33c332420c944db686"
"""SHA-256 of the pairs of Training and PublicTest that were found before coarse correlations."""


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_near_copies_are_found(kind: str) -> None:
    faces, _ = paint_faces(3, 100)
    thumbs = np.stack([thumbnail(face) for face in [*faces, *(PLANTED[kind](face) for face in faces)]])
    found = {tuple(pair) for pair in near_pairs(thumbs).tolist()}
    assert sum((index, index + 100) in found for index in range(100)) >= 95


def test_unrelated_faces_are_not_copies() -> None:
    thumbs = np.stack([thumbnail(face) for face in paint_faces(3, 400)[0]])
    assert len(near_pairs(thumbs)) <= 8  # of 79,800 pairs; painted people are more alike than real ones


def test_the_frames_of_a_video_pair_with_one_frame_and_one_of_each_split() -> None:
    face, random = paint_faces(3, 1)[0][0], np.random.default_rng(0)
    frames = [
        np.clip(face.astype(int) + random.integers(-3, 4, face.shape), 0, 255).astype(np.uint8) for _ in range(600)
    ]
    others = [thumbnail(face) for face in paint_faces(4, 50)[0]]
    thumbs = np.stack([*map(thumbnail, frames), *others])
    splits = np.array([0] * 400 + [1] * 200 + [0] * 50)
    pairs = near_pairs(thumbs, correlation=0.98, kinds=splits)
    assert len(pairs) < 6000  # of 179,700
    groups = group(len(thumbs), pairs)
    assert len(set(groups[:600].tolist())) == 1
    across = pairs[splits[pairs[:, 0]] != splits[pairs[:, 1]]]
    assert set(range(400, 600)) <= set(across[:, 1].tolist())  # each held-out frame is seen to leak


def test_blank_images_never_pair() -> None:
    assert len(near_pairs(np.full((50, 32, 32), 9, np.uint8))) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_the_hashes_of_all_pairs_are_compared(seed: int, radius: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**63, 60, dtype=np.uint64)
    for index in range(1, 60, 2):  # a neighbour at every distance up to 23
        hashes[index] = hashes[index - 1] ^ np.uint64(
            sum(1 << int(bit) for bit in random.choice(64, index % 24, replace=False))
        )
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = [(i, j) for i in range(60) for j in range(i + 1, 60) if distance[i, j] <= radius]
    assert [tuple(pair) for pair in pairs_within(hashes, radius).tolist()] == expected


@pytest.mark.slow
def test_fer2013_has_the_pairs_that_the_search_without_coarse_correlations_found(shared_dir: Path) -> None:
    source = shared_dir / "datasets" / "fer2013_dev.csv.gz"
    if not source.is_file():
        pytest.skip("needs the FER2013 csv in shared/")
    thumbs = np.stack([thumbnail(item.pixels) for item in read_csv(Reading(source)) if item.pixels is not None])
    pairs = near_pairs(thumbs)
    digest = hashlib.sha256(pairs.astype("<i8").tobytes()).hexdigest()
    assert (len(pairs), digest) == (6989, FER2013_PAIRS)
    shapes = Shapes.of(thumbs)
    in_cells = {tuple(pair) for pair in cell_pairs(shapes, shapes.alive, 14).tolist()}
    missed = sum(tuple(pair) not in in_cells for pair in pairs.tolist())
    assert missed <= 21  # 0.3 %


def test_cells_and_coarse_correlations_keep_planted_copies() -> None:
    faces, _ = paint_faces(11, 5000)
    thumbs = np.stack([*map(thumbnail, faces), *(thumbnail(PLANTED["crop"](face)) for face in faces[:200])])
    shapes = Shapes.of(thumbs)
    wanted = {tuple(pair) for pair in near_pairs(thumbs[[*range(200), *range(5000, 5200)]]).tolist()}
    planted = [(index, index + 5000) for index in range(200) if (index, index + 200) in wanted]
    assert len(planted) >= 190
    for found in (candidates(shapes, shapes.alive, 14, 0.9), cell_pairs(shapes, shapes.alive, 14)):
        pairs = {tuple(pair) for pair in found.tolist()}
        assert sum(pair in pairs for pair in planted) >= 0.99 * len(planted)


def test_no_images_and_one() -> None:
    assert pairs_within(np.empty(0, np.uint64), 10).shape == (0, 2)
    assert pairs_within(np.zeros(1, np.uint64), 10).shape == (0, 2)


def test_no_pair_to_search_and_one_that_is_hopeless() -> None:
    assert len(best_correlations(np.empty((0, 32, 32), np.float32), np.empty((0, 32, 32), np.float32), 0.9)) == 0
    one, two = high_pass(np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8))[0][:, None]
    assert best_correlations(one, two, 0.9)[0] < 0.5
    assert best_correlations(one, one, 0.9)[0] == pytest.approx(1, abs=1e-3)


def test_groups_join_chains() -> None:
    assert group(6, np.array([[3, 4], [1, 3], [0, 5]])).tolist() == [0, 1, 2, 1, 1, 0]


def test_copies_in_train(painted_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(painted_dataset, tmp_path / "set")
    before = copies_in_train(open_dataset(tmp_path / "set"), "val")
    assert len(before) <= 1
    source = next((tmp_path / "set" / "train" / "happy").iterdir())
    near = sorted((tmp_path / "set" / "val" / "fear").iterdir())[0]
    PillowImage.fromarray(jpeg(np.asarray(PillowImage.open(source)))).save(near)
    path = near.relative_to(tmp_path / "set").as_posix()
    rows = [
        replace(row, sha256=sha256_of(near)) if row.path == path else row for row in read_manifest(tmp_path / "set")
    ]
    register(rows, read_description(tmp_path / "set"), tmp_path / "set")
    assert copies_in_train(open_dataset(tmp_path / "set"), "val") == before | {path}
