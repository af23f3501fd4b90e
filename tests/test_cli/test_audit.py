"""The command `deepfer audit`, run as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from deepfer_yolo.data.dataset import open_dataset


def run(*args: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "deepfer_yolo", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )


def test_a_clean_set_passes(painted_dataset: Path) -> None:
    result = run("audit", painted_dataset)
    assert result.returncode == 0, result.stderr
    assert "audit passed" in result.stdout


def test_a_failed_gate_exits_3_and_json_says_why(painted_dataset: Path) -> None:
    result = run("audit", painted_dataset, "--fail-on", "warning", "--json")
    assert result.returncode == 3
    content = json.loads(result.stdout)
    assert content["passed"] is False
    assert content["pictures"] == 224
    assert {finding["kind"] for finding in content["findings"]} >= {"few"}


def test_a_failed_gate_names_the_preset_of_the_data_set(painted_csv: Path) -> None:
    failed = run("audit", painted_csv, "--fail-on", "warning")
    assert failed.returncode == 3
    assert f"deepfer audit {painted_csv} --config fer2013" in failed.stderr
    again = run("audit", painted_csv, "--config", "fer2013", "--fail-on", "warning")
    assert again.returncode == 3
    assert "--config" not in again.stderr, "it is in force already"


def test_what_is_not_a_data_set_is_an_error(tmp_path: Path) -> None:
    result = run("audit", tmp_path / "none")
    assert result.returncode == 1
    assert "none: no such file or folder" in result.stderr


def test_label_errors_are_ranked_by_the_answers_of_a_file(painted_dataset: Path, tmp_path: Path) -> None:
    dataset = open_dataset(painted_dataset)
    wrong = dataset.all_rows[7]
    other = next(label for label in dataset.labels if label != wrong.label)
    lines = ["path," + ",".join(f"prob_{label}" for label in dataset.labels)]
    for row in dataset.all_rows:
        said = other if row is wrong else row.label
        lines.append(",".join([row.path, *("0.94" if label == said else "0.01" for label in dataset.labels)]))
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    files[0].write_text("\n".join(lines[:100]))
    files[1].write_text("\n".join([lines[0], *lines[100:]]))
    words = [word for file in files for word in ("--predictions", file)]
    result = run("audit", painted_dataset, *words, "--json")
    assert result.returncode == 0, result.stderr
    (finding,) = (found for found in json.loads(result.stdout)["findings"] if found["kind"] == "label-error")
    assert finding["groups"] == [[wrong.path]]
    assert finding["notes"][0].startswith(f"the model: {other} 0.94, its label 0.01")
    missing = run("audit", painted_dataset, *words[:2])
    assert missing.returncode == 1
    assert "has no answer" in missing.stderr
    both = run("audit", painted_dataset, *words, "--with-model", "deepfer-n")
    assert both.returncode == 1
    assert "two answers to one question" in both.stderr


def test_labels_without_probabilities_rank_nothing(painted_dataset: Path, tmp_path: Path) -> None:
    rows = open_dataset(painted_dataset).all_rows
    (tmp_path / "a.csv").write_text("\n".join(["path,answer", *(f"{row.path},{row.label}" for row in rows)]))
    result = run("audit", painted_dataset, "--predictions", tmp_path / "a.csv")
    assert result.returncode == 1
    assert "labels without probabilities" in result.stderr
