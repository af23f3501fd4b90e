"""Every known layout, painted and recognised by itself: labels, splits, subjects, boxes."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import Dataset, load_images, open_dataset
from deepfer_yolo.data.layouts.fer2013 import split_of
from deepfer_yolo.data.layouts.registry import LAYOUTS, find_layout
from deepfer_yolo.errors import ConfigError, DatasetError

NO_GROUPS = ConvertConfig(group_by="none")


# painter, layout, images by split (None: split anew), whether subjects are known
KNOWN = {
    "fer2013_prefixed": ("fer2013-folder", {"train": 24, "val": 23, "test": 23}, False),
    "fer2013_rows": ("fer2013-folder", {"train": 56, "val": 7, "test": 7}, False),
    "ferplus": ("ferplus-folder", {"train": 21, "val": 21, "test": 21}, False),
    "rafdb": ("rafdb", {"train": 45, "val": 5, "test": 20}, False),
    "rafdb_copy": ("rafdb", {"train": 45, "val": 5, "test": 20}, False),
    "affectnet_csv": ("affectnet-csv", {"train": 50, "val": 20}, False),
    "affectnet_npy": ("affectnet-npy", {"train": 50, "val": 20}, False),
    "ckplus": ("ckplus", None, True),
    "ckplus_copy": ("ckplus", None, True),
    "jaffe": ("jaffe", None, True),
    "kdef": ("kdef", None, True),
    "expw": ("expw", None, False),
    "ferg": ("ferg", None, True),
    "muxspace": ("muxspace", None, False),
    "parquet": ("parquet", {"train": 50, "val": 10, "test": 10}, False),
    "imagefolder": ("imagefolder", {"train": 50, "val": 10, "test": 10}, False),
    "webdataset": ("webdataset", {"train": 50, "val": 20}, False),
    "table_csv": ("table", {"train": 50, "val": 20}, True),
    "table_jsonl": ("table", {"train": 50, "val": 20}, False),
    "class_tree": ("class-tree", {"train": 50, "val": 20}, False),
    "class_tree_without_splits": ("class-tree", None, False),
}


def converted(paint: ModuleType, painter: str, tmp_path: Path, config: ConvertConfig = NO_GROUPS) -> Dataset:
    source = tmp_path / "source"
    source.mkdir()
    getattr(paint, painter)(source)
    convert(
        source,
        tmp_path / "out",
        config if KNOWN[painter][1] is None else config.model_copy(update={"group_by": "auto"}),
    )
    return open_dataset(tmp_path / "out")


@pytest.mark.parametrize("painter", KNOWN)
def test_recognised_labelled_and_split(paint: ModuleType, painter: str, tmp_path: Path) -> None:
    layout, splits, has_subjects = KNOWN[painter]
    source = tmp_path / "source"
    source.mkdir()
    getattr(paint, painter)(source)
    assert find_layout(source, "auto").name == layout
    content = convert(source, tmp_path / "out", ConvertConfig(group_by="none"))
    dataset = open_dataset(tmp_path / "out")
    assert content.options["layout"] == layout
    assert content.licence
    if splits is not None:
        assert Counter(row.split for row in dataset.all_rows) == splits
    else:
        assert set(dataset.splits) == {"train", "val", "test"}
    assert all(bool(row.subject) == has_subjects for row in dataset.all_rows)
    assert (len({row.subject for row in dataset.all_rows}) > 1) == has_subjects
    assert len({row.source_id for row in dataset.all_rows}) == len(dataset.all_rows)
    if painter not in ("ckplus", "ferplus", "ckplus_copy"):
        assert Counter(row.label for row in dataset.all_rows) == Counter(paint.NAMES)
    assert layout.replace("-", "_").startswith(LAYOUTS[layout].read.__module__.rpartition(".")[2])


@pytest.mark.parametrize("painter", ["affectnet_csv", "table_csv", "table_jsonl"])
def test_boxes_are_cut_to_the_face(paint: ModuleType, painter: str, tmp_path: Path) -> None:
    dataset = converted(paint, painter, tmp_path)
    for row, image in zip(dataset.all_rows[:10], load_images(dataset, dataset.all_rows[:10]), strict=True):
        assert any(np.array_equal(image[:, :, 0], face) for face in paint.FACES), row
    wide = convert(tmp_path / "source", tmp_path / "wide", ConvertConfig(margin=0.25))
    assert wide.options["margin"] == 0.25
    assert next(load_images(open_dataset(tmp_path / "wide"), open_dataset(tmp_path / "wide").all_rows[:1])).shape == (
        72,
        72,
        3,
    )


def test_expw_boxes_are_top_left_right_bottom(paint: ModuleType, tmp_path: Path) -> None:
    dataset = converted(paint, "expw", tmp_path)
    row = next(row for row in dataset.all_rows if row.source_id == "face_3.png#1")
    assert np.array_equal(next(load_images(dataset, [row]))[:, :, 1], paint.FACES[7])
    assert row.path.endswith("face_3_1.png")


def test_ckplus_takes_the_peak_and_the_first_frame(paint: ModuleType, tmp_path: Path) -> None:
    dataset = converted(paint, "ckplus", tmp_path)
    frames = {row.source_id.rpartition("_")[2]: row for row in dataset.all_rows if "/S000/001/" in row.source_id}
    assert sorted(frames) == ["00000001.png", "00000003.png", "00000004.png", "00000005.png"]
    assert frames["00000001.png"].label == "neutral"
    assert {row.label for name, row in frames.items() if name != "00000001.png"} == {"angry"}
    assert len(dataset.all_rows) == 21 * 4
    assert "contempt" in dataset.labels


def test_rows_of_the_random_copy_go_back_to_the_official_split(paint: ModuleType, tmp_path: Path) -> None:
    dataset = converted(paint, "fer2013_rows", tmp_path)
    for row in dataset.all_rows:
        index = int(row.source_id)
        assert row.split == ("train" if index < 28709 else "val" if index < 32298 else "test")
    as_is = convert(tmp_path / "source", tmp_path / "as-is", ConvertConfig(split="as-is"))
    assert {split: sum(counts.values()) for split, counts in as_is.counts.items()} == {"train": 56, "val": 14}
    boundaries = {
        "0": "train",
        "28708": "train",
        "28709": "val",
        "32297": "val",
        "32298": "test",
        "35886": "test",
        "35887": None,
        "007": None,
    }
    assert {stem: split_of(stem) for stem in boundaries} == boundaries


def test_a_small_numbered_tree_is_not_taken_for_fer2013(paint: ModuleType, tmp_path: Path) -> None:
    for index in range(14):
        paint.save(
            tmp_path / "tree" / ("train" if index % 2 else "val") / paint.EMOTIONS[index // 2] / f"{index}.jpg",
            paint.FACES[index],
        )
    assert find_layout(tmp_path / "tree", "auto").name == "class-tree"


def test_votes_of_a_ferplus_folder(paint: ModuleType, tmp_path: Path) -> None:
    dataset = converted(paint, "ferplus", tmp_path)
    assert all("contempt:1" in row.votes for row in dataset.all_rows if "9999999" not in row.path)
    majority = convert(tmp_path / "source", tmp_path / "m", ConvertConfig(labels="ferplus-majority"))
    assert majority.left_out == {"no FER+ majority": 3}
    assert not open_dataset(tmp_path / "m").all_rows[0].votes


def test_ferg_is_told_from_a_tree_and_counts_what_it_leaves_out(paint: ModuleType, tmp_path: Path) -> None:
    """In its download's folder, beside a Readme."""
    source = tmp_path / "download" / "FERG_DB_256"
    paint.ferg(source)
    (tmp_path / "download" / "Readme.txt").write_text("read me")
    found = convert(tmp_path / "download", tmp_path / "out", ConvertConfig(group_by="subject"))
    assert found.name == "FERG"
    of_subject = {row.subject: row.split for row in open_dataset(tmp_path / "out").all_rows}
    assert set(of_subject) == {"AIA", "BONNIE", "JULES", "MALCOLM", "MERY", "RAY"}
    assert {(row.subject, row.split) for row in open_dataset(tmp_path / "out").all_rows} == set(of_subject.items())
    paint.save(source / "aia" / "sketches" / "1.png", paint.FACES[0])
    left_out = convert(source, tmp_path / "more", NO_GROUPS).left_out
    assert left_out == {"images in aia/sketches, which is no label here": 1}


def test_the_images_of_a_list_may_lie_elsewhere(paint: ModuleType, tmp_path: Path) -> None:
    """muxspace's list, the same list with its images moved, and any list with `--root`."""
    paint.muxspace(tmp_path / "source")
    plain = convert(tmp_path / "source", tmp_path / "plain", NO_GROUPS)
    legend = tmp_path / "source" / "data" / "legend.csv"
    assert convert(legend, tmp_path / "list", NO_GROUPS).fingerprint == plain.fingerprint
    shutil.make_archive(str(tmp_path / "repository"), "zip", tmp_path, "source")
    assert convert(tmp_path / "repository.zip", tmp_path / "zip", NO_GROUPS).fingerprint == plain.fingerprint
    elsewhere = (tmp_path / "source" / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"legend\.csv, line 2: the file is not there"):
        convert(legend, tmp_path / "again", NO_GROUPS)
    with pytest.raises(DatasetError, match="nowhere: no such folder of images"):
        convert(legend, tmp_path / "again", NO_GROUPS.model_copy(update={"root": tmp_path / "nowhere"}))
    at_root = NO_GROUPS.model_copy(update={"root": elsewhere})
    assert convert(legend, tmp_path / "root", at_root).fingerprint == plain.fingerprint
    table = legend.rename(tmp_path / "table.csv")
    assert convert(table, tmp_path / "table", at_root).fingerprint == plain.fingerprint


def test_what_is_left_out_is_counted(paint: ModuleType, tmp_path: Path) -> None:
    for painter in ("affectnet_csv", "kdef"):
        source = tmp_path / painter
        source.mkdir()
        getattr(paint, painter)(source)
    assert convert(tmp_path / "affectnet_csv", tmp_path / "a", ConvertConfig()).left_out == {"no-face": 2}
    assert convert(tmp_path / "kdef", tmp_path / "k", ConvertConfig()).left_out == {"no expression code in the name": 1}


@pytest.mark.parametrize(
    ("painter", "file", "line", "what"),
    [
        ("rafdb", "EmoLabel/list_patition_label.txt", "train_1.jpg 9", "not like 'train_00001.jpg 5'"),
        ("rafdb", "EmoLabel/list_patition_label.txt", "train_99999.jpg 1", "the file is not there"),
        ("affectnet_csv", "training.csv", "../../x.jpg,1,1,5,5,,1,0,0", "leaves the folder"),
        ("affectnet_csv", "training.csv", "0/00000000.png,1,a,5,5,,1,0,0", "box is '1 a 5 5', not x y width height"),
        ("affectnet_csv", "training.csv", "0/00000000.png,500,500,5,5,,1,0,0", "is not inside the image of 120×100"),
        ("affectnet_csv", "training.csv", "0/00000000.png,1,1,5,5,,77,0,0", "expression is '77'"),
        ("expw", "label/label.lst", "face_1.png 0 1 2 3", "not like 'image face_id"),
        ("expw", "label/label.lst", "../x.png 0 1 1 9 9 50 3", "not a file name"),
        ("table_csv", "labels.csv", "faces/1.png,happy,midway,p,", "split is 'midway'"),
        ("table_csv", "labels.csv", "faces/1.png,happy,train,p,1 2 3", "box is '1 2 3'"),
        ("table_csv", "labels.csv", "faces/1.png,happy,train", "3 values where 5 belong"),
        ("table_jsonl", "labels.jsonl", "[1]", "not a JSON object"),
        ("table_jsonl", "labels.jsonl", '{"image": "faces/1.png", "emotion": "happy", "box": [1,2,null,4]}', "box is"),
        ("ferplus", "FER2013Train/label.csv", "fer1.png,box,1,2", "not a name, a box and 10 votes"),
    ],
)
def test_a_bad_line_is_named(paint: ModuleType, painter: str, file: str, line: str, what: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    getattr(paint, painter)(source)
    with (source / file).open("a", newline="") as list_file:
        list_file.write(line + "\n")
    number = len((source / file).read_text().splitlines())
    with pytest.raises(DatasetError) as caught:
        convert(source, tmp_path / "out", ConvertConfig())
    assert f"{Path(file).name}, line {number}: " in caught.value.message
    assert what in caught.value.message


@pytest.mark.parametrize(("painter", "example"), [("jaffe", "KA.AN1.39"), ("ckplus_copy", "S010_004_00000017")])
def test_a_misnamed_image_is_a_problem(paint: ModuleType, painter: str, example: str, tmp_path: Path) -> None:
    getattr(paint, painter)(tmp_path / "source")
    paint.save(tmp_path / "source" / "happy" / "none.png", paint.FACES[0])
    with pytest.raises(DatasetError, match=rf"^happy/none\.png: the name is not like {example}$"):
        convert(tmp_path / "source", tmp_path / "out", ConvertConfig(layout=KNOWN[painter][0]))


def test_official_split_of_a_source_without_one_is_an_error(paint: ModuleType, tmp_path: Path) -> None:
    paint.jaffe(tmp_path / "source")
    with pytest.raises(ConfigError, match="no split of its own"):
        convert(tmp_path / "source", tmp_path / "out", ConvertConfig(split="official"))


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=1)


def _huge(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
    path.write_bytes(header.getvalue())


def _open_bracket(path: Path) -> None:
    np.save(path, np.array(3))
    path.write_bytes(path.read_bytes().replace(b"}", b" "))


@pytest.mark.parametrize(
    "write",
    [
        _npz,
        _open_bracket,
        _huge,
        lambda path: np.save(path, np.array("inf")),
        lambda path: np.save(path, np.array({"a": 1}), allow_pickle=True),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00junk"),
        lambda path: np.save(path, np.array([1, 2])),
    ],
)
def test_annotations_that_are_not_one_number(write: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "source" / "train_set"
    (folder / "annotations").mkdir(parents=True)
    write(folder / "annotations" / "0_exp.npy")
    with pytest.raises(DatasetError, match=r"0_exp\.npy: does not hold one expression code"):
        convert(tmp_path / "source", tmp_path / "out", ConvertConfig())


def test_a_code_that_only_looks_like_a_digit(tmp_path: Path) -> None:
    (tmp_path / "raf" / "EmoLabel").mkdir(parents=True)
    (tmp_path / "raf" / "EmoLabel" / "list_patition_label.txt").write_text("train_00001.jpg ²\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="line 1: not like"):
        convert(tmp_path / "raf", tmp_path / "out", ConvertConfig())


def test_what_stands_beside_the_class_folders_is_counted(tree: Path, tmp_path: Path) -> None:
    (tree / "extra").mkdir()
    shutil.copy(next((tree / "val" / "sad").iterdir()), tree / "val" / "loose.png")
    (tree / "train" / "sad" / "notes.txt").write_text("seen")
    left_out = convert(tree, tmp_path / "out", ConvertConfig()).left_out
    expected = {
        "folder beside the splits (extra)": 1,
        "images outside the class folders": 1,
        "files that are no images by their name": 1,
    }
    assert left_out == expected
    finding = next(
        finding for finding in audit(tree, AuditConfig(near_correlation=0.98)).findings if finding.kind == "left-out"
    )
    assert finding.count == 3
    (tree / "val" / "joy").symlink_to("gone")
    with pytest.raises(DatasetError, match="val/joy: a link that leads nowhere"):
        convert(tree, tmp_path / "again", ConvertConfig())
