"""The gate's files hold what CI can read, whatever the images are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from deepfer_yolo.evaluate.gate.gate import SUMMARY_BYTES, GateResult, junit, summary, write_files
from deepfer_yolo.evaluate.gate.rules import Evidence, Protected, Ruling

NASTY = "test/happy/a|b<c>&\x1b[31m\udcff\n.png"


Build = Callable[..., GateResult]


@pytest.fixture
def result(evidence: Callable[..., Evidence]) -> Build:
    """`result(broken)`: a failed gate of three rules without a champion."""

    def build(broken: list[str]) -> GateResult:
        rulings = (
            Ruling("must not break", "fail", f"broken: {broken[0]}"),
            Ruling("superiority", "inconclusive", "not shown"),
            Ruling("size", "pass", "1.00 ×"),
        )
        return GateResult("fail", rulings, evidence(protected=Protected(len(broken), tuple(broken), tuple(broken))))

    return build


def test_names_that_are_no_text_reach_every_file(
    result: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_the_step_summary_is_appended_to(result: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    write_files(result(["a.png"]), tmp_path)
    assert step.read_text().startswith("before\n## deepfer gate: FAIL")


def test_summary_stays_below_its_limit(result: Build) -> None:
    text = summary(result([f"test/happy/é{i:06d}.png" for i in range(60_000)]))
    assert len(text.encode()) <= SUMMARY_BYTES
    assert text.endswith("all of it is in gate.json\n")
    assert "FAIL" in text[:200]


def test_junit_has_one_case_a_rule(result: Build) -> None:
    suite = ET.fromstring(junit(result(["a.png"]).rulings))
    assert [case.attrib["name"] for case in suite] == ["must not break", "superiority", "size"]
    assert [[child.tag for child in case] for case in suite] == [
        ["failure", "system-out"],
        ["error", "system-out"],
        ["system-out"],
    ]
