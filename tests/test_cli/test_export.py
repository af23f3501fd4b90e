"""`deepfer export`, `verify` and `card` as programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from deepfer_yolo.cli.app import app
from deepfer_yolo.errors import ModelError
from deepfer_yolo.runtime.card import read_sidecar

runner = CliRunner()


def test_card_export_verify(checkpoint: Path, painted_dataset: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(checkpoint, tmp_path / "best.pt"))
    refused = runner.invoke(app, ["export", str(model)])
    assert isinstance(refused.exception, ModelError)

    carded = runner.invoke(
        app, ["card", str(model), "--colour", "grey", "--native-px", "48", "--dataset", str(painted_dataset)]
    )
    assert carded.exit_code == 0, carded.output
    assert "on " in carded.stdout
    assert "56 images: top-1" in carded.stdout
    assert read_sidecar(model).metrics["n"] == 56

    made = runner.invoke(app, ["export", str(model), "--data", str(painted_dataset), "--json"])
    assert made.exit_code == 0, made.output
    shown = json.loads(made.stdout)
    assert shown["path"] == str(tmp_path / "best.onnx")
    assert shown["parity"]["passed"] is True
    assert shown["parity"]["n"] == 56
    assert shown["n_bytes"] == (tmp_path / "best.onnx").stat().st_size

    verified = runner.invoke(app, ["verify", str(tmp_path / "best.onnx")])
    assert verified.exit_code == 0
    assert verified.stdout.startswith("verified: ")
    assert runner.invoke(app, ["verify", str(model), "--json"]).exit_code == 0


def test_painted_images_are_said_to_be_painted(checkpoint: Path, tmp_path: Path) -> None:
    made = runner.invoke(app, ["export", str(checkpoint), "--out", str(tmp_path / "best.onnx"), "--pictures", "35"])
    assert made.exit_code == 0, made.output
    assert "painted faces only" in made.stderr
    assert "35 painted faces" in made.stdout
    assert all(len(line) <= 80 for line in made.stdout.splitlines() if str(tmp_path) not in line)
