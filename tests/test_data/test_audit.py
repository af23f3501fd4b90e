"""Audit: planted troubles are found, and nothing else."""

from __future__ import annotations

import gzip
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.audit.findings import AuditResult, Finding
from deepfer_yolo.data.audit.report import write_page
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import read_quarantine, write_quarantine

CONFIG = AuditConfig(min_per_class=1, near_correlation=0.98)  # painted people are more alike than real ones


@pytest.fixture
def dataset(painted_dataset: Path, tmp_path: Path) -> Path:
    target = tmp_path / "set"
    shutil.copytree(painted_dataset, target)
    return target


def by_kind(result: AuditResult) -> dict[str, Finding]:
    return {finding.kind: finding for finding in result.findings}


def images(dataset: Path, folder: str) -> list[Path]:
    return sorted((dataset / folder).iterdir())


def test_a_clean_set_has_no_findings(painted_dataset: Path) -> None:
    result = audit(painted_dataset, CONFIG)
    assert result.findings == ()
    assert result.passed
    assert result.n_images == 224


def test_broken_and_missing_images(dataset: Path) -> None:
    cut, zero, gone, *_ = images(dataset, "train/happy")
    cut.write_bytes(cut.read_bytes()[:500])
    zero.write_bytes(b"")
    gone.unlink()
    result = audit(dataset, CONFIG)
    finding = by_kind(result)["unreadable"]
    assert finding.count == 3
    assert {group[0] for group in finding.groups} == {
        path.relative_to(dataset).as_posix() for path in (cut, zero, gone)
    }
    assert not result.passed


def test_copies_leaks_and_conflicts(dataset: Path) -> None:
    first, second, *_ = images(dataset, "train/happy")
    shutil.copy(first, second)
    leaked = images(dataset, "val/happy")[0]
    shutil.copy(first, leaked)
    other = images(dataset, "train/sad")[0]
    shutil.copy(images(dataset, "train/fear")[0], other)
    found = by_kind(audit(dataset, CONFIG))
    assert found["duplicate"].count == 3
    assert found["leak"].count == 1
    assert set(found["leak"].groups[0]) == {path.relative_to(dataset).as_posix() for path in (first, second, leaked)}
    assert found["conflict"].count == 2
    assert len(found["conflict"].groups) == 1


def test_without_near_copies_exact_ones_are_still_found(dataset: Path) -> None:
    first, second, *_ = images(dataset, "train/happy")
    shutil.copy(first, second)
    third = images(dataset, "val/happy")[0]
    PillowImage.fromarray(np.asarray(PillowImage.open(first)) // 2 + 60).save(third)
    kinds = {near: set(by_kind(audit(dataset, AuditConfig(near=near)))) for near in (True, False)}
    assert kinds[True] - kinds[False] >= {"near-duplicate", "near-leak"}
    assert "duplicate" in kinds[False]
    assert not any(kind.startswith("near") for kind in kinds[False])


def test_a_copy_in_another_format_and_colour_mode_is_a_copy(dataset: Path) -> None:
    first, second, *_ = images(dataset, "train/happy")
    pixels = np.asarray(PillowImage.open(first))
    exif = PillowImage.Exif()
    exif[0x0112] = 3  # upside down
    PillowImage.fromarray(np.dstack([np.rot90(pixels, 2)] * 3)).save(second, exif=exif)
    assert by_kind(audit(dataset, CONFIG))["duplicate"].count == 1


def test_blank_images(dataset: Path) -> None:
    PillowImage.fromarray(np.full((48, 48), 17, np.uint8)).save(images(dataset, "val/fear")[0])
    result = audit(dataset, CONFIG)
    assert by_kind(result)["blank"].count == 1
    assert result.passed
    assert not audit(dataset, CONFIG.model_copy(update={"fail_on": "warning"})).passed


def test_missing_class_and_split(dataset: Path) -> None:
    lines = (dataset / "manifest.csv").read_text().splitlines(keepends=True)
    (dataset / "manifest.csv").write_text("".join(line for line in lines if not line.startswith("val/happy")))
    assert by_kind(audit(dataset, CONFIG))["missing-class"].message == "val has no happy"
    (dataset / "manifest.csv").write_text("".join(line for line in lines if not line.startswith("val/")))
    assert by_kind(audit(dataset, CONFIG))["missing-split"].severity == "error"


def test_imbalance(dataset: Path) -> None:
    lines = (dataset / "manifest.csv").read_text().splitlines(keepends=True)
    happy = [line for line in lines if line.startswith("train/happy")]
    (dataset / "manifest.csv").write_text("".join(line for line in lines if line not in happy[1:]))
    assert "20.0 times" in by_kind(audit(dataset, CONFIG.model_copy(update={"max_imbalance": 19})))["imbalance"].message


def test_a_class_tree_and_a_csv_can_be_audited_too(painted_csv: Path, painted_dataset: Path, tmp_path: Path) -> None:
    assert audit(painted_csv, CONFIG).findings == ()
    for split in ("train", "val", "test"):
        shutil.copytree(painted_dataset / split, tmp_path / "tree" / split)
    broken = next((tmp_path / "tree" / "val" / "sad").iterdir())
    broken.write_text("no image")
    assert by_kind(audit(tmp_path / "tree", CONFIG))["unreadable"].groups == (
        (broken.relative_to(tmp_path / "tree").as_posix(),),
    )


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_is_audited_like_its_folder(
    kind: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(next((tree / "train" / "sad").iterdir()), tree / "val" / "sad" / "copy.png")
    (tree / "val" / "sad" / "broken.png").write_text("no image")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), kind, tree))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    config = AuditConfig(near_correlation=0.98)
    pages: list[Path] = []
    result = audit(
        archive,
        config,
        against=archive,
        then=lambda seen: pages.append(write_page(seen, "command", tmp_path / "page.html")),
    )
    plain = audit(tree, config, against=tree)
    assert result.to_json()["findings"][:-4] == plain.to_json()["findings"][:-4]
    assert result.name == archive.name
    assert {"leak", "unreadable", "drift-classes"} <= {finding.kind for finding in result.findings}
    assert pages[0].read_text().count("data:image/png") >= 2
    assert list(temporary.iterdir()) == []
    write_quarantine(tmp_path / "q.csv", result.to_quarantine())
    assert "val/sad/broken.png" in read_quarantine(tmp_path / "q.csv")
    assert convert(archive, tmp_path / "out", ConvertConfig(exclude=tmp_path / "q.csv")).left_out["excluded"] == 2


def test_a_name_with_a_colon_is_not_taken_apart(tree: Path) -> None:
    (tree / "val" / "sad" / "a: b.png").symlink_to("gone")
    finding = next(
        finding for finding in audit(tree, AuditConfig(near_correlation=0.98)).findings if finding.kind == "unreadable"
    )
    assert finding.groups == ((str(tree / "val" / "sad" / "a: b.png"),),)
    assert finding.notes == ("a link that leads nowhere",)


TRAINING = {"angry": 3995, "disgust": 436, "fear": 4097, "happy": 7215, "sad": 4830, "surprise": 3171, "neutral": 4965}
PUBLIC_TEST = {"angry": 467, "disgust": 56, "fear": 496, "happy": 895, "sad": 653, "surprise": 415, "neutral": 607}


@pytest.mark.slow
def test_the_full_csv(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "datasets" / "fer2013_dev.csv.gz"
    content = convert(source, tmp_path / "fer", ConvertConfig())
    assert content.counts == {"train": TRAINING, "val": PUBLIC_TEST}
    groups: dict[str, list[int]] = defaultdict(list)
    with gzip.open(source, "rt") as lines:
        for index, line in enumerate(lines):
            if index:
                groups[line.split(",")[1]].append(index - 1)
    expected = {frozenset(rows) for rows in groups.values() if len(rows) > 1}
    result = audit(tmp_path / "fer", AuditConfig())
    found = {finding.kind: finding for finding in result.findings}
    assert {frozenset(int(Path(key).stem) for key in group) for group in found["duplicate"].groups} == expected
    assert found["duplicate"].count == sum(len(rows) - 1 for rows in expected)
    assert found["leak"].count == 280
