"""Fixtures that many tests share: painted data, and the folder of real data where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepfer_yolo.painted import paint_csv

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with FER2013 and other material that is never part of the repository."""
    folder = Path(os.environ.get("DEEPFER_SHARED", ROOT.parent / "shared"))
    if not (folder / "datasets").is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def painted_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 training, 56 validation and 28 test faces in FER2013's csv form."""
    path = tmp_path_factory.mktemp("csv") / "painted.csv"
    paint_csv(path, seed=7, n_train=140, n_val=56, n_test=28)
    return path


@pytest.fixture(scope="session")
def painted_dataset(painted_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set folder that `deepfer convert` makes of `painted_csv`. Treat it as read-only."""
    from deepfer_yolo.config import ConvertConfig
    from deepfer_yolo.data.convert import convert

    target = tmp_path_factory.mktemp("dataset") / "painted"
    convert(painted_csv, target, ConvertConfig())
    return target
