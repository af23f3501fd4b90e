"""The data set folder: manifest, description, quarantine lists, and what is not one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import (
    Description,
    Row,
    fingerprint,
    load_images,
    open_dataset,
    read_description,
    read_manifest,
    read_quarantine,
    register,
    write_manifest,
    write_quarantine,
)
from deepfer_yolo.data.untrusted import leaves_folder
from deepfer_yolo.errors import DatasetError

CONFIG = ConvertConfig()
text = st.text(st.characters(exclude_characters="\0", exclude_categories=[]), min_size=1, max_size=30).filter(
    lambda value: not any("\ud800" <= c <= "\udfff" and not "\udc80" <= c <= "\udcff" for c in value)
)


def test_dataset_json_says_everything(painted_dataset: Path) -> None:
    content = json.loads((painted_dataset / "dataset.json").read_text())
    assert content["name"] == "FER2013"
    assert "redistributed" in content["licence"]
    assert {split: sum(counts.values()) for split, counts in content["counts"].items()} == {
        "train": 140,
        "val": 56,
        "test": 28,
    }
    assert content["options"]["layout"] == "fer2013-csv"
    lines = sorted(f"{r.sha256} {r.split} {r.label}\n" for r in read_manifest(painted_dataset))
    assert content["fingerprint"] == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_absent_labels_are_named() -> None:
    counts = {"train": {"happy": 1, "sad": 1}, "val": {"happy": 1, "sad": 0}}
    assert Description(name="some", labels=("happy", "sad"), fingerprint="00", counts=counts).absent_labels == [
        "val/sad"
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.tuples(text, text, text), max_size=6))
def test_manifests_round_trip_any_file_name(names: list[tuple[str, str, str]], tmp_path: Path) -> None:
    by_path = {path: (path, source, subject) for path, source, subject in names}
    rows = [Row(path, "train", "happy", source, subject, "00", "happy:1") for path, source, subject in by_path.values()]
    # What the file system gives for bytes that are not UTF-8 are lone surrogates; pairs of them that spell a character
    # are not among those.
    rows = [
        row
        for row in rows
        if os.fsdecode(os.fsencode(row.path + row.source_id + row.subject)) == row.path + row.source_id + row.subject
        and not leaves_folder(row.path)
    ]
    write_manifest(rows, tmp_path)
    assert read_manifest(tmp_path) == rows


def test_a_data_set_folder_from_a_stranger(painted_dataset: Path, tmp_path: Path) -> None:
    for old, new, what in (
        ("train/happy/", "../../etc/", "leaves the data set folder"),
        (",happy,", ",../../evil,", r"label '\.\./\.\./evil' is not among"),
    ):
        folder = tmp_path / what[:5].strip()
        shutil.copytree(painted_dataset, folder)
        manifest = (folder / "manifest.csv").read_text().replace(old, new, 1)
        (folder / "manifest.csv").write_text(manifest)
        with pytest.raises(DatasetError, match=what):
            open_dataset(folder)
        described = (folder / "dataset.json").read_text().replace('"happy"', '"../../evil"', 1)
        (folder / "dataset.json").write_text(described)
        with contextlib.suppress(DatasetError):  # or else its name is made safe
            convert(folder, tmp_path / "out", CONFIG)
            assert all(".." not in row.path.split("/") for row in read_manifest(tmp_path / "out"))
        assert {path.name for path in tmp_path.iterdir()} <= {"leave", r"label", "out"}
    (folder / "dataset.json").write_text('{"name": 1, "labels": 5, "fingerprint": 2}')
    with pytest.raises(DatasetError, match="labels Input should be a valid array"):
        open_dataset(folder)


def test_a_data_set_that_was_changed_is_refused_with_the_first_difference(
    painted_dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(painted_dataset, folder)
    manifest = folder / "manifest.csv"
    whole = manifest.read_text()
    lines = whole.splitlines(keepends=True)
    first = read_manifest(folder)[0]
    other = next(label for label in open_dataset(folder).labels if label != first.label)
    swapped = next(row for row in read_manifest(folder) if (row.split, row.label) == (first.split, other))
    exchanged = whole.replace(f"{first.path},{first.split},{first.label}", f"{first.path},{first.split},{other}")
    exchanged = exchanged.replace(
        f"{swapped.path},{swapped.split},{other}", f"{swapped.path},{swapped.split},{first.label}"
    )
    for content, what in (
        (whole + lines[1] * 5, rf"line {len(lines) + 1}: '{first.path}' stands here a second time, first in line 2"),
        ("".join(lines[:-1]), r"manifest.csv has \d+ images in \w+/\w+ where dataset.json says \d+"),
        (whole.replace(f",{first.split},{first.label},", f",{first.split},{other},", 1), "images in"),
        (exchanged, f"manifest.csv says {first.split}, {other} of '{first.path}'"),
        (whole.replace(first.sha256, "0" * 64), "a SHA-256, split or label in manifest.csv is not what it was"),
    ):
        manifest.write_text(content)
        with pytest.raises(DatasetError, match=what) as refusal:
            open_dataset(folder)
        if "second time" not in what:
            assert refusal.value.hint is not None
            assert f"deepfer convert {folder} {folder}-changed" in refusal.value.hint
            assert next(f.message for f in audit(folder, AuditConfig()).findings if f.kind == "changed").endswith(
                refusal.value.reason.removeprefix("has changed since it was converted: ")
            )
    registered = convert(folder, tmp_path / "set-changed", CONFIG)
    assert open_dataset(tmp_path / "set-changed").fingerprint == registered.fingerprint


def test_a_name_with_a_nul_is_one_clear_error(painted_dataset: Path, tmp_path: Path) -> None:
    dataset = open_dataset(painted_dataset)
    broken = [replace(dataset.rows("val")[0], path="val/happy/a\0b.png")]
    with pytest.raises(DatasetError, match="a NUL character in its name"):
        list(load_images(dataset, broken))
    (tmp_path / "labels.csv").write_text("path,label\na\0b.png,happy\n")
    with pytest.raises(DatasetError, match="a NUL character in its name"):
        convert(tmp_path / "labels.csv", tmp_path / "out", CONFIG)


def test_an_image_that_was_replaced_is_refused_when_it_is_read(painted_dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(painted_dataset, folder)
    dataset = open_dataset(folder)
    rows = dataset.rows("val")
    assert len(list(load_images(dataset, rows))) == len(rows)
    shutil.copy(dataset.path(rows[0]), dataset.path(rows[5]))
    with pytest.raises(DatasetError, match="is not the image that was converted") as refusal:
        list(load_images(open_dataset(folder), rows))
    assert refusal.value.path == str(dataset.path(rows[5]))


def test_a_missing_val_split_is_seen_by_whoever_needs_it(painted_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    rows = [row for row in read_manifest(painted_dataset) if row.split != "val"]
    register(rows, read_description(painted_dataset), tmp_path / "out")
    with pytest.raises(DatasetError, match="has no 'val' split; it has train, test"):
        open_dataset(tmp_path / "out").rows("val")


def test_a_tree_without_manifest_is_refused_with_the_command(tree: Path) -> None:
    with pytest.raises(DatasetError, match="without a manifest") as caught:
        open_dataset(tree)
    assert caught.value.hint == f"deepfer convert {tree} datasets/tree"


def test_a_list_for_another_data_set_is_refused(painted_dataset: Path, painted_csv: Path, tmp_path: Path) -> None:
    file = tmp_path / "leave-out.csv"
    dataset = open_dataset(painted_dataset)
    write_quarantine(file, [(dataset.all_rows[0].path, "blank", "why"), ("val/happy/none.png", "blank", "why")])
    with pytest.raises(DatasetError, match="1 of 2 images that are not in this data set"):
        dataset.without(file)
    with pytest.raises(DatasetError, match="2 of 2"):
        convert(painted_csv, tmp_path / "out", ConvertConfig(exclude=file))
    write_quarantine(file, [(dataset.all_rows[0].path, "blank", "why")])
    rest = dataset.without(file)
    assert len(rest.all_rows) == 223
    assert rest.fingerprint == fingerprint(dataset.all_rows[1:]) != dataset.fingerprint
    assert dataset.without(None) is dataset
    untouched = dataset.without(file, splits=["test"])
    assert (untouched.all_rows, untouched.fingerprint) == (dataset.all_rows, dataset.fingerprint)
    (tmp_path / "no.csv").write_text("a,b\n")
    with pytest.raises(DatasetError, match="the first column must be 'picture'"):
        read_quarantine(tmp_path / "no.csv")
