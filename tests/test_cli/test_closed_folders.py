"""Folders and files that may not be read: said by name, never passed over. Root may read all, so that a child process
without that right does it.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_faces

RIGHTS = "-dac_override,-dac_read_search"
Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users and modes as POSIX has them")


@pytest.fixture
def faces() -> Iterator[Path]:
    """28 faces as `train/LABEL` and `val/LABEL` where any user may look."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "faces"
        met: Counter[int] = Counter()
        for index, (face, label) in enumerate(zip(*paint_faces(6, 28), strict=True)):
            path = root / ("val" if met[label] > 2 else "train") / EMOTIONS[label] / f"{index}.png"
            met[label] += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(face).save(path)
        yield root
        subprocess.run(["chmod", "-R", "u+rwx", name], check=True)


@pytest.fixture
def run(faces: Path) -> Run:
    """`deepfer`, run without root's right to read all."""
    bound = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"] if os.geteuid() == 0 else []

    def start(*args: object) -> subprocess.CompletedProcess[str]:
        command = [*bound, sys.executable, "-m", "deepfer_yolo", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=faces.parent)

    closed = faces.parent / "closed"
    closed.mkdir(mode=0)
    if bound and (
        shutil.which("setpriv") is None or not subprocess.run([*bound, "ls", closed], check=False).returncode
    ):
        pytest.skip("this is root, and nothing here takes root's right to read all from a child process")
    return start


@pytest.fixture
def model(faces: Path, linear_model: Path) -> Path:
    return Path(shutil.copy(linear_model, faces.parent / "model.onnx"))


def rows_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400])
def test_predict_goes_on_with_the_rest(mode: int, faces: Path, run: Run, model: Path) -> None:
    happy = faces / "train" / "happy"
    n_inside = len(list(happy.iterdir()))
    happy.chmod(mode)
    done = run("predict", faces, "-m", model, "--format", "csv")
    assert done.returncode == 4, done.stderr
    rows = rows_of(done)
    failed = [row for row in rows if row["error"]]
    assert sum(not row["error"] for row in rows) == 28 - n_inside
    if mode == 0o400:  # its names can be read, and nothing of its files
        assert {Path(row["path"]).parent for row in failed} == {happy}
        assert {row["error"] for row in failed} == {"permission denied"}
        assert len(failed) == n_inside
    else:
        assert [row["path"] for row in failed] == [str(happy)]
        assert failed[0]["error"] == "a folder that cannot be read (permission denied)"
    assert f"{len(failed)} of {len(rows)} images could not be read" in done.stderr


def test_predict_with_a_pattern_or_a_file_behind_a_closed_folder(faces: Path, run: Run, model: Path) -> None:
    happy = faces / "train" / "happy"
    inside = sorted(happy.iterdir())
    inside[0].chmod(0)
    done = run("predict", inside[0], inside[1], "-m", model, "--format", "csv")
    assert (done.returncode, [row["error"] for row in rows_of(done)]) == (4, ["permission denied", ""])
    happy.chmod(0)
    for pattern in ("train/*/*.png", "**/*.png", "*/happy/../*/*.png"):
        done = run("predict", faces / pattern, "-m", model, "--format", "csv")
        assert done.returncode == 4, pattern
        assert str(happy) in [str(Path(row["path"])) for row in rows_of(done) if row["error"]]
    done = run("predict", inside[0], faces / "val", "-m", model, "--format", "csv")
    assert done.returncode == 4
    assert rows_of(done)[0]["error"] == "permission denied"
    assert run("predict", happy, "-m", model).returncode == 1  # nothing else was named
    shown = run("stream", faces / "*" / "*" / "*.mp4", "--sink", "jsonl=-")
    assert shown.returncode == 1
    assert f"leads through a folder that cannot be read: {happy}" in shown.stderr


@pytest.mark.parametrize("closed", ["train", "train/happy", "train/happy/more"])
def test_convert_and_audit_refuse_with_its_name(closed: str, faces: Path, run: Run) -> None:
    folder = faces / closed
    folder.mkdir(exist_ok=True)
    folder.chmod(0)
    for command in (("convert", faces, faces.parent / "out"), ("audit", faces)):
        done = run(*command)
        assert done.returncode == 1, done.stdout
        assert "cannot be read" in done.stderr or "permission denied" in done.stderr
        assert folder.name in done.stderr.splitlines()[0]
        assert "Traceback" not in done.stderr
    assert not (faces.parent / "out").exists()


def test_sequences_of_ckplus_in_a_closed_folder(faces: Path, run: Run) -> None:
    root = faces.parent / "ck"
    for subject in ("S001", "S002"):
        for frame in range(5):
            path = root / "cohn-kanade-images" / subject / "001" / f"{subject}_001_{frame:08d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(paint_faces(0, 1)[0][0]).save(path)
        note = root / "Emotion" / subject / "001" / f"{subject}_001_00000004_emotion.txt"
        note.parent.mkdir(parents=True)
        note.write_text("3.0000000e+00")
    (root / "Emotion" / "S002").chmod(0)
    done = run("convert", root, faces.parent / "out", "--split", "train=0.5,val=0.5")
    assert done.returncode == 1
    assert "Emotion/S002: cannot be read (permission denied)" in done.stderr


def test_one_image_that_cannot_be_read(faces: Path, run: Run) -> None:
    image = next((faces / "train" / "sad").iterdir())
    image.chmod(0)
    done = run("convert", faces, faces.parent / "out")
    assert done.returncode == 1
    assert f"train/sad/{image.name}: cannot be read (permission denied)" in done.stderr
