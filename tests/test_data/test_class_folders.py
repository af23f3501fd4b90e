"""Class folders in all their shapes: what stands above, below and beside them, and numbers that mean many things."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import Description, open_dataset
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.emotions import AFFECTNET_CODES, RAFDB_CODES
from deepfer_yolo.errors import DatasetError

PLAIN = ConvertConfig(group_by="none", val=0.0)


def code_folders(paint: ModuleType, root: Path, codes: dict[int, str], splits: tuple[str, str], *more: int) -> Path:
    """SPLIT/CODE/image for all faces, 50 in the first split, and one image in the second for each of `more` codes."""
    for index, (face, name) in enumerate(zip(paint.FACES, paint.NAMES, strict=True)):
        code = paint.code_of(codes, name)
        paint.save(root / splits[0 if index < 50 else 1] / str(code) / f"{index}.png", face)
    for code in more:
        paint.save(root / splits[1] / str(code) / "more.png", paint.FACES[code])
    return root


def refused(source: Path, config: ConvertConfig = PLAIN) -> DatasetError:
    """What convert says, which has written nothing; and audit, which is told as much, says the same."""
    with pytest.raises(DatasetError) as caught:
        convert(source, source.parent / "none", config)
    assert not (source.parent / "none").exists()
    with pytest.raises(DatasetError) as again:
        audit(source, AuditConfig(layout=config.layout))
    assert again.value.message == caught.value.message
    return caught.value


def n_images(found: Description) -> dict[str, int]:
    return {split: sum(counts.values()) for split, counts in found.counts.items()}


def test_splits_below_the_labels_are_kept(paint: ModuleType, tmp_path: Path) -> None:
    for index, (face, name) in enumerate(zip(paint.FACES, paint.NAMES, strict=True)):
        paint.save(tmp_path / "source" / name / ("Training" if index < 50 else "test") / f"{index}.png", face)
    found = convert(tmp_path / "source", tmp_path / "out", PLAIN)
    assert n_images(found) == {"train": 50, "test": 20}
    rows = open_dataset(tmp_path / "out").all_rows
    assert Counter(row.label for row in rows) == Counter(paint.NAMES)
    assert all(row.split == ("train" if "/Training/" in row.source_id else "test") for row in rows)
    paint.save(tmp_path / "source" / "happy" / "loose.png", paint.FACES[0])
    assert convert(tmp_path / "source", tmp_path / "loose", PLAIN).left_out == {"images outside the class folders": 1}
    paint.save(tmp_path / "source" / "happy" / "anna" / "a.png", paint.FACES[0])
    assert "happy: holds both split folders and others (anna)" in refused(tmp_path / "source").message


def test_data_sets_side_by_side_are_no_labels(tree: Path, tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        shutil.copytree(tree, tmp_path / "both" / name)
    error = refused(tmp_path / "both")
    assert "mine: is no class folder: its split folders hold class folders (angry, " in error.message
    assert error.hint == f"deepfer convert {tmp_path / 'both' / 'mine'} takes it alone"


def test_an_empty_class_folder_is_counted_and_no_error(tree: Path, tmp_path: Path) -> None:
    (tree / "val" / "contempt").mkdir()
    (tree / "val" / "contempt" / "desktop.ini").write_text("seen")
    shutil.rmtree(tree / "val" / "sad")
    (tree / "val" / "sad").mkdir()
    found = convert(tree, tmp_path / "out", PLAIN)
    assert found.left_out["empty folder (val/contempt)"] == found.left_out["empty folder (val/sad)"] == 1
    assert found.absent_labels == ["val/sad"]
    assert n_images(found) == {"train": 14, "val": 12}
    (tree / "val" / "sad" / "a.jxl").write_bytes(b"x")
    with pytest.raises(DatasetError, match="val/sad: no image that is read, but 1 JPEG XL"):
        convert(tree, tmp_path / "again", PLAIN)
    for folder in tree.glob("*/*"):
        shutil.rmtree(folder)
        folder.mkdir()
    with pytest.raises(DatasetError, match="holds no images"):
        convert(tree, tmp_path / "again", PLAIN)


def test_a_split_folder_without_class_folders_is_said(tree: Path, tmp_path: Path) -> None:
    """Many a download has a test folder of images without labels, or one that is empty."""
    (tree / "test").mkdir()
    assert convert(tree, tmp_path / "a", PLAIN).left_out == {"empty folder (test)": 1}
    shutil.copy(next((tree / "val" / "sad").iterdir()), tree / "test" / "1.png")
    assert convert(tree, tmp_path / "b", PLAIN).left_out == {"images outside the class folders": 1}


def labels_csv(tree: Path, name: str = "labels.csv", first: str = "") -> list[str]:
    """A list of all images of `tree` with their folders' labels, the first one with another."""
    images = sorted(path.relative_to(tree).as_posix() for path in tree.glob("**/*.png"))
    rows = [f"{i},{path},{path.split('/')[-2]},0.9" for i, path in enumerate(images)]
    if first:
        rows[0] = rows[0].replace(images[0].split("/")[-2] + ",0.9", f"{first},0.9")
    (tree / name).write_text("\n".join([",pth,label,relFCs", *rows]) + "\n")
    return images


def test_a_list_that_disagrees_with_the_folders_is_never_overruled(paint: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source"
    paint.class_tree_without_splits(source)
    images = labels_csv(source, first="contempt")
    error = refused(source)
    assert "70 of 70 images are listed, 1 of them otherwise: " in error.message
    assert f"{images[0]} is angry by its folder and contempt in the list" in error.message
    assert error.hint == "--layout table takes the list, --layout class-tree the folders"
    of_list = convert(source, tmp_path / "list", PLAIN.model_copy(update={"layout": "table"}))
    assert "contempt" in of_list.labels
    of_folders = convert(source, tmp_path / "folders", PLAIN.model_copy(update={"layout": "class-tree"}))
    assert sum(n_images(of_folders).values()) == sum(n_images(of_list).values()) == 70
    assert "contempt" not in of_folders.labels
    assert audit(source, AuditConfig(layout="table")).counts != audit(source, AuditConfig(layout="class-tree")).counts


def test_a_list_that_agrees_is_one_truth_and_one_that_lists_less_is_not(tree: Path, tmp_path: Path) -> None:
    plain = convert(tree, tmp_path / "plain", PLAIN.model_copy(update={"layout": "class-tree"}))
    for split in ("train", "val"):
        labels_csv(tree / split, f"{split}.csv")
    agreed = convert(tree, tmp_path / "out", PLAIN)
    assert agreed.fingerprint == plain.fingerprint
    file = tree / "val" / "val.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    error = refused(tree)
    assert "27 of 28 images are listed, 0 of them otherwise" in error.message
    assert "train/train.csv" in (error.hint or "")
    (tree / "val" / "val.csv").write_text("path,label,split\nnowhere.png,happy,val\n")
    assert "14 of 28 images are listed" in refused(tree).message
    (tree / "train" / "train.csv").unlink()
    assert convert(tree, tmp_path / "other", PLAIN).fingerprint == plain.fingerprint  # it speaks of none of the images


def test_a_list_beside_the_folder_of_the_class_folders(tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.move(tree, source / "data")
    labels_csv(source)
    agreed = convert(source, tmp_path / "out", PLAIN)
    assert (agreed.options["layout"], sum(n_images(agreed).values())) == ("table", 28)
    labels_csv(source, first="contempt")
    error = refused(source)
    assert "28 of 28 images are listed, 1 of them otherwise: data/train/angry" in error.message
    assert error.hint == f"--layout table takes the list, deepfer convert {source / 'data'} the folders"


@pytest.mark.parametrize("above", ["", "people/"])
def test_folders_that_are_no_labels_speak_no_truth(paint: ModuleType, above: str, tmp_path: Path) -> None:
    """By person, by their initials, by day: the list alone says the labels, and may leave images out."""
    rows = ["path,label,subject"]
    for index, name in enumerate(paint.NAMES):
        person = ("anna", "bert", "SA", "AN", "2024-05-01", "7")[index % 6]
        path = f"{above}{person}/{index}.png"
        paint.save(tmp_path / "source" / path, paint.FACES[index])
        rows.append(f"{path},{name},{person}")
    (tmp_path / "source" / "labels.csv").write_text("\n".join(rows[:-5]))
    found = convert(tmp_path / "source", tmp_path / "out", PLAIN)
    assert found.options["layout"] == "table"
    assert sum(n_images(found).values()) == 65


def test_a_list_of_any_labels_beside_folders_of_them(paint: ModuleType, tmp_path: Path) -> None:
    for index in range(40):
        paint.save(tmp_path / "source" / ("drowsy", "awake")[index % 2] / f"{index}.png", paint.FACES[index])
    labels_csv(tmp_path / "source")
    assert sum(n_images(convert(tmp_path / "source", tmp_path / "out", PLAIN)).values()) == 40
    labels_csv(tmp_path / "source", first="drowsy")
    assert (
        "40 of 40 images are listed, 1 of them otherwise: awake/1.png is awake" in refused(tmp_path / "source").message
    )


def test_a_list_with_another_split_than_the_folders(tree: Path) -> None:
    image = next((tree / "val" / "sad").iterdir()).name
    rows = [f"{path.relative_to(tree).as_posix()},{path.parent.name},{path.parts[-3]}" for path in tree.glob("*/*/*")]
    rows = [row.replace(",val", ",train") if image in row else row for row in rows]
    (tree / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    assert "28 of 28 images are listed, 1 of them otherwise" in refused(tree).message


def test_code_folders_are_raf_db_in_that_shape_alone(paint: ModuleType, tmp_path: Path) -> None:
    """Whatever else is numbered 1 to 7 lost images and got wrong labels."""
    assert find_layout(code_folders(paint, tmp_path / "raf", RAFDB_CODES, ("train", "test")), "auto").name == "rafdb"
    affectnet = code_folders(paint, tmp_path / "affectnet", AFFECTNET_CODES, ("train", "val"), 7)
    with_ten = code_folders(paint, tmp_path / "ten", RAFDB_CODES, ("train", "val"), 10)
    with_val = code_folders(paint, tmp_path / "val", RAFDB_CODES, ("train", "val"))
    for source, numbers in ((affectnet, "0, 1, 2, 3, 4, 5, 6, 7"), (with_ten, "1, 2, 3, 4, 5, 6, 7, 10")):
        error = refused(source)
        assert f"its class folders are numbers ({numbers}), which mean another label" in error.message
        assert "--map 1=LABEL --map 2=LABEL" in (error.hint or "")
    assert "--layout affectnet-folders as AffectNet numbers them (0 neutral, …)" in (refused(affectnet).hint or "")
    assert "--layout rafdb" not in (refused(affectnet).hint or "")
    assert "--layout rafdb" in (refused(with_val).hint or "")
    found = convert(with_ten, tmp_path / "out", ConvertConfig(layout="rafdb"))
    assert n_images(found) == {"train": 50, "val": 20}
    assert found.left_out == {"images in val/10, which is no label here": 1}
    (with_ten / "train" / "8").mkdir()
    again = convert(with_ten, tmp_path / "again", ConvertConfig(layout="rafdb"))
    assert (again.left_out, again.fingerprint) == (found.left_out, found.fingerprint)


def test_numbers_at_the_top_and_their_names_by_map(paint: ModuleType, tmp_path: Path) -> None:
    for index, name in enumerate(paint.NAMES):
        paint.save(
            tmp_path / "a" / "wrapped" / str(3 + paint.EMOTIONS.index(name)) / f"{index}.png", paint.FACES[index]
        )
    (tmp_path / "a" / "README").write_text("read me")
    assert "are numbers (3, 4, 5, 6, 7, 8, 9)" in refused(tmp_path / "a").message
    names = {str(3 + code): name for code, name in enumerate(paint.EMOTIONS)}
    partly = {code: name for code, name in names.items() if code != "9"}
    with pytest.raises(DatasetError, match=r"are numbers \(9\)"):
        convert(tmp_path / "a", tmp_path / "out", ConvertConfig(group_by="none", map=partly))
    convert(tmp_path / "a", tmp_path / "out", ConvertConfig(group_by="none", map=names))
    assert Counter(row.label for row in open_dataset(tmp_path / "out").all_rows) == Counter(paint.NAMES)


def test_affectnet_code_folders_when_asked_for(paint: ModuleType, tmp_path: Path) -> None:
    source = code_folders(paint, tmp_path / "a", AFFECTNET_CODES, ("train", "val"), 7, 8, 9, 11)
    found = convert(source, tmp_path / "out", ConvertConfig(layout="affectnet-folders"))
    assert n_images(found) == {"train": 50, "val": 21}
    assert found.left_out == {"none": 1, "uncertain": 1, "images in val/11, which is no label here": 1}
    labels = Counter(row.label for row in open_dataset(tmp_path / "out").all_rows)
    assert labels == Counter([*paint.NAMES, "contempt"])
