"""The wheel in a clean environment: verify, predict and the API, with neither torch nor a compiler."""

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
    (wheel,) = folder.glob("*.whl")
    # A compiler that fails shows that every dependency came as a wheel.
    run(
        programs / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--only-binary",
        ":all:",
        wheel,
        CC="/bin/false",
        CXX="/bin/false",
    )
    return programs


def test_the_edge_install_does_the_whole_job(clean: Path, exported: Path, tmp_path: Path) -> None:
    for i, face in enumerate(paint_faces(3, 4)[0]):
        Image.fromarray(face).save(tmp_path / f"{i}.png")
    assert run(clean / "deepfer", "verify", exported).startswith("verified: ")
    rows = [
        json.loads(line) for line in run(clean / "deepfer", "predict", tmp_path, "-m", exported, "--json").splitlines()
    ]
    assert len(rows) == 4
    assert all(abs(sum(row["probs"].values()) - 1) < 1e-4 for row in rows)
    names = ("torch", "torchvision", "ultralytics", "scipy")
    code = f"import importlib.util as u; print([m for m in {names} if u.find_spec(m)])"
    assert run(clean / "python", "-c", code).strip() == "[]"


def test_the_edge_install_streams(clean: Path, exported: Path, shared_dir: Path) -> None:
    lines = run(
        clean / "deepfer", "stream", shared_dir / "media" / "clip_stage.mp4", "-m", exported, "--sink", "jsonl=-"
    ).splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"state", "face", "event"}
