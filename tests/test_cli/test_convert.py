"""The command `deepfer convert`, run as a program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from deepfer_yolo.painted import paint_faces

DEEPFER = [sys.executable, "-m", "deepfer_yolo"]


def run(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEEPFER, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_counts_on_stdout(painted_csv: Path, tmp_path: Path) -> None:
    result = run("convert", painted_csv, tmp_path / "out", "--name", "mine")
    assert result.returncode == 0, result.stderr
    assert "mine →" in result.stdout
    assert "140" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert result.stderr == ""


def test_json(painted_csv: Path, tmp_path: Path) -> None:
    result = run("convert", painted_csv, tmp_path / "out", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "dataset.json").read_text())


def test_errors_are_two_lines_and_exit_1(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("emotion,pixels,Usage\n,1,Training\n3,1,Training\n")
    result = run("convert", bad, tmp_path / "out")
    assert result.returncode == 1
    assert "error: 2 problems\n  bad.csv, line 2: emotion is ''" in result.stderr
    assert "hint: " in result.stderr
    assert result.stdout == ""


def test_the_current_folder_cannot_be_replaced(painted_csv: Path, tmp_path: Path) -> None:
    result = run("convert", painted_csv, ".", cwd=tmp_path)
    assert result.returncode == 1
    assert "error: this is the current folder or a mount point: .\n" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_warnings_for_absent_labels_and_splits(tmp_path: Path) -> None:
    source = tmp_path / "one.csv"
    source.write_text(f"emotion,pixels,Usage\n0,{' '.join(['9'] * 2304)},Training\n")
    result = run("convert", source, tmp_path / "out")
    assert result.returncode == 0
    assert "warning: no val split" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"), [("size=64k", "the disk is full"), ("size=9m,ro", "the file system is read-only")]
)
def test_a_full_and_a_read_only_disk(options: str, message: str, painted_csv: Path, tmp_path: Path) -> None:
    """On a real small file system, mounted where only this test sees it."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this system lets no test mount a file system")
    command = (
        'mount -t tmpfs -o "$1" none "$2" && "$3" -m deepfer_yolo convert "$4" "$2/out"; '
        'code=$?; ls -A "$2"; exit $code'
    )
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "sh", options, mount, sys.executable, painted_csv],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount:" in result.stderr:
        pytest.skip("this system lets no test mount a file system")
    assert result.returncode == 1
    assert f"error: {message}" in result.stderr
    assert "hint: " in result.stderr
    assert result.stdout == ""


def test_an_empty_class_folder_is_a_warning(tmp_path: Path) -> None:
    for name in ("happy", "sad"):
        (tmp_path / "faces" / "train" / name).mkdir(parents=True)
    Image.fromarray(paint_faces(0, 1)[0][0]).save(tmp_path / "faces" / "train" / "happy" / "a.png")
    result = run("convert", tmp_path / "faces", tmp_path / "out")
    assert result.returncode == 0
    assert "warning: empty folder (train/sad)" in result.stderr


def test_notes_and_warnings_are_one_line_each_on_stderr(tmp_path: Path) -> None:
    faces, labels = paint_faces(8, 80)
    for index, (face, label) in enumerate(zip(faces, labels, strict=True)):
        folder = tmp_path / "tree" / ("train" if index < 60 else "test") / ("wach", "müde")[label % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(folder / f"{index}.png")
    result = run("convert", tmp_path / "tree", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == [
        "note: no label is an emotion, so all are kept as they are: müde, wach",
        "note: the source has no val: 6 of its 60 training images are taken and its test kept",
    ]
    assert "split official (val: 0.1 of train)" in result.stdout
    (tmp_path / "tree" / "train").rename(tmp_path / "train")
    result = run("convert", tmp_path / "tree", tmp_path / "test")
    assert "warning: no train split: good for evaluate and gate, not for training" in result.stderr
    result = run("convert", tmp_path / "tree", tmp_path / "dealt", "--split", "train=0.8,val=0.1,test=0.1")
    assert result.returncode == 1
    assert "--reshuffle deals out all images anew" in result.stderr
