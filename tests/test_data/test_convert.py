"""Convert: bit-exact pixels, official splits, labels mapped, every bad input with its place."""

from __future__ import annotations

import csv
import gzip
import hashlib
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import (
    load_images,
    open_dataset,
    read_manifest,
    read_quarantine,
    write_quarantine,
)
from deepfer_yolo.emotions import EMOTIONS, FER2013_CODES
from deepfer_yolo.errors import ConfigError, DatasetError, DeepferError

CONFIG = ConvertConfig()
PIXELS = " ".join(["7"] * 2304)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_csv_pixels_labels_and_splits_are_exact(painted_csv: Path, painted_dataset: Path) -> None:
    dataset = open_dataset(painted_dataset)
    source = read_csv(painted_csv)
    assert len(dataset.all_rows) == len(source) == 224
    for row, image, (code, pixels, usage) in zip(
        dataset.all_rows, load_images(dataset, dataset.all_rows), source, strict=True
    ):
        assert row.label == FER2013_CODES[int(code)]
        assert row.split == {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}[usage]
        assert image[:, :, 0].tobytes() == image[:, :, 2].tobytes() == bytes(map(int, pixels.split()))
        assert row.sha256 == hashlib.sha256((painted_dataset / row.path).read_bytes()).hexdigest()
    assert [row.source_id for row in dataset.all_rows] == [str(i) for i in range(224)]
    assert dataset.labels == EMOTIONS


@pytest.mark.parametrize("kind", ["gz", "zip", "bom", "crlf", "quoted", "icml"])
def test_every_form_of_the_csv_gives_the_same_data_set(
    kind: str, painted_csv: Path, painted_dataset: Path, tmp_path: Path
) -> None:
    text = painted_csv.read_bytes()
    source = tmp_path / "form.csv"
    if kind == "gz":
        source = tmp_path / "form.csv.gz"
        source.write_bytes(gzip.compress(text, 1))
    elif kind == "zip":
        source = tmp_path / "form.zip"
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fer2013/README", "x")
            archive.writestr("fer2013/fer2013.csv", text)
    elif kind == "bom":
        source.write_bytes(b"\xef\xbb\xbf" + text)
    elif kind == "crlf":
        source.write_bytes(text.replace(b"\n", b"\r\n"))
    else:
        rows = read_csv(painted_csv)
        with source.open("w", newline="") as file:
            if kind == "quoted":
                csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["emotion", "pixels", "Usage"], *rows])
            else:
                csv.writer(file).writerows([["emotion", " Usage", " pixels"], *([c, u, p] for c, p, u in rows)])
    assert convert(source, tmp_path / "out", CONFIG).fingerprint == open_dataset(painted_dataset).fingerprint


def test_a_csv_without_usage_is_split_anew_and_says_so(painted_csv: Path, tmp_path: Path) -> None:
    source = tmp_path / "train.csv"
    with painted_csv.open(newline="") as file:
        source.write_text("".join(f'{code},"{pixels}"\n' for code, pixels, _ in csv.reader(file)))
    content = convert(source, tmp_path / "out", CONFIG)
    assert content.options["split"] == "train=0.8,val=0.1,test=0.1"
    assert sum(content.counts["val"].values()) >= 10
    with pytest.raises(ConfigError, match="no split of its own"):
        convert(source, tmp_path / "again", ConvertConfig(split="official"))


def test_bad_rows_are_reported_together_with_their_lines(tmp_path: Path) -> None:
    bad = {
        3: (f"0,{PIXELS} 7,Training", "2305 pixels where 2304 belong"),
        4: (f"0,{PIXELS[:-2]},Training", "2303 pixels where 2304 belong"),
        5: (f"0,256{PIXELS[1:]},Training", "pixel 0 is '256'"),
        6: (f"0,{PIXELS[:-1]}-1,Training", "pixel 2303 is '-1'"),
        7: (f"0,1e2{PIXELS[1:]},Training", "pixel 0 is '1e2'"),
        8: (f"0,{PIXELS},Trainig", "Usage is 'Trainig'"),
        9: (f" ,{PIXELS},Training", "emotion is ''"),
        10: (f"0,{PIXELS}", "2 values where 3 belong"),
        11: (f"0,٣{PIXELS[1:]},Training", "pixel 0 is '٣'"),
        12: (f"0,99999999999999999999{PIXELS[1:]},Training", "pixel 0 is '99999999999999999999'"),
        13: (f",{PIXELS},Training", "emotion is ''"),
    }
    source = tmp_path / "bad.csv"
    source.write_text(
        "\n".join(["emotion,pixels,Usage", f"3,{PIXELS},Training", *(line for line, _ in bad.values())]) + "\n"
    )
    with pytest.raises(DatasetError) as caught:
        convert(source, tmp_path / "out", CONFIG)
    for line, (_, what) in bad.items():
        assert f"bad.csv, line {line}: {what}" in caught.value.message
    assert caught.value.message.startswith("11 problems")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "layout is not one of those known"),
        (b"emotion,Usage\n0,Training\n", "line 1: no column 'pixels'"),
        (b"pixels,Usage\n1,Training\n", "line 1: no column 'emotion'"),
        (b"emotion,pixels,Usage\n", "has a header and no rows"),
        (b"hello\nworld\n", "layout is not one of those known"),
        (b"emotion,pixels,Usage\n0," + b"1 " * 200_000, "line 2: longer than"),
        (b'emotion,pixels,Usage\n0,"' + b"1 \n" * 200_000, "field larger than field limit"),
    ],
)
def test_bad_csv_files(content: bytes, what: str, tmp_path: Path) -> None:
    source = tmp_path / "bad.csv"
    source.write_bytes(content)
    with pytest.raises(DatasetError, match=what) as caught:
        convert(source, tmp_path / "out", CONFIG)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_broken_gz_is_a_clear_error(painted_csv: Path, tmp_path: Path) -> None:
    whole = gzip.compress(painted_csv.read_bytes(), 1)
    source = tmp_path / "cut.csv.gz"
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="compressed file is broken"):
        convert(source, tmp_path / "out", CONFIG)


def test_what_is_not_there_and_unknown_layouts(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        convert(tmp_path / "no.csv", tmp_path / "out", CONFIG)
    with pytest.raises(ConfigError, match="unknown layout 'ferr'"):
        convert(tmp_path, tmp_path.parent / "out", ConvertConfig(layout="ferr"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: its layout is not one of those known"):
        convert(tmp_path / "empty", tmp_path / "out", CONFIG)


def test_class_tree_to_folder_and_again_is_the_identity(painted_dataset: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for split in ("train", "val", "test"):
        shutil.copytree(painted_dataset / split, tree / split)
    content = convert(tree, tmp_path / "again", CONFIG)
    assert content.options["layout"] == "class-tree"
    assert content.fingerprint == open_dataset(painted_dataset).fingerprint
    assert content.licence == "unknown"
    same = convert(painted_dataset, tmp_path / "third", CONFIG)
    assert same.options["layout"] == "deepfer"
    assert same.name == "FER2013"
    assert read_manifest(tmp_path / "third") == read_manifest(painted_dataset)


def test_label_and_split_spellings(tree: Path, tmp_path: Path) -> None:
    (tree / "train").rename(tree / "Training")
    (tree / "val").rename(tree / "valid")
    (tree / "Training" / "happy").rename(tree / "Training" / "3_Happiness")
    assert convert(tree, tmp_path / "out", CONFIG).counts["train"]["happy"] == 2


def test_an_unknown_label_lists_what_was_seen(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / "happy").rename(tree / "train" / "bored")
    with pytest.raises(
        DatasetError,
        match=r"label 'bored': not a known emotion \(2 images\).*seen besides: angry, disgust, fear, happy",
    ):
        convert(tree, tmp_path / "out", CONFIG)


def test_images_in_every_mode_come_out_upright_and_rgb(tree: Path, tmp_path: Path) -> None:
    folder = tree / "train" / "happy"
    for old in folder.iterdir():
        old.unlink()
    ramp = np.linspace(0, 255, 20 * 30).astype(np.uint8).reshape(20, 30)
    colour = np.dstack([ramp, ramp[::-1], ramp[:, ::-1]])
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # turned by a quarter
    PillowImage.fromarray(colour).save(folder / "exif.png", exif=exif)
    PillowImage.fromarray(ramp.astype(np.uint16) * 257).save(folder / "deep.png")
    PillowImage.fromarray(np.dstack([colour, ramp])).save(folder / "alpha.png")
    PillowImage.fromarray(colour).convert("CMYK").save(folder / "cmyk.tif")
    convert(tree, tmp_path / "out", CONFIG)
    dataset = open_dataset(tmp_path / "out")
    rows = [row for row in dataset.rows("train") if row.label == "happy"]
    images = {Path(row.path).stem: image for row, image in zip(rows, load_images(dataset, rows), strict=True)}
    assert np.array_equal(images["exif"], np.rot90(colour, -1))
    assert np.array_equal(images["deep"], np.dstack([ramp] * 3))
    assert np.array_equal(images["alpha"], colour)
    assert np.abs(images["cmyk"].astype(int) - colour).max() <= 1


def test_bad_folders_are_reported_together(tree: Path, tmp_path: Path) -> None:
    for path in (tree / "train" / "sad").iterdir():
        path.unlink()
    happy = sorted((tree / "val" / "happy").iterdir())
    happy[0].write_bytes(happy[0].read_bytes()[:300])
    (tree / "val" / "happy" / "text.jpg").write_text("hello")
    (tree / "val" / "happy" / "zero.png").touch()
    with pytest.raises(DatasetError) as caught:
        convert(tree, tmp_path / "out", CONFIG)
    message = caught.value.message
    assert "3 problems" in message
    assert f"val/happy/{happy[0].name}: broken image" in message
    assert "val/happy/text.jpg: not an image" in message
    assert "val/happy/zero.png: not an image" in message
    assert not (tmp_path / "out").exists()


def test_a_full_destination_is_kept_unless_told(painted_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DeepferError, match="not empty"):
        convert(painted_csv, tmp_path / "out", CONFIG)
    assert (tmp_path / "out" / "mine.txt").exists()
    convert(painted_csv, tmp_path / "out", CONFIG, overwrite=True)
    assert not (tmp_path / "out" / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_overwrite_keeps_the_old_tree(painted_csv: Path, tmp_path: Path) -> None:
    convert(painted_csv, tmp_path / "out", CONFIG)
    before = read_manifest(tmp_path / "out")
    bad = tmp_path / "bad.csv"
    bad.write_text("emotion,pixels,Usage\n0,1 2,Training\n")
    with pytest.raises(DatasetError):
        convert(bad, tmp_path / "out", CONFIG, overwrite=True)
    assert read_manifest(tmp_path / "out") == before


def test_the_destination_may_not_lie_inside_the_source(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="inside the source"):
        convert(tree, tree / "out", CONFIG)


def test_what_is_read_is_never_overwritten(tree: Path, tmp_path: Path) -> None:
    before = sorted(tree.rglob("*"))
    for source, target in ((tree / "train", tree), (tree, tree), (tree, tree / "out")):
        with pytest.raises(DatasetError, match="lies inside the"):
            convert(source, target, CONFIG, overwrite=True)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "q.csv").write_text("picture,finding,why\n")
    with pytest.raises(DatasetError, match=r"q\.csv: lies inside the destination"):
        convert(tree, tmp_path / "lists", ConvertConfig(exclude=tmp_path / "lists" / "q.csv"), overwrite=True)
    assert sorted(tree.rglob("*")) == before


def test_a_slice_of_the_real_csv(shared_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "slice.csv"
    with gzip.open(shared_dir / "datasets" / "fer2013_dev.csv.gz", "rt") as whole:
        lines = [next(whole) for _ in range(301)]
    source.write_text("".join(lines))
    convert(source, tmp_path / "out", CONFIG)
    dataset = open_dataset(tmp_path / "out")
    for line, image in zip(lines[1:], load_images(dataset, dataset.all_rows), strict=True):
        assert image[:, :, 1].tobytes() == bytes(map(int, line.split(",")[1].split()))


def test_map_and_drop(painted_csv: Path, tmp_path: Path) -> None:
    content = convert(
        painted_csv,
        tmp_path / "out",
        ConvertConfig(map={"happy": "positive", "surprise": "positive"}, drop=("disgust",)),
    )
    assert content.labels == ("angry", "fear", "neutral", "positive", "sad")
    assert content.counts["train"]["positive"] == 40
    assert content.left_out == {"disgust": 32}
    assert convert(tmp_path / "out", tmp_path / "again", ConvertConfig()).labels == content.labels
    with pytest.raises(DatasetError, match="--map or --drop 'joy': no image bears this label"):
        convert(painted_csv, tmp_path / "no", ConvertConfig(map={"joy": "positive"}))
    with pytest.raises(ConfigError, match="cannot be the name of a folder"):
        convert(painted_csv, tmp_path / "no", ConvertConfig(map={"happy": "../x"}))


def test_quarantine_from_audit_to_convert(painted_dataset: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for split in ("train", "val", "test"):
        shutil.copytree(painted_dataset / split, tree / split)
    happy = sorted((tree / "train" / "happy").iterdir())
    held_out = sorted((tree / "val" / "happy").iterdir())[0]
    shutil.copy(happy[0], held_out)  # a leak: the copy in train goes
    shutil.copy(happy[1], happy[2])  # a copy: one goes
    fear, angry = sorted((tree / "train" / "fear").iterdir())[0], sorted((tree / "train" / "angry").iterdir())[0]
    shutil.copy(fear, angry)  # two labels: both go
    happy[3].write_text("broken")
    result = audit(tree, AuditConfig(near_correlation=0.98))
    file = tmp_path / "leave-out.csv"
    assert write_quarantine(file, result.to_quarantine()) == 5
    gone = {path.relative_to(tree).as_posix() for path in (happy[0], happy[2], happy[3], fear, angry)}
    assert read_quarantine(file) == gone
    content = convert(tree, tmp_path / "out", ConvertConfig(exclude=file))
    assert content.left_out == {"excluded": 5}
    rows = open_dataset(tmp_path / "out").all_rows
    assert len(rows) == 219
    assert not gone & {row.source_id for row in rows}
    assert audit(tmp_path / "out", AuditConfig(near_correlation=0.98, min_per_class=1)).findings == ()


def test_a_bad_row_of_a_csv_can_be_left_out(painted_csv: Path, tmp_path: Path) -> None:
    source = tmp_path / "bad.csv"
    source.write_text(painted_csv.read_text() + "3,1 2 3,Training\n")
    assert write_quarantine(tmp_path / "q.csv", audit(source, AuditConfig(near_correlation=0.98)).to_quarantine()) == 1
    assert read_quarantine(tmp_path / "q.csv") == {"bad.csv, line 226"}
    content = convert(source, tmp_path / "out", ConvertConfig(exclude=tmp_path / "q.csv"))
    assert content.left_out == {"excluded": 1}
    assert sum(content.counts["train"].values()) == 140
