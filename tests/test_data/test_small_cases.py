"""The small shapes that people have, from the painter of shared cases, up to a model that has learned from them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import Description, open_dataset
from deepfer_yolo.errors import TrainingError


@pytest.fixture(scope="module")
def painted_case(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that paints one of the shared cases by its name."""
    file = shared_dir / "cases" / "data_cases.py"
    if not file.is_file():
        pytest.skip(f"no cases at {file}")
    spec = importlib.util.spec_from_file_location("data_cases", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def paint(name: str) -> Path:
        folder = tmp_path_factory.mktemp("case") / name
        getattr(module, name)(folder)
        return folder

    return paint


def sums(content: Description) -> dict[str, int]:
    """Images by split."""
    return {split: sum(by_label.values()) for split, by_label in content.counts.items()}


def test_a_val_is_taken_and_the_official_test_is_kept(painted_case: Callable[[str], Path], tmp_path: Path) -> None:
    source = painted_case("train_and_test")
    assert sums(convert(source, tmp_path / "out", ConvertConfig())) == {"train": 126, "val": 14, "test": 35}
    tests = {row.source_id for row in open_dataset(tmp_path / "out").rows("test")}
    assert tests == {path.relative_to(source).as_posix() for path in source.glob("test/*/*")}


def test_eight_images_a_label(painted_case: Callable[[str], Path], tmp_path: Path) -> None:
    content = convert(painted_case("few"), tmp_path / "out", ConvertConfig())
    assert sums(content) == {"train": 42, "val": 7, "test": 7}
    assert len(content.notes) == 1
    found = {finding.kind for finding in audit(tmp_path / "out", AuditConfig()).findings}
    assert found == {"few"}


def test_two_labels_that_are_no_emotions(painted_case: Callable[[str], Path], tmp_path: Path) -> None:
    content = convert(painted_case("two_labels"), tmp_path / "out", ConvertConfig())
    assert content.labels == ("awake", "drowsy")
    assert sums(content) == {"train": 40, "val": 10}


def test_a_fold_without_a_label_is_named(painted_case: Callable[[str], Path], tmp_path: Path) -> None:
    from deepfer_yolo.recipe import TrainConfig
    from deepfer_yolo.train.splits import open_for_training

    source = painted_case("few")
    for path in sorted((source / "fear").iterdir())[1:]:
        path.unlink()
    convert(source, tmp_path / "out", ConvertConfig())
    refused = []
    for fold in range(1, 5):
        try:
            open_for_training(TrainConfig(data=str(tmp_path / "out"), folds=4, fold=fold))
        except TrainingError as error:
            refused.append(error.message)
    # The one image of fear is tested in one fold and validated in another; both say so.
    assert len(refused) == 2
    assert all(message.startswith("fold ") for message in refused)
    assert all(message.endswith("has no training image of: fear") for message in refused)
