"""The command `deepfer audit`, run as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


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
