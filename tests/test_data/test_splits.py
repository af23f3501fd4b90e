"""New splits: shares, stratified labels, groups that stay together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.data.splits import assign_splits, parse_shares
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.painted import paint_faces

SHARES = "train=0.8,val=0.1,test=0.1"


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    """70 faces in class folders, each with one brighter copy."""
    faces, labels = paint_faces(5, 70)
    for index, (face, label) in enumerate(zip(faces, labels, strict=True)):
        folder = tmp_path / "tree" / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(face).save(folder / f"{index}.png")
        PillowImage.fromarray(np.clip(face * 1.05, 0, 255).astype(np.uint8)).save(folder / f"{index}-again.png")
    return tmp_path / "tree"


def test_copies_stay_together_and_labels_are_stratified(unsplit: Path, tmp_path: Path) -> None:
    content = convert(unsplit, tmp_path / "out", ConvertConfig(seed=3))
    assert content.options["split"] == SHARES
    dataset = open_dataset(tmp_path / "out")
    by_face = {row.source_id.replace("-again", ""): set() for row in dataset.all_rows}
    for row in dataset.all_rows:
        by_face[row.source_id.replace("-again", "")].add(row.split)
    assert all(len(splits) == 1 for splits in by_face.values())
    counts = Counter(row.split for row in dataset.all_rows)
    assert abs(counts["val"] - 14) <= 4
    assert abs(counts["test"] - 14) <= 4
    assert not (tmp_path / "out" / "unsplit").exists()
    assert all((tmp_path / "out" / row.path).is_file() for row in dataset.all_rows)
    torn = convert(unsplit, tmp_path / "torn", ConvertConfig(seed=3, group_by="none"))
    assert torn.fingerprint != content.fingerprint
    assert convert(unsplit, tmp_path / "again", ConvertConfig(seed=3)).fingerprint == content.fingerprint
    assert convert(unsplit, tmp_path / "other", ConvertConfig(seed=4)).fingerprint != content.fingerprint


def test_subjects_stay_together() -> None:
    random = np.random.default_rng(0)
    subjects = random.integers(0, 40, 800)
    labels = [EMOTIONS[index] for index in random.integers(0, 7, 800)]
    splits = assign_splits(labels, subjects, parse_shares(SHARES), 1)
    assert all(
        len({split for split, subject in zip(splits, subjects, strict=True) if subject == who}) == 1
        for who in range(40)
    )
    shares = Counter(splits)
    assert abs(shares["train"] / 800 - 0.8) < 0.04
    for split in ("train", "val", "test"):
        of_happy = sum(s == split and label == "happy" for s, label in zip(splits, labels, strict=True)) / shares[split]
        assert abs(of_happy - labels.count("happy") / 800) < 0.08


def test_a_copy_under_two_subjects_keeps_both_in_one_split(tmp_path: Path) -> None:
    faces, labels = paint_faces(5, 70)
    by_subject_alone = assign_splits([EMOTIONS[label] for label in labels], np.arange(70) // 7, parse_shares(SHARES), 0)
    first, copy = by_subject_alone.index("train"), by_subject_alone.index("val")
    faces[copy] = faces[first]
    lines = ["path,label,subject"]
    for index, (face, label) in enumerate(zip(faces, labels, strict=True)):
        PillowImage.fromarray(face).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{EMOTIONS[label]},s{index // 7}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    splits: dict[str, dict[str, set[str]]] = {}
    for group_by in ("auto", "subject"):
        target = tmp_path.parent / f"{tmp_path.name}-{group_by}"
        convert(tmp_path / "labels.csv", target, ConvertConfig(group_by=group_by))
        splits[group_by] = {}
        for row in open_dataset(target).all_rows:
            splits[group_by].setdefault(row.subject, set()).add(row.split)
        assert all(len(found) == 1 for found in splits[group_by].values())
    one, other = f"s{first // 7}", f"s{copy // 7}"
    assert splits["auto"][one] == splits["auto"][other]
    assert splits["subject"][one] != splits["subject"][other]


@pytest.mark.parametrize(
    "text",
    [
        "train=0.8",
        "train=0.8,val=0.3",
        "train=x,val=0.5",
        "train=0.5,dev=0.5",
        "train=0.5,train=0.5",
        "half",
        "train=1.5,val=-0.5",
    ],
)
def test_bad_shares(text: str) -> None:
    with pytest.raises(ConfigError, match="--split"):
        parse_shares(text)


def test_too_few_groups_and_unknown_subjects(unsplit: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 groups of images cannot be divided"):
        assign_splits(["happy", "sad"] * 5, np.array([0, 1] * 5), parse_shares(SHARES), 0)
    with pytest.raises(ConfigError, match="140 of 140 images have no subject, such as angry/"):
        convert(unsplit, tmp_path / "out", ConvertConfig(group_by="subject"))
    assert not (tmp_path / "out").exists()
