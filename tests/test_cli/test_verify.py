"""`deepfer verify` exits 3 where the model answers otherwise than its card says."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from deepfer_yolo.cli.app import app
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.onnx_graph import put_card, read_graph


def test_other_answers_exit_3(exported: Path, tmp_path: Path) -> None:
    model, card = read_graph(exported), Classifier(exported).card
    assert card.golden is not None
    probs = [list(reversed(row)) for row in card.golden.probs]
    put_card(model, card.model_copy(update={"golden": card.golden.model_copy(update={"probs": probs})}))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    found = CliRunner().invoke(app, ["verify", str(path), "--json"])
    assert found.exit_code == 3
    assert json.loads(found.stdout)["passed"] is False
    assert CliRunner().invoke(app, ["verify", str(path)]).stdout.startswith("FAILED: ")
