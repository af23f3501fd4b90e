"""What strangers write: lines without end, links in circles, pipes, names from hell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import (
    load_images,
    open_dataset,
)
from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.untrusted import unique_name
from deepfer_yolo.errors import DatasetError

CONFIG = ConvertConfig()
GIGABYTES = 2 << 30


def test_loops_dangling_links_and_pipes_in_a_folder(tree: Path, tmp_path: Path) -> None:
    happy = tree / "train" / "happy"
    (happy / "loop").symlink_to(tree / "train" / "happy")
    (happy / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(happy / "pipe.png")
    with pytest.raises(DatasetError) as caught:
        convert(tree, tmp_path / "out", CONFIG)
    for what in (
        "loop: a link leads to this folder a second time",
        "gone.png: a link that leads nowhere",
        "pipe.png: not a regular file",
    ):
        assert what in caught.value.message
    assert "3 problems" in caught.value.message


def test_file_names_from_hell(tree: Path, tmp_path: Path) -> None:
    happy = os.fsencode(tree / "train" / "happy")
    names = [
        b"new\nline.png",
        "😀.png".encode(),
        b"\xff\xfe.png",
        b'quote",comma.png',
        b" blank .png",
        b"-rf.png",
        b"\x1b[31m.png",
        b"a" * 200 + b".png",
    ]
    face = next((tree / "train" / "happy").iterdir()).read_bytes()
    for name in names:
        Path(os.fsdecode(os.path.join(happy, name))).write_bytes(face)  # noqa: PTH118
    convert(tree, tmp_path / "out", CONFIG)
    dataset = open_dataset(tmp_path / "out")
    rows = [row for row in dataset.all_rows if os.fsencode(row.source_id).removeprefix(b"train/happy/") in names]
    assert len(rows) == len(names)
    assert sum(1 for _ in load_images(dataset, rows)) == len(names)
    assert all(row.path.isprintable() for row in rows)


def test_a_csv_line_without_end_is_bounded(tmp_path: Path) -> None:
    """A sparse file of 2 GB without one line break, read within 300 MB."""
    source = tmp_path / "long.csv"
    with source.open("wb") as file:
        file.write(b"emotion,pixels,Usage\n0,")
        file.truncate(2 << 30)
    code = f"""
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))
from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.errors import DatasetError
try:
    convert(Path({str(source)!r}), Path({str(tmp_path / "out")!r}), ConvertConfig())
except DatasetError as error:
    print(error.message)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "line 2: longer than" in result.stdout, result.stderr


def test_sources_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DatasetError, match="neither a file nor a folder"):
        convert(tmp_path / "pipe.csv", tmp_path / "out", CONFIG)


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
    with pytest.raises(DatasetError, match=r"_emotion\.txt: not a regular file"):
        convert(tmp_path / "ck", tmp_path / "out", CONFIG)


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


def test_file_names_never_collide_and_never_escape() -> None:
    taken: set[str] = set()
    names = [
        unique_name(wish, taken)
        for wish in ("a", "A", "a", "../x", "con", "nul.tar", "x\ny", "\udcff", "é" * 90, "", "..")
    ]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(
        "/" not in name and "\n" not in name and name.isprintable() and len(name.encode()) <= 90 for name in names
    )
    assert names[:3] == ["a", "A-2", "a-3"]
