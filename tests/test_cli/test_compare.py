"""`deepfer compare` at the shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.emotions import EMOTIONS

Deepfer = Callable[..., Any]


@pytest.fixture(scope="module")
def ring(
    tmp_path_factory: pytest.TempPathFactory,
    write_answer_sheets: Callable[..., Path],
    write_sheet_reader: Callable[..., Path],
) -> Path:
    """Models that are right on 60, 80 and 40 of 100 images."""
    folder = tmp_path_factory.mktemp("ring")
    truth = [i % 7 for i in range(100)]
    write_answer_sheets(
        folder / "sheets",
        truth,
        [[t if i < right else (t + 1) % 7 for i, t in enumerate(truth)] for right in (60, 80, 40)],
        "val",
    )
    for k, name in enumerate("abc"):
        write_sheet_reader(folder / f"{name}.onnx", k)
    return folder


def test_any_number_of_models_side_by_side(deepfer: Deepfer, ring: Path, tmp_path: Path) -> None:
    models = [ring / f"{name}.onnx" for name in "abc"]
    done = deepfer("compare", *models, "--data", ring / "sheets", "--name", "x", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [entry["top1"] for entry in result["models"]] == [0.6, 0.8, 0.4]
    assert [entry.get("against_first", {}).get("d") for entry in result["models"]] == [
        None,
        pytest.approx(0.2),
        pytest.approx(-0.2),
    ]
    assert all(entry["latency"]["ratio"] > 0 for entry in result["models"])
    assert json.loads((tmp_path / "runs/compare/x/metrics.json").read_text()) == result


def test_tables_fit_80_columns_and_one_model_is_enough(deepfer: Deepfer, ring: Path) -> None:
    two = deepfer("compare", ring / "a.onnx", ring / "b.onnx", "--data", ring / "sheets")
    assert two.returncode == 0, two.stderr
    assert max(map(len, two.stdout.splitlines())) <= 80
    assert "against" in two.stdout
    one = deepfer("compare", ring / "a.onnx", "--data", ring / "sheets")
    assert one.returncode == 0
    assert "against" not in one.stdout


def test_models_that_call_the_labels_otherwise(
    deepfer: Deepfer, ring: Path, write_sheet_reader: Callable[..., Path], tmp_path: Path
) -> None:
    words = ("Angry", "Surprise", "Disgust", "Sad", "Fear", "Neutral", "Happy")
    stock = write_sheet_reader(tmp_path / "stock.onnx", 1, words)
    done = deepfer("compare", ring / "a.onnx", ring / "b.onnx", stock, "--data", ring / "sheets", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["labels"] == list(EMOTIONS)
    b, same = result["models"][1:]
    assert same["top1"] == b["top1"] == 0.8
    assert same["confusion"] == b["confusion"]
    assert same["against_first"]["wins"] == b["against_first"]["wins"]


def test_bad_input(deepfer: Deepfer, ring: Path, write_sheet_reader: Callable[..., Path], tmp_path: Path) -> None:
    other = write_sheet_reader(tmp_path / "other.onnx", 0, ("angry", "contempt"))
    done = deepfer("compare", ring / "a.onnx", other, "--data", ring / "sheets")
    assert done.returncode == 1
    assert "the model alone knows contempt" in done.stderr
    few = deepfer("compare", ring / "a.onnx", other, "--data", ring / "sheets", "--labels", "intersect")
    assert few.returncode == 1
    assert "fewer than two labels in common" in few.stderr
    assert not (tmp_path / "runs").exists()
