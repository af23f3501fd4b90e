"""Which held-out images a model has learned, whatever they are called and however they are stored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import Dataset, load_images, open_dataset, read_description, read_manifest, register
from deepfer_yolo.data.leaks import BLANK, Hashes, LeakGuard, Overlap, image_hash
from deepfer_yolo.errors import LeakError
from deepfer_yolo.files import sha256_of


@pytest.fixture(scope="module")
def official(painted_dataset: Path) -> Dataset:
    return open_dataset(painted_dataset)


@pytest.fixture(scope="module")
def resplit(official: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same images as colour BMP and TIFF under other names, split anew at random: what circulates on the web."""
    folder = tmp_path_factory.mktemp("copies")
    for number, (row, image) in enumerate(
        zip(official.all_rows, load_images(official, official.all_rows), strict=True)
    ):
        path = folder / row.label / f"face_{977 * number % 1000}.{('bmp', 'tif')[number % 2]}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    target = tmp_path_factory.mktemp("resplit") / "resplit"
    convert(folder, target, ConvertConfig(split="train=0.6,val=0.2,test=0.2", group_by="none", seed=2))
    return open_dataset(target)


@pytest.fixture(scope="module")
def learned(official: Dataset) -> Hashes:
    return LeakGuard(official).hashes("train")


def test_the_hash_is_of_the_upright_pixels_and_blank_images_have_none() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    assert image_hash(grey) == image_hash(np.repeat(grey[..., None], 3, 2)) != image_hash(grey.T.copy())
    changed = grey.copy()
    changed[47, 47] ^= 1
    assert image_hash(changed) != image_hash(grey)
    assert image_hash(np.full((48, 48), 7, np.uint8)) == image_hash(np.zeros((9, 9, 3), np.uint8)) == BLANK


def test_a_new_split_of_the_same_images_is_found_out(official: Dataset, resplit: Dataset, learned: Hashes) -> None:
    where = {
        image_hash(image): row.split
        for row, image in zip(official.all_rows, load_images(official, official.all_rows), strict=True)
    }
    rows = resplit.rows("val")
    expected = sum(where[image_hash(image)] == "train" for image in load_images(resplit, rows))
    assert 15 < expected < len(rows)
    found = LeakGuard(resplit).overlap("val", learned)
    assert (found.n, found.learned, found.leaked) == (len(rows), expected, expected)
    assert (resplit.root / found.example).is_file()
    with pytest.raises(LeakError, match=rf"best\.pt has learned {expected} of the {len(rows)} val images"):
        LeakGuard(resplit).check({"best.pt": learned}, ["val"], allow=False)
    found_out = LeakGuard(resplit).check({"best.pt": learned}, ["val", "train"], allow=True)
    assert found_out.overlaps == {"best.pt": {"val": found}}
    assert found_out.lines[0].startswith("--allow-leak: best.pt has learned")


def test_the_split_it_was_trained_on_has_no_leak(official: Dataset, learned: Hashes) -> None:
    checked = LeakGuard(official).check({"best.pt": learned, "stock.pt": None}, ["val", "test"], allow=False)
    none = {"learned": 0, "leaked": 0, "example": ""}
    assert checked.to_json() == {"best.pt": {"val": {"n": 56} | none, "test": {"n": 28} | none}, "stock.pt": None}
    assert not checked.lines


@pytest.mark.parametrize(
    "encode",
    [shutil.copy, lambda a, b: Image.open(a).convert("RGB").save(b, compress_level=9)],
    ids=["same file", "re-encoded"],
)
def test_a_copy_inside_the_data_set_is_a_note(
    encode: Callable[[Path, Path], object], official: Dataset, learned: Hashes, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(official.root, root)
    rows = read_manifest(root)
    train = next(row for row in rows if row.split == "train")
    at = next(index for index, row in enumerate(rows) if row.split == "val" and row.label == train.label)
    encode(root / train.path, root / rows[at].path)
    rows[at] = replace(rows[at], sha256=sha256_of(root / rows[at].path))
    register(rows, read_description(root), root)
    dataset = open_dataset(root)
    guard = LeakGuard(dataset)
    assert guard.overlap("val", learned) == Overlap(56, 1, 0)
    checked = guard.check({"best.pt": learned}, ["val"], allow=False)
    assert checked.overlaps == {"best.pt": {"val": Overlap(56, 1, 0)}}
    assert "has learned 1 of the 56 val images" in checked.lines[0]
    assert "evaluate --clean" in checked.lines[0]
    # Left out of the training, it is still the data set's own copy; in a data set that never had it, it is a leak.
    thinned = replace(dataset, all_rows=tuple(row for row in rows if row.path != train.path))
    assert LeakGuard(thinned, dataset).overlap("val", learned).leaked == 0
    assert LeakGuard(thinned).overlap("val", learned) == Overlap(56, 1, 1, rows[at].path)
