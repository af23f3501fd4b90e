"""Hostile input, second part: lists and annotations of strangers, sources that overlap the destination, archives under
audit.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import AuditConfig, ConvertConfig, FaceConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.audit.model_checks import MAX_FACE_PX, FaceCheck
from deepfer_yolo.data.audit.report import write_page
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import read_quarantine, write_quarantine
from deepfer_yolo.data.images import load_image
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.painted import paint_faces

CONFIG = ConvertConfig()
FACES, LABELS = paint_faces(6, 28)
GIGABYTES = 2 << 30


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for index, (face, label) in enumerate(zip(FACES, LABELS, strict=True)):
        folder = tmp_path / "tree" / ("train" if index < 14 else "val") / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(face).save(folder / f"{index}.png")
    return tmp_path / "tree"


def test_a_line_of_two_gigabytes_in_any_list(tree: Path, painted_csv: Path, tmp_path: Path) -> None:
    """Sparse files, read within 300 MB."""
    for name in ("manifest", "json"):
        convert(tree, tmp_path / name, CONFIG)
    files = {
        "manifest/manifest.csv": "",
        "json/dataset.json": "",
        "q.csv": "picture,finding,why\n",
        "votes.csv": "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n",
        "table.csv": "path,label\n",
    }
    for name, header in files.items():
        with (tmp_path / name).open("a") as file:
            file.write(header)
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size + GIGABYTES)
    code = f"""
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))
from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.errors import DatasetError
here, tree, rows = Path({str(tmp_path)!r}), Path({str(tree)!r}), Path({str(painted_csv)!r})
for source, options in (
    (here / "manifest", {{}}), (here / "json", {{}}), (tree, {{"exclude": here / "q.csv"}}),
    (rows, {{"ferplus": here / "votes.csv"}}), (here / "table.csv", {{}}),
):
    try:
        convert(source, here / "out", ConvertConfig(**options))
    except DatasetError as error:
        print(error.message)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False)
    lines = result.stdout.splitlines()
    assert len(lines) == 5, result.stderr
    assert all(Path(name).name in line for name, line in zip(files, lines, strict=True))
    assert [line.endswith(("longer than 100,000 characters", "larger than 10 MB")) for line in lines] == [True] * 5


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=1)


def _huge(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
    path.write_bytes(header.getvalue())


@pytest.mark.parametrize(
    "write",
    [
        _npz,
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
        convert(tmp_path / "source", tmp_path / "out", CONFIG)


def test_pipes_are_never_opened(tmp_path: Path) -> None:
    """A pipe that is opened waits for ever, and the test with it."""
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DatasetError, match="not a regular file"):
        load_image(tmp_path / "pipe.png")
    (tmp_path / "labels.csv").write_text("path,label\npipe.png,happy\n")
    with pytest.raises(DatasetError, match="line 2: not a regular file"):
        convert(tmp_path / "labels.csv", tmp_path.parent / f"{tmp_path.name}-out", CONFIG)
    sequence = tmp_path / "ck" / "Emotion" / "S001" / "001"
    sequence.mkdir(parents=True)
    (tmp_path / "ck" / "cohn-kanade-images").mkdir()
    os.mkfifo(sequence / "S001_001_00000005_emotion.txt")
    with pytest.raises(DatasetError, match="does not hold a code"):
        convert(tmp_path / "ck", tmp_path / "out", CONFIG)


def test_a_code_that_only_looks_like_a_digit(tmp_path: Path) -> None:
    (tmp_path / "raf" / "EmoLabel").mkdir(parents=True)
    (tmp_path / "raf" / "EmoLabel" / "list_patition_label.txt").write_text("train_00001.jpg ²\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="line 1: not like"):
        convert(tmp_path / "raf", tmp_path / "out", CONFIG)


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


def test_links_that_fan_out_are_read_once(tree: Path, tmp_path: Path) -> None:
    """Six links a folder, eight folders deep: 1.7 million paths to walk, were each link followed."""
    happy = tree / "train" / "happy"
    for depth in range(9):
        (happy / f"x{depth}").mkdir()
    for depth in range(8):
        for link in range(6):
            (happy / f"x{depth}" / f"link{link}").symlink_to(happy / f"x{depth + 1}")
    with pytest.raises(DatasetError, match="a link leads to this folder a second time"):
        convert(tree, tmp_path / "out", CONFIG)


def test_what_stands_beside_the_class_folders_is_counted(tree: Path, tmp_path: Path) -> None:
    (tree / "extra").mkdir()
    shutil.copy(next((tree / "val" / "sad").iterdir()), tree / "val" / "loose.png")
    (tree / "train" / "sad" / "notes.txt").write_text("seen")
    left_out = convert(tree, tmp_path / "out", CONFIG).left_out
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
        convert(tree, tmp_path / "again", CONFIG)


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_is_audited_like_its_folder(
    kind: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(next((tree / "train" / "sad").iterdir()), tree / "val" / "sad" / "copy.png")
    (tree / "val" / "sad" / "broken.png").write_text("no picture")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), kind, tree))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    config = AuditConfig(near_correlation=0.98)
    pages: list[Path] = []
    result = audit(
        archive,
        config,
        against=archive,
        then=lambda seen: pages.append(write_page(seen, "command", tmp_path / "page.html")),
    )
    plain = audit(tree, config, against=tree)
    assert result.to_json()["findings"][:-4] == plain.to_json()["findings"][:-4]
    assert result.name == archive.name
    assert {"leak", "unreadable", "drift-classes"} <= {finding.kind for finding in result.findings}
    assert pages[0].read_text().count("data:image/png") >= 2
    assert list(temporary.iterdir()) == []
    write_quarantine(tmp_path / "q.csv", result.to_quarantine())
    assert "val/sad/broken.png" in read_quarantine(tmp_path / "q.csv")
    assert convert(archive, tmp_path / "out", ConvertConfig(exclude=tmp_path / "q.csv")).left_out["excluded"] == 2


def test_a_name_with_a_colon_is_not_taken_apart(tree: Path) -> None:
    (tree / "val" / "sad" / "a: b.png").symlink_to("gone")
    finding = next(
        finding for finding in audit(tree, AuditConfig(near_correlation=0.98)).findings if finding.kind == "unreadable"
    )
    assert finding.groups == ((str(tree / "val" / "sad" / "a: b.png"),),)
    assert finding.notes == ("a link that leads nowhere",)


def test_errors_about_an_archive_name_the_archive(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "inside" / name).write_text("x")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "inside"))
    for command in (lambda: convert(archive, tmp_path / "out", CONFIG), lambda: audit(archive, AuditConfig())):
        with pytest.raises(DatasetError) as caught:
            command()
        assert caught.value.message.startswith(f"{archive}: its layout ")
    sentences = {
        "expw": "has no label.lst",
        "rafdb": "has no EmoLabel",
        "deepfer": "is not a data set folder",
        "table": "holds no csv",
    }
    for layout, said in sentences.items():
        with pytest.raises(DatasetError, match=f"^{re.escape(str(archive))}: {said}"):
            convert(archive, tmp_path / "out", ConvertConfig(layout=layout))
    (tmp_path / "inside" / "fer2013.csv").write_text("emotion,pixels,usage\n")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), "tar", tmp_path / "inside"))
    with pytest.raises(DatasetError, match=f"^{re.escape(str(archive / 'fer2013.csv'))}, line 1: no column 'Usage'"):
        convert(archive, tmp_path / "out", CONFIG)
    (tmp_path / "set.7z").write_bytes(b"7z")
    with pytest.raises(DatasetError) as caught:
        convert(tmp_path / "set.7z", tmp_path / "out", CONFIG)
    assert "unpack this one first" in str(caught.value.hint)


def test_large_and_long_pictures_stay_small_while_they_wait() -> None:
    check = FaceCheck(open_detector(FaceConfig(detector="haar"), "image"))
    for shape in ((8, 65500), (4000, 6000), (1, 1), (48, 48)):
        image, side = check.prepare(np.zeros(shape, np.uint8))
        assert max(image.shape[:2]) <= MAX_FACE_PX + side
        assert side >= 1


def test_a_data_set_without_a_readable_picture_cannot_be_compared_with(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "bad" / "happy").mkdir(parents=True)
    (tmp_path / "bad" / "happy" / "a.png").write_text("no")
    with pytest.raises(DatasetError, match="no image of bad can be read"):
        audit(tree, AuditConfig(), against=tmp_path / "bad")
