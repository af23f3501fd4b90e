"""What several tests of data share: the painted layouts, and a small tree of class folders."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_faces


@pytest.fixture(scope="session")
def paint() -> ModuleType:
    """`paint_layouts.py`: one function for each known layout."""
    return _beside("paint_layouts")


@pytest.fixture(scope="session")
def boxed() -> ModuleType:
    """`paint_boxes.py`: one function for each layout of scenes with boxes."""
    return _beside("paint_boxes")


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(paint: ModuleType, tmp_path: Path) -> Path:
    """28 faces in class folders, two of each label in train and two in val."""
    met: Counter[int] = Counter()
    for index, (face, label) in enumerate(zip(*paint_faces(6, 28), strict=True)):
        paint.save(tmp_path / "tree" / ("train", "val")[met[label] % 2] / EMOTIONS[label] / f"{index}.png", face)
        met[label] += 1
    return tmp_path / "tree"
