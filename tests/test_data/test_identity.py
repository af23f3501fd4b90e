"""Property: convert → class tree → convert is the identity on pixels, labels and splits."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import SPLITS, load_images, open_dataset
from deepfer_yolo.emotions import EMOTIONS

picture = st.tuples(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 2**32 - 1))
rows = st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from(EMOTIONS), picture), min_size=1, max_size=12)


def pixels(height: int, width: int, is_grey: bool, seed: int) -> NDArray[np.uint8]:
    shape = (height, width) if is_grey else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def content(folder: Path) -> Counter[tuple[str, str, bytes]]:
    dataset = open_dataset(folder)
    images = load_images(dataset, dataset.all_rows)
    return Counter((row.split, row.label, image.tobytes()) for row, image in zip(dataset.all_rows, images, strict=True))


@settings(max_examples=12, deadline=None)
@given(rows)
def test_there_and_back_again(listed: list[tuple[str, str, tuple[int, int, bool, int]]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        expected: Counter[tuple[str, str, bytes]] = Counter()
        for index, (split, label, drawn) in enumerate(listed):
            image = pixels(*drawn)
            folder = root / "source" / split / label
            folder.mkdir(parents=True, exist_ok=True)
            PillowImage.fromarray(image).save(folder / f"{index}.png")
            expected[split, label, (image if image.ndim == 3 else np.dstack([image] * 3)).tobytes()] += 1
        first = convert(root / "source", root / "first", ConvertConfig())
        assert content(root / "first") == expected
        shutil.copytree(root / "first", root / "tree", ignore=shutil.ignore_patterns("manifest.csv", "dataset.json"))
        second = convert(root / "tree", root / "second", ConvertConfig())
        assert content(root / "second") == expected
        assert second.fingerprint == first.fingerprint
