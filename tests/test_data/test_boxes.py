"""Boxes: one crop a face and never the scene, from detection sets and tables; what passes an edge; what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import Dataset, load_images, open_dataset
from deepfer_yolo.data.layouts.boxes import Box, box_columns
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.errors import DatasetError

CONFIG = ConvertConfig()
LAYOUTS = {
    "roboflow_boxes": "roboflow-boxes",
    "yolo_by_split": "yolo-detection",
    "yolo_by_kind": "yolo-detection",
    "coco_by_split": "coco",
    "coco_original": "coco",
    "voc_by_split": "voc",
    "voc_original": "voc",
}


def converted(source: Path, config: ConvertConfig = CONFIG) -> Dataset:
    convert(source, source.parent / "out", config, overwrite=True)
    return open_dataset(source.parent / "out")


@pytest.mark.parametrize("painter", LAYOUTS)
def test_each_box_becomes_the_face_that_it_holds(boxed: ModuleType, painter: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    getattr(boxed, painter)(source)
    assert find_layout(source, "auto").name == LAYOUTS[painter]
    dataset = converted(source)
    assert Counter((row.split, row.label) for row in dataset.all_rows) == boxed.COUNTS
    assert len({row.source_id for row in dataset.all_rows}) == len(dataset.all_rows) == 40
    assert {row.image for row in dataset.all_rows} == {
        path.relative_to(source).as_posix() for path in source.rglob("*.png")
    }
    for row, image in zip(dataset.all_rows, load_images(dataset, dataset.all_rows), strict=True):
        face = 2 * int(Path(row.image).stem) + row.source_id.endswith("#2")
        assert row.label == boxed.NAMES[face]
        assert np.array_equal(image[:, :, 0], boxed.FACES[face]), row
    assert convert(source, tmp_path / "again", CONFIG).left_out == {}


def test_roboflow_tells_its_licence_and_labels_in_columns(boxed: ModuleType, tmp_path: Path) -> None:
    boxed.yolo_by_split(tmp_path / "yolo")
    content = convert(tmp_path / "yolo", tmp_path / "out", CONFIG)
    assert (content.licence, content.source) == ("CC BY 4.0", "https://universe.example/faces")
    source = tmp_path / "source"
    boxed.roboflow_classes(source)
    assert find_layout(source, "auto").name == "roboflow-classes"
    assert Counter((row.split, row.label) for row in converted(source).all_rows) == boxed.COUNTS


def test_rows_of_several_labels_or_none_are_left_out_where_that_is_said(boxed: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source"
    boxed.roboflow_classes(source)
    list_file = source / "train" / "_classes.csv"
    lines = list_file.read_text().splitlines()
    first, second = (line.split(",")[0] for line in lines[1:3])
    lines[1], lines[2] = f"{first}, 1, 0, 0, 1, 0, 0, 0", f"{second}, 0, 0, 0, 0, 0, 0, 0"
    list_file.write_text("\n".join(lines))
    with pytest.raises(DatasetError) as caught:
        converted(source)
    multi, none = "--drop multi-label leaves such rows out", "--drop no-label leaves such rows out"
    assert f"train/_classes.csv, line 2: {first} has 2 labels (angry, happy); {multi}" in caught.value.message
    assert f"train/_classes.csv, line 3: {second} has no label; {none}" in caught.value.message
    content = convert(source, tmp_path / "out", ConvertConfig(drop=("multi-label", "no-label")))
    assert content.left_out == {"multi-label": 1, "no-label": 1}
    assert sum(map(sum, (by_label.values() for by_label in content.counts.values()))) == 38
    list_file.write_text(
        "\n".join([*lines[:1], f"{first}, 1, 0, 0, 0.5, 0, 0, 0", f"{second},1,0,0,0,0,0,0", f"{second},0,1,0,0,0,0,0"])
    )
    with pytest.raises(DatasetError) as caught:
        converted(source)
    assert "line 2: happy is '0.5', not 0 or 1" in caught.value.message
    assert (
        f"line 4: {second} is 'disgust train' here and 'angry train' before: which of them holds?"
        in caught.value.message
    )


@pytest.mark.parametrize("painter", ["roboflow_boxes", "yolo_by_kind", "coco_by_split", "voc_original"])
def test_images_without_boxes_are_counted(boxed: ModuleType, painter: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    getattr(boxed, painter)(source)
    one = next(source.rglob("18.png"))
    boxed.scene(one.with_name("blank.png"))
    if painter == "coco_by_split":
        file = one.parent / "_annotations.coco.json"
        content = json.loads(file.read_text())
        content["images"].append({"id": "b", "file_name": "blank.png"})
        content["annotations"].append({"id": 99, "image_id": "b", "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 1})
        content["images"].append({"id": "c", "file_name": "blank.png"})
        file.write_text(json.dumps(content))
    if painter == "yolo_by_kind":
        boxed.scene(one.with_name("empty.png"))
        (source / "labels" / "test" / "empty.txt").write_text("\n")
    expected = {
        "roboflow_boxes": {"images that _annotations.csv does not name": 1},
        "yolo_by_kind": {"images without a text of boxes": 1, "images whose text of boxes is empty": 1},
        "coco_by_split": {"crowds, which are no single face": 1, "images without boxes": 1},
        "voc_original": {"images without an xml": 1},
    }
    assert convert(source, tmp_path / "out", CONFIG).left_out == expected[painter]


def test_boxes_that_pass_the_edge_are_clipped_and_counted(boxed: ModuleType, tmp_path: Path) -> None:
    boxed.scene(tmp_path / "a.png", boxed.FACES[0])
    corners = [(20, 30, 68, 78), (-10, 30, 68, 78), (20, 30.4, 240.9, 160), (20, 140, 68, 999)]
    rows = [["a.png", "happy", "train", *map(str, box)] for box in corners]
    boxed.write_csv(tmp_path / "labels.csv", [["path", "label", "split", "x1", "y1", "x2", "y2"], *rows])
    content = convert(tmp_path / "labels.csv", tmp_path / "out", CONFIG)
    assert content.clipped_boxes == 2
    images = list(load_images(open_dataset(tmp_path / "out"), open_dataset(tmp_path / "out").all_rows))
    assert [image.shape[0] for image in images] == [48, 68, 220, 48]
    assert np.array_equal(images[0][:, :, 1], boxed.FACES[0])
    assert (images[3] == (90, 120, 60)).all()


def test_the_margin_is_around_the_box(boxed: ModuleType, tmp_path: Path) -> None:
    boxed.coco_original(tmp_path / "source")
    dataset = converted(tmp_path / "source", ConvertConfig(margin=0.25))
    row = next(row for row in dataset.all_rows if row.source_id == "train2017/0.png")
    image = next(load_images(dataset, [row]))
    assert image.shape == (72, 72, 3)
    assert np.array_equal(image[12:60, 12:60, 2], boxed.FACES[0])
    assert (image[:12] == (90, 120, 60)).all()


def test_faces_of_one_image_stay_together_in_a_new_split(boxed: ModuleType, tmp_path: Path) -> None:
    """Without near copies among them: three faces an image, and only the image tells that they belong together."""
    rows = [["image", "emotion", "left", "top", "width", "height"]]
    faces, labels = boxed.paint_faces(5, 120, 24)
    for n in range(40):
        image = np.full((30, 90, 3), n, np.uint8)
        for k in range(3):
            image[3:27, 30 * k + 3 : 30 * k + 27] = faces[3 * n + k][:, :, None]
            rows.append([f"{n}.png", boxed.EMOTIONS[labels[3 * n + k]], 30 * k + 3, 3, 24, 24])
        boxed.PillowImage.fromarray(image).save(tmp_path / f"{n}.png")
    boxed.write_csv(tmp_path / "labels.csv", rows)
    dataset = converted(tmp_path / "labels.csv")
    splits: dict[str, set[str]] = {}
    for row in dataset.all_rows:
        splits.setdefault(row.image, set()).add(row.split)
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}
    torn = converted(tmp_path / "labels.csv", ConvertConfig(group_by="none"))
    assert len({(row.image, row.split) for row in torn.all_rows}) > 40


@pytest.mark.parametrize(
    ("columns", "form", "expected"),
    [
        (("path", "label", "box"), None, (("box",), "xyxy")),
        (("path", "label", "bbox"), "xywh", (("bbox",), "xywh")),
        (("path", "label", "bounding_box_xyxy"), None, (("bounding_box_xyxy",), "xyxy")),
        (("path", "label", "bbox", "width", "height"), "xyxy", (("bbox",), "xyxy")),
        (("x_min", "y_min", "x_max", "y_max", "width", "height"), None, (("x_min", "y_min", "x_max", "y_max"), "xyxy")),
        (("top", "left", "bottom", "right"), None, (("left", "top", "right", "bottom"), "xyxy")),
        (("left", "top", "width", "height"), None, (("left", "top", "width", "height"), "xywh")),
        (("h", "w", "y", "x"), None, (("x", "y", "w", "h"), "xywh")),
        (
            ("face_x", "face_y", "face_width", "face_height"),
            None,
            (("face_x", "face_y", "face_width", "face_height"), "xywh"),
        ),
        (("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), None, (("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"), "xyxy")),
        (("path", "label", "width", "height", "x", "y"), None, (("x", "y", "width", "height"), "xywh")),
        (("path", "label", "width", "height"), None, None),
        (("path", "label", "x1", "y1", "x2", "y2", "x3", "y3"), None, None),
        (("path", "label", "left_eye_x", "left_eye_y", "faces", "left"), None, None),
    ],
)
def test_columns_that_name_a_box(
    columns: tuple[str, ...], form: str | None, expected: tuple[tuple[str, ...], str] | None
) -> None:
    found = box_columns(columns, form)
    assert (None if found is None else (found.names, found.form)) == expected


@pytest.mark.parametrize(
    ("columns", "form", "what"),
    [
        (("bbox",), None, "the column bbox may hold x1 y1 x2 y2 or x y width height; say which: --box-format xyxy"),
        (("face_box",), None, "say which"),
        (("Rectangle",), None, "say which"),
        (("xmin", "ymin"), None, "the columns xmin, ymin name a part of a box"),
        (("x1", "y1", "x2"), None, "name a part of a box"),
        (("face_x", "face_y"), None, "name a part of a box"),
        (("x_center", "y_center", "width", "height"), None, "x_center, y_center name a part"),
        (("bbox", "box"), None, "name a box twice"),
        (("bbox", "x1", "y1", "x2", "y2"), None, "name a box twice"),
        (("x1", "y1", "x2", "y2"), "xywh", "say otherwise"),
        (("bbox_xyxy",), "xywh", "says otherwise"),
    ],
)
def test_columns_that_are_refused(columns: tuple[str, ...], form: str | None, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        box_columns(columns, form)


def test_a_table_asks_what_its_bbox_means(boxed: ModuleType, tmp_path: Path) -> None:
    boxed.scene(tmp_path / "a.png", boxed.FACES[0])
    table = boxed.write_csv(
        tmp_path / "labels.csv", [["path", "label", "split", "bbox"], ["a.png", "sad", "train", "[20, 30, 48, 48]"]]
    )
    with pytest.raises(DatasetError, match=r"labels\.csv, line 1: the column bbox may hold") as caught:
        converted(table)
    assert "--box-format" in caught.value.message
    dataset = converted(table, ConvertConfig(box_format="xywh"))
    assert np.array_equal(next(load_images(dataset, dataset.all_rows))[:, :, 0], boxed.FACES[0])
    row = {"image": "a.png", "label": "sad", "split": "train", "bbox": [20, 30, 48, 48]}
    lines = tmp_path / "labels.jsonl"
    lines.write_text(json.dumps(row) + "\n" + json.dumps({**row, "bbox": None}) + "\n")
    with pytest.raises(DatasetError, match=r"line 1: the column bbox may hold"):
        converted(lines)
    with pytest.raises(DatasetError, match=r"line 2: bbox is 'None', not x y width height"):
        converted(lines, ConvertConfig(box_format="xywh"))


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ("nan 1 5 5", "box is not finite"),
        ("1 1 inf 5", "box is not finite"),
        ("9 9 9 20", "the box 9,9,9,20 has no area"),
        ("20 20 9 9", "has no area"),
        ("300 10 400 60", "is not inside the image of 240×160"),
        ("-50 10 -2 60", "is not inside the image of 240×160"),
        ("0.1 0.2 0.5 0.6", "shares of the image, where pixels belong"),
        ("1 2 3", "box is '1 2 3', not x1 y1 x2 y2"),
        ("a b c d", "not x1 y1 x2 y2"),
    ],
)
def test_boxes_that_are_problems_by_name(boxed: ModuleType, box: str, what: str, tmp_path: Path) -> None:
    boxed.scene(tmp_path / "a.png", boxed.FACES[0])
    boxed.write_csv(
        tmp_path / "labels.csv", [["path", "label", "box"], ["a.png", "sad", "20 30 68 78"], ["a.png", "sad", box]]
    )
    with pytest.raises(DatasetError, match=rf"^labels\.csv, line 3: .*{what}"):
        converted(tmp_path / "labels.csv")
    with pytest.raises(ValueError, match="not finite"):
        Box.of([1, 2, 10**400, 4])


def _append(name: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with (root / name).open("a") as file:
            file.write(text)

    return change


def _write(name: str, text: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).write_text(text)

    return change


def _json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def rewrite(root: Path) -> None:
        content = json.loads((root / COCO).read_text())
        change(content)
        (root / COCO).write_text(json.dumps(content))

    return rewrite


def _image(image: object) -> Callable[[Path], None]:
    return _json(lambda content: content["images"].append(image))


def _annotation(**values: object) -> Callable[[Path], None]:
    return _json(lambda content: content["annotations"][5].update(values))


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return change


ROBOFLOW = "train/_annotations.csv"
YOLO, TEXT = "data.yaml", "labels/train/0.txt"
COCO = "train/_annotations.coco.json"
XML = "Annotations/0.xml"
BOMB = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotation><filename>&b;</filename></annotation>'
YAML_BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n > 1 else 'x'] * 9)}]\n" for n in range(1, 9))
FOREIGN = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation></annotation>'


@pytest.mark.parametrize(
    ("painter", "change", "what"),
    [
        ("roboflow_boxes", _append(ROBOFLOW, "0.png,240,160,sad,nan,1,5,5\n"), "line 30: box is not finite"),
        ("roboflow_boxes", _append(ROBOFLOW, "0.png,240,160,sad,a,1,5,5\n"), "box is 'a 1 5 5', not x1 y1 x2 y2"),
        ("roboflow_boxes", _append(ROBOFLOW, "0.png,640,480,sad,1,1,5,5\n"), "the box is of an image of 640×480"),
        ("roboflow_boxes", _append(ROBOFLOW, "gone.png,240,160,sad,1,1,5,5\n"), "line 30: the file is not there"),
        ("roboflow_boxes", _append(ROBOFLOW, "../valid/14.png,240,160,sad,1,1,5,5\n"), "is not a file name"),
        ("roboflow_boxes", _append(ROBOFLOW, "0.png,240,160,,1,1,5,5\n"), "no class"),
        ("yolo_by_kind", _append(TEXT, "7 .5 .5 .2 .2\n"), f"{TEXT}, line 3: class 7 is not among the 7"),
        ("yolo_by_kind", _append(TEXT, "-1 .5 .5 .2 .2\n"), "class -1 is not among"),
        ("yolo_by_kind", _append(TEXT, "1.5 .5 .5 .2 .2\n"), "class 1.5 is not among"),
        ("yolo_by_kind", _append(TEXT, "1 30 30 48 48\n"), "are these pixels?"),
        ("yolo_by_kind", _append(TEXT, "1 nan .5 .2 .2\n"), "not shares of the image"),
        ("yolo_by_kind", _append(TEXT, "1 .5 .5 0 .2\n"), "has no area"),
        ("yolo_by_kind", _append(TEXT, "1 1.4 .5 .2 .2\n"), "is not inside the image"),
        ("yolo_by_kind", _append(TEXT, "1 .5 .5 .2 .2 .9\n"), "5 numbers after the class"),
        ("yolo_by_kind", _append(TEXT, "happy .5 .5 .2 .2\n"), "not a class and numbers"),
        ("yolo_by_kind", _write("labels/train/gone.txt", "1 .5 .5 .2 .2\n"), "labels/train/gone.txt: no image"),
        ("yolo_by_kind", _write(YOLO, "train: images/train\n"), "no data.yaml or classes.txt names them"),
        ("yolo_by_kind", _write(YOLO, "names: 7\n"), "names is neither a list nor numbers with names"),
        ("yolo_by_kind", _write(YOLO, "names: [happy, yes]\n"), "'1: True' is not a number and a name"),
        ("yolo_by_kind", _write(YOLO, "names: [happy]\nnc: 2\n"), "nc is 2, and names has 1"),
        ("yolo_by_kind", _write(YOLO, "names: " + "[" * 10_000), "nested too deep"),
        ("yolo_by_kind", _write(YOLO, "names: {<<: {0: happy}}\n"), "'<<' is not read here"),
        ("yolo_by_kind", _write(YOLO, f"train: {'x' * 5000}\n"), "no data.yaml or classes.txt names them"),
        ("yolo_by_kind", _write(YOLO, YAML_BOMB), "'*a1' is not read here"),
        ("yolo_by_kind", _write(YOLO, "names: [happy]\nday: 2026-99-99\n"), "is not valid yaml"),
        ("yolo_by_kind", _write(YOLO, "#" * 1_100_000), "is larger than 1 MB"),
        ("coco_by_split", _write(COCO, '{"images": ' + "[" * 10_000), "nested too deep, at character"),
        ("coco_by_split", _write(COCO, '{"images": [{"id": 1'), "is not the JSON it should be"),
        ("coco_by_split", _write(COCO, '{"images": 3}'), "has no images"),
        ("coco_by_split", _write(COCO, '["images"]'), "'[' where '{' belongs"),
        ("coco_by_split", _json(lambda c: c.update(categories=[])), "has no categories"),
        ("coco_by_split", _image(7), "images number 15: is not an id and a file_name"),
        ("coco_by_split", _image({"id": 0, "file_name": "b"}), "id 0 stands there twice"),
        ("coco_by_split", _image({"id": 99, "file_name": "../b.png"}), "leaves the folder"),
        ("coco_by_split", _json(lambda c: c["images"][0].update(file_name="gone.png")), "the file is not there"),
        ("coco_by_split", _json(lambda c: c["images"][0].update(file_name="\ud800.png")), "characters in its name"),
        ("coco_by_split", _annotation(category_id=9), "annotation 5: category_id is 9"),
        ("coco_by_split", _annotation(image_id=[1]), "image_id is [1], and the list has"),
        ("coco_by_split", _annotation(bbox=[1, 2, -3, 4]), "has no area"),
        ("coco_by_split", _annotation(bbox=[1, 2, float("nan"), 4]), "not finite"),
        ("coco_by_split", _annotation(bbox=[1, 2, 10**400, 4]), "not finite"),
        ("coco_by_split", _annotation(bbox="1 2 3 4"), "bbox is '1 2 3 4'"),
        ("coco_by_split", _json(lambda c: c["annotations"].append("x")), "annotation number 29: is no JSON object"),
        ("coco_original", _write("annotations/instances_val.json", '{"images": []}'), "two lists of val"),
        ("voc_original", _write(XML, BOMB), f"{XML}: declares a document type or entities"),
        ("voc_original", _write(XML, FOREIGN), "declares a document type"),
        ("voc_original", _write(XML, "<annotation>" + "<a>" * 10_000), "nested too deep"),
        ("voc_original", _write(XML, "<annotation><object>"), f"{XML}: no element found"),
        ("voc_original", _write(XML, "<html/>"), "begins with <html>"),
        ("voc_original", _write(XML, '<?xml version="1.0" encoding="nine"?><annotation/>'), f"{XML}: unknown encoding"),
        ("voc_original", _write(XML, " " * 1_000_001), "larger than 1 MB"),
        ("voc_original", _replace(XML, "<xmax>68<", "<xmax>20<"), f"{XML}, object 1: the box 20,30,20,78 has no area"),
        ("voc_original", _replace(XML, "<xmin>20<", "<xmin>nan<"), "box is not finite"),
        ("voc_original", _replace(XML, "<xmin>20</xmin>", ""), "has no bndbox with xmin"),
        ("voc_original", _replace(XML, "<width>240<", "<width>120<"), "the box is of an image of 120×160"),
        ("voc_original", lambda root: (root / "JPEGImages/0.png").unlink(), f"{XML}, object 1: the file is not there"),
        ("voc_original", _append("ImageSets/Main/val.txt", "0\n"), "'0' is in train and in val"),
    ],
)  # fmt: skip
def test_what_is_malformed_or_hostile_is_named(
    boxed: ModuleType, painter: str, change: Callable[[Path], None], what: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    getattr(boxed, painter)(source)
    change(source)
    with pytest.raises(DatasetError) as caught:
        convert(source, tmp_path / "out", ConvertConfig(layout=LAYOUTS[painter]))
    assert what in caught.value.message, caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_data_yaml_is_never_followed_out_of_its_folder(boxed: ModuleType, tmp_path: Path) -> None:
    boxed.yolo_by_kind(tmp_path / "other")
    source = tmp_path / "source"
    boxed.yolo_by_kind(source)
    other = tmp_path / "other" / "images"
    names = f"names: {list(boxed.EMOTIONS)}\n"
    (source / "data.yaml").write_text(
        f"path: {tmp_path / 'other'}\ntrain: {other}/train\nval: ../other/images/val\ntest: ../nowhere\n{names}"
    )
    content = convert(source, tmp_path / "out", CONFIG)
    assert sum(content.counts["train"].values()) == 28
    assert content.left_out == {"test of data.yaml (../nowhere), which is no folder here": 1}
    assert sum(content.counts["test"].values()) == 6
    (source / "data.yaml").write_text(f"train: images/train\nval: images/train\ntest: images/val\n{names}")
    content = convert(source, tmp_path / "same", CONFIG)
    assert sum(content.counts["train"].values()) + sum(content.counts["val"].values()) == 28
    assert content.left_out["val of data.yaml, which is the folder of train"] == 1
    assert content.left_out["folder beside the splits (test)"] == 1


def test_outlines_poses_and_a_list_of_classes(boxed: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source"
    boxed.scene(source / "images" / "train" / "a.png", *boxed.FACES[:2])
    (source / "labels" / "train").mkdir(parents=True)
    x1, y1, x2, y2 = 20 / 240, 30 / 160, 68 / 240, 78 / 160
    pose = "0.5 0.5 2 0.6 0.6 2"
    outline = f"0 {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}\n"
    (source / "labels" / "train" / "a.txt").write_text(
        outline + f"1.0 {174 / 240} {114 / 160} {48 / 240} {48 / 160} {pose}\n"
    )
    (source / "classes.txt").write_text("sad\nhappy\n")
    with pytest.raises(DatasetError, match=r"labels/train/a\.txt, line 2: not shares of the image"):
        converted(source)
    (source / "data.yaml").write_text("names: [sad, happy]\nkpt_shape: [2, 3]\n")
    dataset = converted(source)
    found = {
        row.label: image for row, image in zip(dataset.all_rows, load_images(dataset, dataset.all_rows), strict=True)
    }
    assert np.array_equal(found["sad"][:, :, 0], boxed.FACES[0])
    assert np.array_equal(found["happy"][:, :, 0], boxed.FACES[1])


def test_a_json_of_gigabytes_is_not_read_into_memory(boxed: ModuleType, tmp_path: Path) -> None:
    """A sparse file whose first image never ends."""
    boxed.coco_by_split(tmp_path / "source")
    with (tmp_path / "source" / COCO).open("r+b") as file:
        file.write(b'{"images": [')
        file.truncate(12)
        file.truncate(2 << 30)
    with pytest.raises(DatasetError, match=r"a value is longer than 4,194,304 characters or broken"):
        converted(tmp_path / "source")


def test_the_box_of_a_ferplus_list_is_used(paint: ModuleType, tmp_path: Path) -> None:
    paint.ferplus(tmp_path / "source")
    file = tmp_path / "source" / "FER2013Valid" / "label.csv"
    file.write_text(file.read_text().replace("(0, 0, 48, 48)", "(8, 8, 40, 40)", 1))
    dataset = converted(tmp_path / "source")
    row = next(row for row in dataset.all_rows if row.source_id == "FER2013Valid/fer0000030.png")
    assert np.array_equal(next(load_images(dataset, [row]))[:, :, 0], paint.FACES[30][8:40, 8:40])


def test_audit_reads_boxes_too(boxed: ModuleType, tmp_path: Path) -> None:
    boxed.voc_by_split(tmp_path / "source")
    result = audit(tmp_path / "source", AuditConfig(near_correlation=0.98, min_per_class=1))
    assert result.counts == convert(tmp_path / "source", tmp_path / "out", CONFIG).counts
