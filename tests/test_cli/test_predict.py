"""`deepfer predict` as a program: its three forms, its exit codes, and what it does not import."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfer_yolo.cli.app import app
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.painted import paint_faces

runner = CliRunner()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three faces."""
    folder = tmp_path_factory.mktemp("images")
    for i, face in enumerate(paint_faces(3, 3)[0]):
        Image.fromarray(face).save(folder / f"{i}.png")
    return folder


def test_jsonl(images: Path, linear_model: Path) -> None:
    found = runner.invoke(app, ["predict", str(images), "-m", str(linear_model), "--json"])
    assert found.exit_code == 0
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    for row in rows:
        assert row["schema"] == 1
        assert tuple(row["probs"]) == EMOTIONS
        assert sum(row["probs"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["probs"], key=row["probs"].get)
        assert row["confidence"] == row["probs"][row["label"]]


def test_csv_and_table_agree(images: Path, linear_model: Path) -> None:
    arguments = ["predict", str(images), "-m", str(linear_model), "--format"]
    rows = list(csv.DictReader(io.StringIO(runner.invoke(app, [*arguments, "csv"]).stdout)))
    assert list(rows[0]) == ["path", "label", "confidence", *EMOTIONS, "error"]
    table = [line.split() for line in runner.invoke(app, [*arguments, "table"]).stdout.splitlines()]
    assert [(label, path) for label, _, path in table] == [(row["label"], row["path"]) for row in rows]


def test_a_broken_image_costs_only_its_row(images: Path, linear_model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    sources = [
        str(images / "0.png"),
        str(tmp_path / "broken.png"),
        str(tmp_path / "missing.png"),
        str(images / "1.png"),
    ]
    found = runner.invoke(app, ["predict", *sources, "-m", str(linear_model), "--json"])
    assert isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code == 4
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["path"] for row in rows] == sources
    assert ["error" in row for row in rows] == [False, True, True, False]
    assert rows[2]["error"] == "no such file or folder"
    assert "2 of 4 images could not be read" in found.stderr
    found = runner.invoke(app, ["predict", str(tmp_path), "-m", str(linear_model), "--json"])
    assert found.exit_code == 1  # none could be read


def test_unknown_formats_are_named(images: Path, linear_model: Path) -> None:
    found = runner.invoke(app, ["predict", str(images), "-m", str(linear_model), "--format", "xml"])
    assert isinstance(found.exception, ConfigError)
    assert "format" in str(found.exception)


def test_neither_torch_nor_ultralytics_is_imported(images: Path, linear_model: Path) -> None:
    code = (
        "import sys\n"
        "from deepfer_yolo.cli.app import app\n"
        f"app(['predict', {str(images)!r}, '-m', {str(linear_model)!r}], standalone_mode=False)\n"
        "print([name for name in ('torch', 'torchvision', 'ultralytics') if name in sys.modules])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    assert len(shown.splitlines()) == 4
