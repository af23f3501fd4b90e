"""Data sets as programs and people really leave them: what stands beside, names, copies, and what is said twice."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import Description
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.errors import DatasetError

CONFIG = ConvertConfig()
LONG = "a person who laughs in front of a house seen from far away 100% free_jpg.rf.0123456789abcdef0123456789abcdef"


def n_images(content: Description) -> int:
    return sum(sum(by_label.values()) for by_label in content.counts.values())


def refused(source: Path, tmp_path: Path, config: ConvertConfig = CONFIG) -> str:
    with pytest.raises(DatasetError) as caught:
        convert(source, tmp_path / "out", config)
    return f"{caught.value}\n{caught.value.hint}"


@pytest.mark.parametrize("painter", ["roboflow_boxes", "roboflow_classes", "coco_by_split", "voc_original"])
def test_lists_find_images_with_long_names_in_archives(boxed: ModuleType, painter: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    getattr(boxed, painter)(source)
    for image in list(source.rglob("*.png")):
        new = f"{LONG}{image.stem.partition('_')[0]}"
        for file in source.rglob("*"):
            if file.suffix in (".csv", ".json", ".xml"):
                file.write_text(file.read_text().replace(f'"{image.name}"', f'"{new}.png"'))
                file.write_text(file.read_text().replace(f"\n{image.name},", f"\n{new}.png,"))
                file.write_text(file.read_text().replace(f">{image.name}<", f">{new}.png<"))
        if painter == "voc_original":
            xml = source / "Annotations" / f"{image.stem}.xml"
            xml.rename(xml.with_stem(new))
        image.rename(image.with_stem(new))
    for file in (source / "ImageSets" / "Main").glob("*.txt"):
        file.write_text("".join(f"{LONG}{name}\n" for name in file.read_text().split()))
    shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    plain = convert(source, tmp_path / "plain", CONFIG)
    assert n_images(plain) == 40
    assert convert(tmp_path / "packed.zip", tmp_path / "out", CONFIG).fingerprint == plain.fingerprint


@pytest.mark.parametrize("painter", ["roboflow_boxes", "coco_by_split", "voc_by_split"])
def test_a_test_without_labels_is_counted(boxed: ModuleType, painter: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    getattr(boxed, painter)(source)
    for file in (source / "test").iterdir():
        if file.suffix != ".png":
            file.unlink()
    content = convert(source, tmp_path / "out", CONFIG)
    whys = {
        "roboflow_boxes": "images that _annotations.csv does not name",
        "coco_by_split": "images that no list names",
    }
    assert content.left_out == {whys.get(painter, "images without an xml"): 3}
    assert n_images(content) == 34


def test_trainval_stands_for_an_absent_train_and_names_may_hold_blanks(boxed: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source"
    boxed.voc_original(source)
    for file in [*source.rglob("*.png"), *source.rglob("*.xml")]:
        file.rename(file.with_stem(f"a face {file.stem}"))
    sets = source / "ImageSets" / "Main"
    lists = {name: [f"a face {line}\n" for line in (sets / f"{name}.txt").read_text().split()] for name in boxed.SCENES}
    for name in ("train", "val"):
        (sets / f"{name}.txt").unlink()
    (sets / "trainval.txt").write_text("".join(lists["train"] + lists["val"]))
    (sets / "test.txt").write_text("".join(lists["test"]))
    content = convert(source, tmp_path / "out", ConvertConfig(val=0))
    assert {split: sum(counts.values()) for split, counts in content.counts.items()} == {"train": 34, "test": 6}
    (sets / "trainval.txt").write_text("other\n")
    (sets / "test.txt").write_text("another\n")
    assert "holds no images; left out: 20 images that no list in ImageSets/Main names" in refused(
        source, tmp_path / "empty"
    )


def test_what_mac_os_leaves_beside_the_files_of_a_flat_set(boxed: ModuleType, tmp_path: Path) -> None:
    boxed.voc_by_split(tmp_path / "voc")
    (tmp_path / "voc" / "train" / "._0.xml").write_bytes(b"\0\5\26\7")
    (tmp_path / "voc" / "train" / "._0.png").write_bytes(b"\0\5\26\7")
    assert find_layout(tmp_path / "voc" / "train", "auto").name == "voc"
    content = convert(tmp_path / "voc" / "train", tmp_path / "out", CONFIG)
    assert (n_images(content), content.left_out) == (28, {})


@pytest.mark.parametrize("first", ["yolo_by_kind", "voc_original"])
def test_a_set_in_two_forms_is_asked_about(boxed: ModuleType, first: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    getattr(boxed, first)(source)
    boxed.coco_by_split(source)
    other = "yolo-detection" if first == "yolo_by_kind" else "voc"
    text = refused(source, tmp_path)
    assert f"several things say what its images show: it can be read as coco, {other}" in text
    assert f"--layout coco or --layout {other} says which of them holds" in text
    assert n_images(convert(source, tmp_path / "out", ConvertConfig(layout="coco"))) == 40
    table = source / "labels.csv"
    table.write_text("path,label\ntrain/0.png,happy\n")
    assert f"--layout coco or --layout {other} or --layout table" in refused(source, tmp_path / "other")


def test_a_json_beside_class_folders_is_no_detection_set(tree: Path, tmp_path: Path) -> None:
    (tree / "metadata.json").write_text('{"categories": ["a"], "images": 28}')
    assert convert(tree, tmp_path / "out", CONFIG).options["layout"] == "class-tree"


def test_boxes_beside_the_images_of_class_folders_are_asked_about(boxed: ModuleType, tmp_path: Path) -> None:
    source, labels = tmp_path / "source", ("happy", "sad", "happy", "sad")
    halves = {"split": "train=0.5,val=0.5", "group_by": "none"}
    for n, label in enumerate(labels):
        boxed.scene(source / label / f"[{n}].png", boxed.FACES[2 * n], boxed.FACES[2 * n + 1])
        (source / label / f"[{n}].txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert "boxes stand beside its images, such as happy/[0].txt" in refused(source, tmp_path)
    assert n_images(convert(source, tmp_path / "whole", ConvertConfig(layout="class-tree", **halves))) == 4
    for n, label in enumerate(labels):
        (source / label / f"[{n}].txt").write_text("A woman laughs at 3 1 2 4 5.\n")
        boxes = [(label, x, y, x + boxed.SIDE, y + boxed.SIDE) for x, y in boxed.PLACES]
        (source / label / f"[{n}].xml").write_text(boxed.voc_xml(f"[{n}].png", boxes))
    assert "--layout voc makes one image a box" in refused(source, tmp_path)
    assert n_images(convert(source, tmp_path / "cut", ConvertConfig(layout="voc", **halves))) == 8


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_parted_by_other_signs(paint: ModuleType, delimiter: str, tmp_path: Path) -> None:
    paint.class_tree(tmp_path / "faces")
    rows = [[path.relative_to(tmp_path).as_posix(), path.parent.name] for path in sorted(tmp_path.rglob("*.png"))]
    file = tmp_path / "labels.csv"
    file.write_text("path,label\n" + "".join(f"{','.join(row)}\n" for row in rows))
    plain = convert(file, tmp_path / "plain", CONFIG)
    with file.open("w", newline="", encoding="utf-8-sig") as opened:
        csv.writer(opened, delimiter=delimiter).writerows([["path", "label"], *rows])
    assert convert(file, tmp_path / "out", CONFIG).fingerprint == plain.fingerprint


def test_rows_that_repeat_or_contradict_others(boxed: ModuleType, tmp_path: Path) -> None:
    for n in range(4):
        boxed.scene(tmp_path / f"{n}.png", boxed.FACES[n])
    file, head = tmp_path / "labels.csv", "path,label,split\n0.png,happy,train\n1.png,sad,val\n"
    file.write_text(f"{head}./0.png,happy,train\n2.png,,test\n")
    content = convert(tmp_path, tmp_path.parent / f"{tmp_path.name}-out", CONFIG)
    assert n_images(content) == 2
    expected = {"rows that say what another row says", "images without a label", "images that labels.csv does not name"}
    assert content.left_out == dict.fromkeys(expected, 1)
    file.write_text(f"{head}.\\0.png,sad,train\n1.png,sad,test\n")
    text = refused(file, tmp_path)
    assert "line 4: 0.png is 'sad train' here and 'happy train' before: which of them holds?" in text
    assert "line 5: 1.png is 'sad test' here and 'sad val' before" in text
    file.write_text("path,label,x1,y1,x2,y2\n0.png,happy,20,30,68,78\n0.png,sad,20,30,68,78\n")
    assert "the box 20,30,68,78 of 0.png is 'sad' here and 'happy' before" in refused(file, tmp_path)
    file.write_text("path,label,Label\n0.png,happy,sad\n")
    assert "has two columns called 'label'" in refused(file, tmp_path)
    file.write_text("path,label,emotion\n0.png,3,happy\n1.png,joy,Happy\n2.png,happy,sad\n")
    text = refused(file, tmp_path)
    assert "line 4: label is 'happy' and emotion is 'sad': keep one of these columns" in text
    assert "line 2" not in text
    assert "line 3" not in text
    file.write_text("path,label\nsub/gone.png,happy\n")
    assert "line 2: the file is not there: sub/gone.png" in refused(file, tmp_path)


def test_a_table_that_states_the_size_of_its_images_is_held_to_it(boxed: ModuleType, tmp_path: Path) -> None:
    boxed.scene(tmp_path / "0.png", boxed.FACES[0])
    file = tmp_path / "labels.csv"
    for size in ("width,height", "image_width,image_height"):
        file.write_text(f"filename,{size},class,xmin,ymin,xmax,ymax,split\n0.png,480,320,happy,40,60,136,156,train\n")
        assert "the box is of an image of 480×320, and the image has 240×160" in refused(file, tmp_path)
    file.write_text("filename,width,height,class,xmin,ymin,xmax,ymax,split\n0.png,240,,happy,20,30,68,78,train\n")
    assert n_images(convert(file, tmp_path / "out", CONFIG)) == 1
