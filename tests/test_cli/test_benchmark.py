"""`deepfer benchmark`: every model gets its figures or its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from deepfer_yolo.cli import benchmark
from deepfer_yolo.cli.app import app
from deepfer_yolo.runtime.benchmark import Measured

runner = CliRunner()


def test_figures_and_a_reason(linear_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(linear_model.read_bytes()[:500])
    arguments = [
        "benchmark",
        str(linear_model),
        str(broken),
        "--batch",
        "1,4",
        "--rounds",
        "2",
        "--calls",
        "3",
        "--json",
    ]
    found = runner.invoke(app, [*arguments, "--png", str(tmp_path / "rates.png")])
    assert found.exit_code == 1, found.output
    good, bad = json.loads(found.stdout)["models"]
    assert [row["batch"] for row in good["batches"]] == [1, 4]
    for row in good["batches"]:
        assert row["n_calls"] == 6
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["speed"] == 1
    assert good["n_bytes"] == linear_model.stat().st_size
    assert good["peak_mb"] > 10
    assert good["start_s"] * 1000 > good["open_ms"] > 0
    assert "not a readable ONNX file" in bad["error"]
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_an_int8_file_that_needs_longer_is_told() -> None:
    def model(file: str, precision: str, ms: float, name: str = "best") -> Measured:
        times = {batch: [np.full(3, batch * ms)] for batch in (1, 32)}
        return Measured(file, name=name, precision=precision, provider="cpu", times_ms=times)

    whole, slow, quick = model("a.onnx", "fp32", 1.0), model("b.onnx", "int8", 2.0), model("c.onnx", "int8", 0.5)
    assert benchmark._advice([whole, slow, quick]) == [
        "take a.onnx here: b.onnx, in int8, needs its time 2.00 × at 1, 2.00 × at 32 images a call"
    ]
    assert benchmark._advice([model("a.onnx", "fp32", 1.0, "another"), slow]) == []
