"""The gate's files hold what CI can read, whatever the pictures are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from deepfer_yolo.evaluate.gate.gate import SUMMARY_BYTES, junit, summary, write_files

NASTY = "test/happy/a|b<c>&\x1b[31m\udcff\n.png"


def result(broken: list[str]) -> dict[str, Any]:
    side = {
        "name": "m",
        "path": "m.onnx",
        "sha256": "0" * 64,
        "n": 10,
        "top1": 0.5,
        "macro_f1": 0.4,
        "balanced_accuracy": 0.5,
        "nll": 1.0,
        "brier": 0.5,
        "ece": 0.1,
        "size_mb": 1.0,
    }
    side["intervals"] = {key: [0.4, 0.6] for key in ("top1", "macro_f1", "balanced_accuracy")}
    return {
        "verdict": "fail",
        "exit_code": 3,
        "rules": [
            {"rule": "must not break", "verdict": "fail", "reason": f"broken: {broken[0]}"},
            {"rule": "superiority", "verdict": "inconclusive", "reason": "not shown"},
            {"rule": "size", "verdict": "pass", "reason": "1.00 ×"},
        ],
        "challenger": side,
        "latency": {"challenger_ms": 0.5},
        "dataset": {"name": "d", "fingerprint": "f" * 64, "split": "test", "n": 10},
        "must_not_break": {"n": len(broken), "wrong": broken, "broken": broken},
    }


def test_names_that_are_no_text_reach_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    write_files(result([NASTY]), tmp_path)
    assert json.loads((tmp_path / "gate.json").read_text())["must_not_break"]["broken"] == [NASTY]
    suite = ET.parse(tmp_path / "junit.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("3", "1", "1")
    text = (tmp_path / "summary.md").read_text()
    assert (tmp_path / "step.md").read_text() == text
    assert "a\\|b&lt;c>" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 15, "a newline in a name must not break the table"


def test_the_step_summary_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    write_files(result(["a.png"]), tmp_path)
    assert step.read_text().startswith("before\n## deepfer gate: FAIL")


def test_summary_stays_below_its_limit() -> None:
    text = summary(result([f"test/happy/é{i:06d}.png" for i in range(60_000)]))
    assert len(text.encode()) <= SUMMARY_BYTES
    assert text.endswith("all of it is in gate.json\n")
    assert "FAIL" in text[:200]


def test_junit_has_one_case_a_rule() -> None:
    suite = ET.fromstring(junit(result(["a.png"])))
    assert [case.attrib["name"] for case in suite] == ["must not break", "superiority", "size"]
    assert [[child.tag for child in case] for case in suite] == [
        ["failure", "system-out"],
        ["error", "system-out"],
        ["system-out"],
    ]
