"""Corrections applied: to a data set in memory, to a new one on disk, and a judged split under both labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.corrected import Judged, open_to_judge, read_for, with_corrections
from deepfer_yolo.data.corrections import read_corrections
from deepfer_yolo.data.dataset import fingerprint, open_dataset, read_description, read_manifest, register
from deepfer_yolo.errors import ConfigError, DatasetError, DeepferError

Correct = Callable[..., Path]
AS_IS = {"split": "official", "val": 0.0}


def other_than(label: str) -> str:
    return "sad" if label == "happy" else "happy"


@pytest.fixture
def train_rows(painted_dataset: Path) -> list[str]:
    return [row.path for row in open_dataset(painted_dataset).rows("train")]


@pytest.fixture
def reviewed(painted_dataset: Path, correct: Correct, train_rows: list[str], tmp_path: Path) -> Path:
    """Two reviewers of train: 0 and 1 changed, 2 kept, 3 left out, 4 in conflict, 5 unsure, 6 undone."""
    file = tmp_path / "corrections.csv"
    label = [path.split("/")[1] for path in train_rows]
    new = [other_than(one) for one in label]
    ada = [new[0], new[1], label[2], "leave-out", new[4], "unsure", new[6]]
    correct(file, painted_dataset, dict(zip(train_rows, ada, strict=False)), how=["model"])
    correct(file, painted_dataset, {train_rows[6]: "undo"})
    correct(file, painted_dataset, {train_rows[0]: new[0], train_rows[4]: label[4]}, who="Ben", how=["blind"])
    return file


def test_settled_decisions_are_applied_and_all_are_counted(
    painted_dataset: Path, reviewed: Path, train_rows: list[str]
) -> None:
    whole = open_dataset(painted_dataset)
    corrected = with_corrections(whole, read_corrections(reviewed))
    labels = {row.path: row.label for row in corrected.all_rows}
    before = {row.path: row.label for row in whole.all_rows}
    changed = {path for path, label in labels.items() if label != before[path]}
    assert changed == set(train_rows[:2])
    assert before.keys() - labels.keys() == {train_rows[3]}
    assert corrected.fingerprint == fingerprint(corrected.all_rows) != whole.fingerprint
    (said,) = corrected.corrections
    expected = {"changed": 2, "kept": 1, "left_out": 1, "conflicts": 1, "unsure": 1, "reviewers": 2, "decisions": 10}
    assert expected.items() <= said.counts.items()
    assert said.sha256 == read_corrections(reviewed).digest
    assert not said.held_out


def test_a_new_set_has_the_labels_and_a_fingerprint_of_its_own_and_the_source_is_untouched(
    painted_dataset: Path, reviewed: Path, train_rows: list[str], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in painted_dataset.rglob("*") if path.is_file()}
    described = convert(painted_dataset, tmp_path / "new", ConvertConfig(corrections=(str(reviewed),), **AS_IS))
    assert {path: path.read_bytes() for path in painted_dataset.rglob("*") if path.is_file()} == before
    corrected = with_corrections(open_dataset(painted_dataset), read_corrections(reviewed))
    new = open_dataset(tmp_path / "new")
    assert new.fingerprint == described.fingerprint == corrected.fingerprint
    assert new.corrections == corrected.corrections
    assert all(row.path.startswith(f"{row.split}/{row.label}/") for row in new.all_rows)
    assert all(new.path(row).is_file() for row in new.all_rows)
    n_files = len(list((tmp_path / "new").rglob("*.png")))
    assert n_files == len(new.all_rows) == len(open_dataset(painted_dataset).all_rows) - 1
    assert any("2 labels changed" in note for note in described.notes)
    lines = (tmp_path / "new" / "labels-before.csv").read_text().splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == sorted(path.split("/")[1] for path in train_rows[:2])


def test_the_first_source_converts_with_the_same_corrections(
    painted_csv: Path, painted_dataset: Path, reviewed: Path, tmp_path: Path
) -> None:
    config = ConvertConfig(corrections=(str(reviewed),))
    described = convert(painted_csv, tmp_path / "new", config)
    corrected = with_corrections(open_dataset(painted_dataset), read_corrections(reviewed))
    assert described.fingerprint == corrected.fingerprint


def test_corrections_and_a_quarantine_list_go_together(
    painted_dataset: Path, reviewed: Path, train_rows: list[str], tmp_path: Path
) -> None:
    listed = tmp_path / "q.csv"
    listed.write_text(f"picture\n{train_rows[0]}\n")
    config = ConvertConfig(corrections=(str(reviewed),), exclude=listed, **AS_IS)
    n = len(open_dataset(painted_dataset).all_rows)
    assert sum(
        map(sum, (by.values() for by in convert(painted_dataset, tmp_path / "new", config).counts.values()))
    ) == (n - 2)
    corrected = with_corrections(open_dataset(painted_dataset), read_corrections(reviewed))
    assert len(corrected.without(listed).all_rows) == n - 2


def test_a_kept_label_of_a_set_that_lacks_it_is_allowed_where_the_set_names_it(
    painted_dataset: Path, correct: Correct, tmp_path: Path
) -> None:
    """A stream's faces have images of some labels alone, and a person may say any of them."""
    some = tmp_path / "some"
    shutil.copytree(painted_dataset, some)
    described, rows = read_description(some), read_manifest(some)
    happy = [row for row in rows if row.label == "happy"]
    register(happy, described, some)
    file = correct(tmp_path / "c.csv", some, {next(row.path for row in happy if row.split == "train"): "surprise"})
    assert convert(some, tmp_path / "new", ConvertConfig(corrections=(str(file),), **AS_IS)).labels == (
        "happy",
        "surprise",
    )


def test_a_class_that_loses_its_last_image_leaves_no_folder(
    write_answer_sheets: Callable[..., Path], correct: Correct, tmp_path: Path
) -> None:
    source = write_answer_sheets(tmp_path / "s", [0, 1, 1], [[0, 1, 1]], split="train")
    file = correct(tmp_path / "c.csv", source, {"train/angry/00000.png": "disgust"})
    described = convert(source, tmp_path / "new", ConvertConfig(corrections=(str(file),), **AS_IS))
    assert described.labels == ("disgust",)
    assert [path.name for path in (tmp_path / "new" / "train").iterdir()] == ["disgust"]


def held_out(painted_dataset: Path, correct: Correct, file: Path) -> Path:
    rows = open_dataset(painted_dataset).rows("test")
    said = {row.path: other_than(row.label) for row in rows[:4]} | {rows[4].path: "leave-out"}
    return correct(file, painted_dataset, said, how=["model"])


def test_held_out_images_are_corrected_only_where_that_is_asked_for(
    painted_dataset: Path, correct: Correct, reviewed: Path, tmp_path: Path
) -> None:
    file = held_out(painted_dataset, correct, tmp_path / "corrections.held-out.csv")
    opened = open_dataset(painted_dataset)
    for refused in (
        lambda: read_for(file, held_out=False),
        lambda: convert(painted_dataset, tmp_path / "x", ConvertConfig(corrections=(str(file),), **AS_IS)),
        lambda: open_to_judge(opened, "test", file, held_out=False),
    ):
        with pytest.raises(ConfigError, match="flatter") as error:
            refused()
        assert "--held-out" in str(error.value.hint)
    for split, given, flag in (("train", file, True), ("test", reviewed, False), ("val", reviewed, True)):
        with pytest.raises(ConfigError, match="nothing of it would count"):
            open_to_judge(opened, split, given, held_out=flag)
    with pytest.raises(ConfigError, match="--held-out says"):
        open_to_judge(opened, "test", None, held_out=True)
    assert not (tmp_path / "x").exists()


def test_a_judged_split_is_known_by_both_labels_in_memory_and_on_disk(
    painted_dataset: Path, correct: Correct, reviewed: Path, tmp_path: Path
) -> None:
    file = held_out(painted_dataset, correct, tmp_path / "corrections.held-out.csv")
    whole = open_dataset(painted_dataset)
    now = Judged.of(open_to_judge(whole, "test", file, held_out=True), "test")
    assert now.how is not None
    assert (now.how.changed, now.how.left_out) == (4, 1)
    assert now.original.all_rows == whole.all_rows
    assert now.original.fingerprint == whole.fingerprint
    assert "flatter" in now.how.lines("test")[-1]
    assert "5 with a model's answer shown" in now.how.lines("test")[1]
    assert Judged.of(now.dataset, "train").how is None

    files = (str(reviewed), str(file))
    convert(painted_dataset, tmp_path / "a", ConvertConfig(corrections=files, held_out=True, **AS_IS))
    convert(tmp_path / "a", tmp_path / "b", ConvertConfig(**AS_IS))  # what was before is kept from set to set
    for folder in (tmp_path / "a", tmp_path / "b"):
        later = Judged.of(open_dataset(folder), "test")
        assert later.how is not None
        assert (later.how.changed, later.how.left_out) == (4, 1)
        assert [one.file for one in later.how.files] == ["corrections.held-out.csv"]
        left = {row.sha256: row.label for row in later.original.rows("test")}
        then = {row.sha256: row.label for row in whole.rows("test")}
        assert len(left) == len(then) - 1
        assert left.items() <= then.items()
    with pytest.raises(ConfigError, match="lose those of before"):
        convert(tmp_path / "a", tmp_path / "c", ConvertConfig(map={"sad": "unhappy"}, **AS_IS))
    (tmp_path / "a" / "labels-before.csv").write_text("path,label\n")
    with pytest.raises(DatasetError, match="is not what was written"):
        Judged.of(open_dataset(tmp_path / "a"), "test")


def test_applying_the_same_file_twice_says_that_left_out_images_are_not_there(
    painted_dataset: Path, reviewed: Path, tmp_path: Path
) -> None:
    convert(painted_dataset, tmp_path / "a", ConvertConfig(corrections=(str(reviewed),), **AS_IS))
    with pytest.raises(DatasetError, match="names 1 of 7 images that are not in"):
        with_corrections(open_dataset(tmp_path / "a"), read_corrections(reviewed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda old: b"path,label\n" + old, "columns must be"),
        (lambda old: old.replace(b",", b";"), "columns must be"),
        (lambda old: old.replace(b",happy,Ada", b",bored,Ada").replace(b",sad,Ada", b",bored,Ada"), "bored"),
        (lambda old: old.replace(b"train/", b"../train/"), "path must be a path inside"),
        (lambda old: old + b"\x00\xff\n", "values where|NUL|csv"),
        (lambda old: old.replace(b",model,", b",model by:a/b,"), "how must be of"),
        (lambda old: old.replace(b",train,", b",val,"), "was in val and is in train|never share"),
    ],
)  # fmt: skip
def test_what_cannot_be_applied_is_refused_with_its_reason(
    painted_dataset: Path, reviewed: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    reviewed.write_bytes(change(reviewed.read_bytes()))
    with pytest.raises(DeepferError, match=message):
        with_corrections(open_dataset(painted_dataset), read_for(reviewed, held_out=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda old: b"\xef\xbb\xbf" + old,
        lambda old: old.replace(b"\n", b"\r\n"),
        lambda old: old + old.splitlines(keepends=True)[1],  # the same line twice is one decision
    ],
)
def test_what_a_spreadsheet_makes_of_it_means_the_same(
    painted_dataset: Path, reviewed: Path, change: Callable[[bytes], bytes]
) -> None:
    opened = open_dataset(painted_dataset)
    before = with_corrections(opened, read_corrections(reviewed)).fingerprint
    reviewed.write_bytes(change(reviewed.read_bytes()))
    assert with_corrections(opened, read_corrections(reviewed)).fingerprint == before


def test_a_file_without_decisions_changes_nothing(painted_dataset: Path, reviewed: Path) -> None:
    reviewed.write_bytes(reviewed.read_bytes().splitlines(keepends=True)[0])
    opened = open_dataset(painted_dataset)
    assert with_corrections(opened, read_corrections(reviewed)).fingerprint == opened.fingerprint


def test_corrections_of_another_set_or_of_changed_images_are_strangers(
    painted_dataset: Path, reviewed: Path, tmp_path: Path
) -> None:
    text = reviewed.read_text()
    sha = open_dataset(painted_dataset).rows("train")[0].sha256
    reviewed.write_text(text.replace(sha, "0" * 64))
    with pytest.raises(DatasetError, match=r"names 1 of 7 images that are not in .*train/"):
        with_corrections(open_dataset(painted_dataset), read_corrections(reviewed))


def test_a_label_of_the_description_never_leaves_the_folder(
    painted_dataset: Path, correct: Correct, tmp_path: Path
) -> None:
    hostile = tmp_path / "hostile"
    shutil.copytree(painted_dataset, hostile)
    described = json.loads((hostile / "dataset.json").read_text())
    described["labels"].append("../../out")
    (hostile / "dataset.json").write_text(json.dumps(described))
    row = open_dataset(hostile).rows("train")[0]
    file = correct(tmp_path / "c.csv", hostile, {row.path: "../../out"})
    with pytest.raises(DatasetError, match="is no label of"):
        convert(hostile, tmp_path / "new", ConvertConfig(corrections=(str(file),), **AS_IS))
    assert not (tmp_path / "out").exists()


def test_a_new_split_and_the_split_of_a_review_exclude_each_other(
    painted_dataset: Path, reviewed: Path, tmp_path: Path
) -> None:
    config = ConvertConfig(corrections=(str(reviewed),), split="train=0.8,val=0.2", reshuffle=True)
    with pytest.raises(ConfigError, match="a new split is dealt out"):
        convert(painted_dataset, tmp_path / "new", config)
    inside = tmp_path / "new" / "corrections.csv"
    inside.parent.mkdir()
    shutil.copy(reviewed, inside)
    with pytest.raises(DatasetError, match="lies inside the destination"):
        convert(painted_dataset, tmp_path / "new", ConvertConfig(corrections=(str(inside),), **AS_IS), overwrite=True)
    assert inside.is_file()
