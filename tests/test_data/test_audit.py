"""Audit: planted troubles are found, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.audit.findings import AuditResult, Finding

CONFIG = AuditConfig(min_per_class=1, near_correlation=0.98)  # painted people are more alike than real ones


@pytest.fixture
def tree(painted_dataset: Path, tmp_path: Path) -> Path:
    target = tmp_path / "set"
    shutil.copytree(painted_dataset, target)
    return target


def by_kind(result: AuditResult) -> dict[str, Finding]:
    return {finding.kind: finding for finding in result.findings}


def pictures(tree: Path, folder: str) -> list[Path]:
    return sorted((tree / folder).iterdir())


def test_a_clean_set_has_no_findings(painted_dataset: Path) -> None:
    result = audit(painted_dataset, CONFIG)
    assert result.findings == ()
    assert result.passed
    assert result.n_images == 224


def test_broken_and_missing_pictures(tree: Path) -> None:
    cut, zero, gone, *_ = pictures(tree, "train/happy")
    cut.write_bytes(cut.read_bytes()[:500])
    zero.write_bytes(b"")
    gone.unlink()
    result = audit(tree, CONFIG)
    finding = by_kind(result)["unreadable"]
    assert finding.count == 3
    assert {group[0] for group in finding.groups} == {path.relative_to(tree).as_posix() for path in (cut, zero, gone)}
    assert not result.passed


def test_copies_leaks_and_conflicts(tree: Path) -> None:
    first, second, *_ = pictures(tree, "train/happy")
    shutil.copy(first, second)
    leaked = pictures(tree, "val/happy")[0]
    shutil.copy(first, leaked)
    other = pictures(tree, "train/sad")[0]
    shutil.copy(pictures(tree, "train/fear")[0], other)
    found = by_kind(audit(tree, CONFIG))
    assert found["duplicate"].count == 3
    assert found["leak"].count == 1
    assert set(found["leak"].groups[0]) == {path.relative_to(tree).as_posix() for path in (first, second, leaked)}
    assert found["conflict"].count == 2
    assert len(found["conflict"].groups) == 1


def test_a_copy_in_another_format_and_colour_mode_is_a_copy(tree: Path) -> None:
    first, second, *_ = pictures(tree, "train/happy")
    pixels = np.asarray(PillowImage.open(first))
    exif = PillowImage.Exif()
    exif[0x0112] = 3  # upside down
    PillowImage.fromarray(np.dstack([np.rot90(pixels, 2)] * 3)).save(second, exif=exif)
    assert by_kind(audit(tree, CONFIG))["duplicate"].count == 1


def test_blank_pictures(tree: Path) -> None:
    PillowImage.fromarray(np.full((48, 48), 17, np.uint8)).save(pictures(tree, "val/fear")[0])
    result = audit(tree, CONFIG)
    assert by_kind(result)["blank"].count == 1
    assert result.passed
    assert not audit(tree, CONFIG.model_copy(update={"fail_on": "warning"})).passed


def test_missing_class_and_split(tree: Path) -> None:
    lines = (tree / "manifest.csv").read_text().splitlines(keepends=True)
    (tree / "manifest.csv").write_text("".join(line for line in lines if not line.startswith("val/happy")))
    assert by_kind(audit(tree, CONFIG))["missing-class"].message == "val has no happy"
    (tree / "manifest.csv").write_text("".join(line for line in lines if not line.startswith("val/")))
    assert by_kind(audit(tree, CONFIG))["missing-split"].severity == "error"


def test_imbalance(tree: Path) -> None:
    lines = (tree / "manifest.csv").read_text().splitlines(keepends=True)
    happy = [line for line in lines if line.startswith("train/happy")]
    (tree / "manifest.csv").write_text("".join(line for line in lines if line not in happy[1:]))
    assert "20.0 times" in by_kind(audit(tree, CONFIG.model_copy(update={"max_imbalance": 19})))["imbalance"].message


def test_a_class_tree_and_a_csv_can_be_audited_too(painted_csv: Path, painted_dataset: Path, tmp_path: Path) -> None:
    assert audit(painted_csv, CONFIG).findings == ()
    for split in ("train", "val", "test"):
        shutil.copytree(painted_dataset / split, tmp_path / "tree" / split)
    broken = next((tmp_path / "tree" / "val" / "sad").iterdir())
    broken.write_text("no picture")
    assert by_kind(audit(tmp_path / "tree", CONFIG))["unreadable"].groups == (
        (broken.relative_to(tmp_path / "tree").as_posix(),),
    )
