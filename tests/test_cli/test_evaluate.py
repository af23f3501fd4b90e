"""`deepfer evaluate` at the shell."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.emotions import EMOTIONS

Deepfer = Callable[..., Any]


def shell(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "deepfer_yolo", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def evaluated(painted_dataset: Path, linear_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("evaluated")
    done = shell("evaluate", painted_dataset, "-m", linear_model, "--name", "a", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "evaluate" / "a", json.loads(done.stdout), done.stderr


def test_json_and_files_agree_with_the_model(evaluated: tuple[Path, dict[str, Any], str], painted_dataset: Path, linear_model: Path) -> None:
    run, result, stderr = evaluated
    from deepfer_yolo.runtime.classifier import Classifier

    with (painted_dataset / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    images = [np.asarray(Image.open(painted_dataset / row["path"]).convert("RGB")) for row in rows]
    guesses = [EMOTIONS[i] for i in Classifier(linear_model).predict_images(images).argmax(1)]
    right = sum(guess == row["label"] for guess, row in zip(guesses, rows, strict=True))
    assert result["top1"] == right / 56
    assert 0.2 < result["top1"] < 1, "chance is 0.14"
    assert result["n"] == 56
    assert json.loads((run / "metrics.json").read_text()) == result
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "env.json", "metrics.json", "report.html"}
    assert "runs/evaluate/a/report.html" in stderr.replace("\n", "")


def test_report_is_one_file_with_the_mistakes_as_pictures(evaluated: tuple[Path, dict[str, Any], str]) -> None:
    run, result, _ = evaluated
    html = (run / "report.html").read_text()
    wrong = 56 - round(result["top1"] * 56)
    assert html.count("data:image/png;base64,") == min(24, wrong) + min(12, wrong)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", html), "the report must load nothing"
    assert "deepfer evaluate" in html
    assert "Confusion matrix of 7 classes" in html
    assert "width=device-width" in html


def test_table_fits_80_columns(deepfer: Deepfer, painted_dataset: Path, linear_model: Path, tmp_path: Path) -> None:
    done = deepfer("evaluate", painted_dataset, "-m", linear_model, "--split", "test")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for word in ("top-1 accuracy", "macro F1", "ECE", "surprise", "95 % interval"):
        assert word in done.stdout


def test_second_run_of_a_name_is_refused(
    deepfer: Deepfer, monkeypatch: pytest.MonkeyPatch, evaluated: tuple[Path, dict[str, Any], str], painted_dataset: Path, linear_model: Path
) -> None:
    monkeypatch.chdir(evaluated[0].parents[2])
    before = (evaluated[0] / "metrics.json").read_bytes()
    done = deepfer("evaluate", painted_dataset, "-m", linear_model, "--name", "a")
    assert done.returncode == 1
    assert "a run of this name already" in done.stderr
    assert (evaluated[0] / "metrics.json").read_bytes() == before


def test_model_without_a_card(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info("image", TensorProto.UINT8, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["probs"])], "g", [info], [helper.make_tensor_value_info("probs", TensorProto.UINT8, [1])]
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "bare.onnx"))
    done = deepfer("evaluate", painted_dataset, "-m", tmp_path / "bare.onnx")
    assert done.returncode == 1
    assert "no model card" in done.stderr
    assert "hint: deepfer card" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_other_labels_are_refused_by_name(deepfer: Deepfer, painted_dataset: Path, write_linear_model: Callable[..., Path], tmp_path: Path) -> None:
    labels = ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
    model = write_linear_model(tmp_path / "ck.onnx", np.zeros((7, 8 * 8 * 3), np.float32), np.zeros(7, np.float32), labels)
    done = deepfer("evaluate", painted_dataset, "-m", model)
    assert done.returncode == 1
    assert "the model alone knows contempt; the data set alone knows neutral" in done.stderr
    assert "--labels intersect" in done.stderr


def test_empty_split(deepfer: Deepfer, painted_dataset: Path, linear_model: Path, tmp_path: Path) -> None:
    from shutil import copy

    (tmp_path / "small").mkdir()
    copy(painted_dataset / "dataset.json", tmp_path / "small")
    lines = (painted_dataset / "manifest.csv").read_text().splitlines(keepends=True)
    (tmp_path / "small" / "manifest.csv").write_text("".join(line for line in lines if ",val," not in line))
    done = deepfer("evaluate", tmp_path / "small", "-m", linear_model)
    assert done.returncode == 1
    assert "has no 'val' split; it has train, test" in done.stderr
