"""Tar shards of WebDataset, and imagefolders with metadata: labels, splits, and members that nobody should trust."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.data.layouts import webdataset
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError

CONFIG = ConvertConfig(group_by="none", val=0)


def counts(source: Path, out: Path, config: ConvertConfig = CONFIG) -> dict[str, int]:
    return {split: sum(of.values()) for split, of in convert(source, out, config).counts.items()}


def samples(
    paint: ModuleType, ending: str, texts: list[str], n: int = 14, image: str = "jpg"
) -> list[tuple[str, bytes]]:
    """`n` faces of FACES with a file of label text each."""
    kind = {"jpg": "JPEG", "webp": "WEBP"}.get(image, "PNG")
    members = []
    for index in range(n):
        name = f"deep/er/{index:04d}"
        members += [(f"{name}.{image}", paint.encoded(paint.FACES[index], kind))]
        members += [(f"{name}.{ending}", texts[index].encode())]
    return members


@pytest.mark.parametrize("ending", ["cls", "json", "txt"])
@pytest.mark.parametrize("shard", ["train-000000.tar", "train-000000.tar.gz"])
def test_one_shard_with_each_kind_of_label(paint: ModuleType, ending: str, shard: str, tmp_path: Path) -> None:
    names = paint.NAMES[:14]
    texts = [json.dumps({"emotion": name, "label": 3, "age": 30}) for name in names] if ending == "json" else names
    paint.write_tar(tmp_path / shard, samples(paint, ending, texts, image="webp" if ending == "cls" else "png"))
    assert find_layout(tmp_path / shard, "auto").name == "webdataset"
    assert counts(tmp_path / shard, tmp_path / "out") == {"train": 14}
    rows = open_dataset(tmp_path / "out").all_rows
    assert [row.label for row in rows] == names
    assert rows[3].source_id == f"{shard}/deep/er/0003"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "_"))] == []
    report = audit(tmp_path / shard, AuditConfig(min_per_class=1))
    assert not [finding for finding in report.findings if finding.kind == "unreadable"]


def test_pixels_are_those_of_the_sample(paint: ModuleType, tmp_path: Path) -> None:
    paint.webdataset(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out", CONFIG)
    dataset = open_dataset(tmp_path / "out")
    by_id = {row.source_id: row for row in dataset.all_rows}
    row = by_id["train-000001.tar/a/00041"]
    assert row.label == paint.NAMES[41]
    assert np.array_equal(next(load_images(dataset, [row]))[:, :, 1], paint.FACES[41])


def test_boxes_of_the_json_are_cut_out(paint: ModuleType, tmp_path: Path) -> None:
    text = json.dumps({"emotion": "happy", "xmin": 30, "ymin": 20, "xmax": 78, "ymax": 68}).encode()
    image = paint.encoded(paint.framed(paint.FACES[0]))
    paint.write_tar(tmp_path / "train.tar", [("0.png", image), ("0.json", text)])
    convert(tmp_path / "train.tar", tmp_path / "out", CONFIG)
    dataset = open_dataset(tmp_path / "out")
    assert np.array_equal(next(load_images(dataset, dataset.all_rows))[:, :, 0], paint.FACES[0])


def test_splits_of_folders(paint: ModuleType, tmp_path: Path) -> None:
    for folder, n in (("train", 14), ("test", 7)):
        paint.write_tar(tmp_path / "in" / folder / "0.tar", samples(paint, "cls", paint.NAMES, n))
        (tmp_path / "in" / folder / "nshards.txt").write_text("1")
    assert counts(tmp_path / "in", tmp_path / "out") == {"train": 14, "test": 7}


def test_numbers_without_names_ask_for_a_map(paint: ModuleType, tmp_path: Path) -> None:
    texts = [str(int(label)) for label in paint.LABELS]
    paint.write_tar(tmp_path / "train.tar", samples(paint, "cls", texts, 50))
    with pytest.raises(DatasetError, match="labels are numbers without names: 0 ") as caught:
        convert(tmp_path / "train.tar", tmp_path / "out", CONFIG)
    assert caught.value.hint is not None
    assert "--map 0=angry" in caught.value.hint
    names = {str(code): name for code, name in enumerate(EMOTIONS)}
    assert counts(tmp_path / "train.tar", tmp_path / "out", ConvertConfig(map=names, val=0)) == {"train": 50}
    assert [row.label for row in open_dataset(tmp_path / "out").all_rows] == paint.NAMES[:50]


def test_samples_that_are_wrong_are_reported_together(paint: ModuleType, tmp_path: Path) -> None:
    face = paint.encoded(paint.FACES[0])
    members = [
        ("good.png", face), ("good.cls", b"happy"),
        ("lonely.png", face),
        ("text.cls", b"happy"),
        ("two.jpg", face), ("two.png", face), ("two.cls", b"happy"),
        ("broken.png", face[:100]), ("broken.cls", b"happy"),
        ("bad.png", face), ("bad.json", b"{"),
        ("long.png", face), ("long.cls", b"x" * 5000),
        ("good.png", face), ("good.cls", b"sad"),
    ]  # fmt: skip
    paint.write_tar(tmp_path / "train.tar", members)
    with pytest.raises(DatasetError, match="7 problems") as caught:
        convert(tmp_path / "train.tar", tmp_path / "out", CONFIG)
    for what in (
        "lonely: no label",
        "text: no image of this name",
        "two: several images: jpg, png",
        "broken: broken image",
        "bad: its .json cannot be read",
        "long: a label longer than 200 characters",
        "good: the same name stands there twice",
    ):
        assert f"train.tar: {what}" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_names_of_members_lead_nowhere(paint: ModuleType, tmp_path: Path) -> None:
    face, shard = paint.encoded(paint.FACES[0]), tmp_path / "a" / "train.tar"
    names = ["../../evil", "/tmp/evil", "c:\\evil", "con", "a" * 5000, "evil\x1b[31m"]
    paint.write_tar(shard, [m for name in names for m in ((f"{name}.png", face), (f"{name}.cls", b"happy"))])
    with tarfile.open(shard, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("link.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert counts(shard, tmp_path / "b" / "out") == {"train": len(names)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    for row in open_dataset(tmp_path / "b" / "out").all_rows:
        assert row.path.startswith("train/happy/")
        assert len(Path(row.path).name) < 100


def test_broken_shards_and_bombs(paint: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tmp_path / "train.tar"
    paint.write_tar(shard, samples(paint, "cls", paint.NAMES))
    whole = shard.read_bytes()
    for end in (len(whole) // 2, len(whole) // 2 + 700, len(whole) // 2 + 1024, 100, 0):
        shard.write_bytes(whole[:end])
        with pytest.raises(DatasetError):
            convert(shard, tmp_path / "out", CONFIG)
    packed = tmp_path / "train.tar.gz"
    packed.write_bytes(gzip.compress(whole)[:-2000])
    with pytest.raises(DatasetError, match="archive is broken"):
        convert(packed, tmp_path / "out", CONFIG)
    monkeypatch.setattr(webdataset, "RATIO_FROM", 1 << 20)
    paint.write_tar(packed, [*samples(paint, "cls", paint.NAMES), ("z.png", bytes(20_000_000)), ("z.cls", b"happy")])
    with pytest.raises(DatasetError, match="a decompression bomb"):
        convert(packed, tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(webdataset, "MAX_CONTENT", 500)
    shard.write_bytes(whole)
    with pytest.raises(DatasetError, match=r"14 problems\n.*larger than"):
        convert(shard, tmp_path / "out", CONFIG)


@pytest.mark.parametrize("beside", ["a/0.json", "a/0.txt", "labels/0.txt"])
def test_other_archives_are_not_taken_for_shards(paint: ModuleType, beside: str, tmp_path: Path) -> None:
    """A tar of class folders with some notes beside the images is unpacked, as ever."""
    text = {"a/0.json": b'{"shapes": []}', "a/0.txt": b"0 0.5 0.5 0.2 0.2", "labels/0.txt": b"happy"}[beside]
    members = [("a/0.png", paint.encoded(paint.FACES[0])), (beside, text)]
    paint.write_tar(tmp_path / "other.tar", members)
    assert not webdataset.matches(tmp_path / "other.tar")


def test_imagefolder_with_one_table_at_the_top(paint: ModuleType, tmp_path: Path) -> None:
    lines = []
    for index, name in enumerate(paint.NAMES):
        path = f"{'train' if index < 50 else 'valid'}/{index}.png"
        paint.save(tmp_path / "in" / path, paint.FACES[index])
        lines.append(json.dumps({"file_name": path, "label": name, "subject": f"p{index}"}) + "\n")
    (tmp_path / "in/metadata.jsonl").write_text("".join(lines))
    assert find_layout(tmp_path / "in", "auto").name == "imagefolder"
    assert counts(tmp_path / "in", tmp_path / "out") == {"train": 50, "val": 20}
    assert open_dataset(tmp_path / "out").all_rows[1].subject == "p1"


def test_imagefolder_beside_class_folders_must_agree(paint: ModuleType, tmp_path: Path) -> None:
    for index in range(14):
        paint.save(tmp_path / "in" / paint.NAMES[index] / f"{index}.png", paint.FACES[index])
    rows = [f"{name}/{index}.png,{name}\n" for index, name in enumerate(paint.NAMES[:14])]
    table = tmp_path / "in" / "metadata.csv"
    table.write_text("file_name,label\n" + "".join(rows))
    assert find_layout(tmp_path / "in", "auto").name == "imagefolder"
    table.write_text("file_name,label\n" + "".join(rows[1:]) + f"{paint.NAMES[0]}/0.png,contempt\n")
    with pytest.raises(DatasetError, match=r"two things say what its images show: metadata\.csv and the class"):
        find_layout(tmp_path / "in", "auto")


def test_imagefolder_refuses_what_is_unclear(paint: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "in"
    paint.save(root / "train" / "a.png", paint.FACES[0])
    paint.save(tmp_path / "outside.png", paint.FACES[0])
    tables = {
        "file_name,label\na.png,3\n": "labels are numbers without names: 3 \\(1 images\\)",
        "file_name,label,emotion\na.png,happy,sad\n": "several columns may be the label: label, emotion",
        "file_name,label,bbox\na.png,happy,1 2 3 4\n": "line 1: .*bbox",
        "file_name,label,box\na.png,happy,90 90 99 99\n": "line 2: the box 90,90,99,99 is not inside the image",
        "file_name,label,split\na.png,happy,test\n": "split is 'test', and its folder's name says train",
        "file_name,label\n../../outside.png,happy\n": "leaves the folder",
        f"file_name,label\n{tmp_path}/outside.png,happy\n": "leaves the folder",
        "file_name,label\nnot-there.png,happy\n": "train/metadata.csv, line 2: the file is not there",
    }
    for text, what in tables.items():
        (root / "train" / "metadata.csv").write_text(text)
        with pytest.raises(DatasetError, match=what):
            convert(root, tmp_path / "out", CONFIG)
        assert not (tmp_path / "out").exists()
    (root / "train" / "metadata.csv").write_text("file_name,label,emotion\na.png,3,happy\n")
    (root / "test").mkdir()
    (root / "test" / "metadata.csv").write_text("file_name,label\n../train/a.png,happy\n")
    with pytest.raises(DatasetError, match=r"test/metadata\.csv, line 2: the path '\.\./train/a\.png' leaves"):
        convert(root, tmp_path / "out", CONFIG)
    (root / "test" / "metadata.csv").unlink()
    assert convert(root, tmp_path / "out", CONFIG).counts == {"train": {"happy": 1}}
    (root / "train" / "metadata.jsonl").write_text('{"file_name": "a.png", "label": "happy"}\n')
    with pytest.raises(DatasetError, match=r"both metadata\.csv and metadata\.jsonl"):
        convert(root, tmp_path / "again", CONFIG)
