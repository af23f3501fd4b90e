"""`deepfer parity` says equal or not, and exits by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deepfer_yolo.cli.app import app

runner = CliRunner()


def test_a_model_and_itself(linear_model: Path, painted_dataset: Path) -> None:
    found = runner.invoke(app, ["parity", str(linear_model), str(linear_model), "--data", str(painted_dataset)])
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("equal by the lines of fp32, on 56 of 56 images of")
    assert "top-1 agreement 100.00%" in found.stdout


@pytest.mark.parametrize(("shift", "precision", "code"), [(0.001, None, 3), (0.001, "fp16", 0), (0.5, "fp16", 3)])
def test_a_moved_bias_is_found(
    shift: float,
    precision: str | None,
    code: int,
    linear_model: Path,
    write_linear_model,
    fitted_weights,
    tmp_path: Path,
) -> None:  # type: ignore[no-untyped-def]
    weights, bias = fitted_weights
    other = write_linear_model(tmp_path / "other.onnx", weights, bias + np.array([shift, 0, 0, 0, 0, 0, 0], np.float32))
    arguments = [
        "parity",
        str(linear_model),
        str(other),
        "--pictures",
        "70",
        "--json",
        *(["--precision", precision] if precision else []),
    ]
    found = runner.invoke(app, arguments)
    assert found.exit_code == code
    shown = json.loads(found.stdout)
    assert shown["passed"] is (code == 0)
    assert shown["n"] == 70
    assert shown["input_diff"] == 0
    assert shown["worst"][0]["diff"] == shown["max_diff"]
