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
from deepfer_yolo.data.splits import assign_folds, assign_splits, parse_shares
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


def test_folds_of_single_images_differ_by_one_in_each_label_and_in_all() -> None:
    random = np.random.default_rng(2)
    labels = [EMOTIONS[index] for index in random.choice(7, 1003, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.02])]
    folds = Counter(zip(labels, assign_folds(labels, np.arange(1003), 10, 0), strict=True))
    for label in set(labels):
        sizes = [folds[label, fold] for fold in range(1, 11)]
        assert max(sizes) - min(sizes) <= 1
    sizes = [sum(n for (_, of), n in folds.items() if of == fold) for fold in range(1, 11)]
    assert max(sizes) - min(sizes) <= 1


def test_single_images_even_out_what_groups_left() -> None:
    random = np.random.default_rng(3)
    labels = [EMOTIONS[index] for index in random.integers(0, 7, 3000)]
    groups = np.where(np.arange(3000) < 1500, np.arange(3000) // 30, np.arange(3000))
    folds = assign_folds(labels, groups, 5, 0)
    assert all(len({folds[index] for index in np.flatnonzero(groups == group)}) == 1 for group in range(50))
    counts = Counter(zip(labels, folds, strict=True))
    for label in set(labels):
        sizes = [counts[label, fold] for fold in range(1, 6)]
        assert max(sizes) - min(sizes) <= 1


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


def train_and_test(root: Path, n: int = 20) -> Path:
    """`n` faces a label in train and three in test, and no val."""
    faces, labels = paint_faces(8, 7 * (n + 3))
    counts: Counter[int] = Counter()
    for index, (face, label) in enumerate(zip(faces, labels, strict=True)):
        folder = root / ("train" if counts[label] < n else "test") / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(face).save(folder / f"{index}.png")
        counts[label] += 1
    return root


def test_val_is_taken_from_train_and_test_stays(tmp_path: Path) -> None:
    source = train_and_test(tmp_path / "tree")
    tests = {path.relative_to(source).as_posix() for path in source.glob("test/*/*")}
    content = convert(source, tmp_path / "out", ConvertConfig())
    assert {split: sum(by.values()) for split, by in content.counts.items()} == {"train": 126, "val": 14, "test": 21}
    assert set(content.counts["val"].values()) == {2}
    assert content.options["val"] == 0.1
    assert content.notes == ("the source has no val: 14 of its 140 training images are taken and its test kept",)
    dataset = open_dataset(tmp_path / "out")
    assert {row.source_id for row in dataset.rows("test")} == tests
    assert {row.source_id.split("/")[0] for row in dataset.rows("val")} == {"train"}
    assert all((tmp_path / "out" / row.path).is_file() for row in dataset.all_rows)
    fifth = convert(source, tmp_path / "fifth", ConvertConfig(val=0.2))
    assert sum(fifth.counts["val"].values()) == 28
    none = convert(source, tmp_path / "none", ConvertConfig(val=0))
    assert (set(none.counts), none.options["val"], none.notes) == ({"train", "test"}, None, ())


def test_copies_in_train_do_not_part_when_val_is_taken(tmp_path: Path) -> None:
    source = train_and_test(tmp_path / "tree")
    for path in sorted(source.glob("train/*/*.png")):
        copy = np.asarray(PillowImage.open(path)).astype(float) * 1.05
        PillowImage.fromarray(np.clip(copy, 0, 255).astype(np.uint8)).save(path.with_name(f"{path.stem}-again.png"))
    convert(source, tmp_path / "out", ConvertConfig())
    dataset = open_dataset(tmp_path / "out")
    val = {row.source_id.replace("-again", "") for row in dataset.rows("val")}
    train = {row.source_id.replace("-again", "") for row in dataset.rows("train")}
    assert len(dataset.rows("val")) == 28
    assert not val & train


def test_shares_do_not_deal_out_a_test_unless_told(tmp_path: Path) -> None:
    source = train_and_test(tmp_path / "tree")
    with pytest.raises(ConfigError, match="would deal out the test split that the source has") as caught:
        convert(source, tmp_path / "out", ConvertConfig(split=SHARES))
    assert "--val 0.1" in str(caught.value.hint)
    assert "--reshuffle" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()
    content = convert(source, tmp_path / "out", ConvertConfig(split=SHARES, reshuffle=True))
    assert content.options["reshuffle"] is True
    assert sum(content.counts["test"].values()) != 21


def test_sets_with_one_split(tmp_path: Path) -> None:
    source = train_and_test(tmp_path / "tree")
    (source / "train").rename(tmp_path / "train")
    alone = convert(source, tmp_path / "test", ConvertConfig())
    assert {split: sum(by.values()) for split, by in alone.counts.items()} == {"test": 21}
    assert alone.notes == ()
    (tmp_path / "other").mkdir()
    (tmp_path / "train").rename(tmp_path / "other" / "train")
    content = convert(tmp_path / "other", tmp_path / "trained", ConvertConfig())
    assert {split: sum(by.values()) for split, by in content.counts.items()} == {"train": 126, "val": 14}
    assert content.notes == ("the source has no val: 14 of its 140 training images are taken",)
    # Without a test there is none to protect.
    assert "test" in convert(tmp_path / "other", tmp_path / "dealt", ConvertConfig(split=SHARES)).counts


def few(root: Path, *counts: int) -> Path:
    """A tree with so many faces of each label."""
    faces, labels = paint_faces(9, 7 * max(counts))
    for label, n in enumerate(counts):
        folder = root / EMOTIONS[label]
        folder.mkdir(parents=True)
        for index in np.flatnonzero(labels == label)[:n].tolist():
            PillowImage.fromarray(faces[index]).save(folder / f"{index}.png")
    return root


@pytest.mark.parametrize(
    ("counts", "dealt", "said"),
    [
        ((8,) * 7, (42, 7, 7), "train 75%, val 12%, test 12%"),
        ((3,) * 7, (7, 7, 7), "train 33%, val 33%, test 33%"),
        ((5, 5), (6, 2, 2), "train 60%, val 20%, test 20%"),
        ((10, 10, 1), (17, 2, 2), None),
    ],
)
def test_few_images_are_split_soundly(
    counts: tuple[int, ...], dealt: tuple[int, ...], said: str | None, tmp_path: Path
) -> None:
    content = convert(few(tmp_path / "tree", *counts), tmp_path / "out", ConvertConfig())
    assert tuple(sum(by.values()) for by in content.counts.values()) == dealt
    assert min(content.counts["train"].values()) >= 1
    assert content.notes == ((f"so few images or groups do not divide as asked: {said}",) if said else ())


@pytest.mark.parametrize(("n", "reason"), [(1, "one image a label"), (2, "2 images of the largest label")])
def test_too_few_images_are_one_clear_error(n: int, reason: str, tmp_path: Path) -> None:
    source = few(tmp_path / "tree", *(n,) * 7)
    with pytest.raises(ConfigError, match=f"{reason} cannot be divided into train, val, test"):
        convert(source, tmp_path / "out", ConvertConfig())
    (tmp_path / "with" / "train").parent.mkdir()
    source.rename(tmp_path / "with" / "train")
    content = convert(tmp_path / "with", tmp_path / "out", ConvertConfig())
    if n == 1:
        assert content.notes == ("no val is taken from train: one image a label cannot be divided into train, val",)
    else:
        assert {split: sum(by.values()) for split, by in content.counts.items()} == {"train": 7, "val": 7}


def test_more_folds_than_a_label_has_images() -> None:
    labels, groups = ["happy", "sad"] * 10, np.arange(20)
    with pytest.raises(ConfigError, match="10 images of the largest label cannot be divided into 11 folds") as caught:
        assign_folds(labels, groups, 11, 0)
    assert caught.value.hint == "--folds 10 at most"
    assert Counter(assign_folds(labels, groups, 10, 0)) == dict.fromkeys(range(1, 11), 2)
