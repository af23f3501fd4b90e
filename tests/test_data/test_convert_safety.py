"""Convert there and back again, and killed at any moment."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import SPLITS, load_images, open_dataset
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.painted import paint_csv

CONFIG = ConvertConfig()
image = st.tuples(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 2**32 - 1))
rows = st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from(EMOTIONS), image), min_size=1, max_size=12)


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
        first = convert(root / "source", root / "first", ConvertConfig(val=0))
        assert content(root / "first") == expected
        shutil.copytree(root / "first", root / "tree", ignore=shutil.ignore_patterns("manifest.csv", "dataset.json"))
        second = convert(root / "tree", root / "second", ConvertConfig(val=0))
        assert content(root / "second") == expected
        assert second.fingerprint == first.fingerprint


def killed_conversions(tmp_path: Path, points: int, n: int) -> None:
    """SIGKILL at random moments of an overwriting conversion: the folder is the old one, absent or the new one, and
    always whole.
    """
    source = tmp_path / "new.csv"
    paint_csv(source, 1, n, 70)
    small = tmp_path / "old.csv"
    paint_csv(small, 2, 70, 70)
    target = tmp_path / "out"
    fingerprints = {convert(source, tmp_path / "ref", CONFIG).fingerprint: n + 70}
    fingerprints[convert(small, target, CONFIG).fingerprint] = 140
    command = [sys.executable, "-m", "deepfer_yolo", "convert", str(source), str(target), "--overwrite"]

    def begin() -> subprocess.Popen[bytes]:
        """A conversion that has begun to write."""
        before = set(tmp_path.iterdir())
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while set(tmp_path.iterdir()) <= before and process.poll() is None:
            time.sleep(0.001)
        return process

    process = begin()
    start = time.monotonic()
    assert process.wait() == 0
    writing_s = time.monotonic() - start
    chance = random.Random(0)
    n_killed = 0
    while n_killed < points:
        process = begin()
        time.sleep(chance.random() * writing_s)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            writing_s *= 0.95  # it was faster this time, and over before the kill
            continue
        assert process.returncode == -signal.SIGKILL
        n_killed += 1
        if target.exists():
            dataset = open_dataset(target)
            assert fingerprints[dataset.fingerprint] == len(dataset.all_rows)
            assert all((target / row.path).stat().st_size for row in dataset.all_rows)
    subprocess.run(command, check=True, capture_output=True)
    assert open_dataset(target).fingerprint == next(iter(fingerprints))


def test_killed_at_three_moments(tmp_path: Path) -> None:
    killed_conversions(tmp_path, 3, 140)


@pytest.mark.slow
def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    killed_conversions(tmp_path, 50, 700)


def test_a_destination_that_is_filled_meanwhile_keeps_what_came(painted_csv: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"

    def fill(part: float) -> None:
        target.mkdir(exist_ok=True)
        (target / "thesis.txt").write_text("years of work")

    with pytest.raises(DeepferError, match="exists and is not empty"):
        convert(painted_csv, target, ConvertConfig(), progress=fill)
    assert [path.name for path in target.iterdir()] == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir() if ".deepfer" in path.name] == []
