"""Findings: each script keeps the form that findings/README.md promises; the table says which hold."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
SPEC = importlib.util.spec_from_file_location("run_findings", FOLDER / "run.py")
assert SPEC is not None
assert SPEC.loader is not None
RUN = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(RUN)


def test_each_script_is_listed() -> None:
    listed = re.findall(r"\| \[(\w+)\]\((\w+)\.sh\) \| \S", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert listed == [(script.stem, script.stem) for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_executable_pinned_and_alone(script: Path) -> None:
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert re.search(r"\nset -euo pipefail\nfolder=\$\(mktemp -d.*\)\ntrap 'rm -rf \"\$folder\"' EXIT\n", text)
    assert not re.search(r"import deepfer|from deepfer", text)
    installs = re.findall(r'pip" install (.*)', text.replace("\\\n", " "))
    assert installs
    for line in installs:
        assert line.endswith(" || exit 69")
        words = [word.strip('"') for word in line.removesuffix("|| exit 69").split() if not word.startswith("-")]
        assert words == [word for word in words if word in RUN.pinned(script)], "every package has its exact version"


def test_the_table_says_what_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = []
    codes = {"a": 0, "b": 1, "c": 69, "d": 7}
    for name, code in codes.items():
        scripts.append(tmp_path / f"{name}.sh")
        install = f'#!/bin/sh\necho seen {name}\nexit {code}\n# pip" install one=={code}.1'
        scripts[-1].write_text(install, encoding="utf-8")
        scripts[-1].chmod(0o755)
    assert RUN.main(scripts) == 1
    out = capsys.readouterr().out
    assert "seen a" in out
    table = [line.split() for line in out[out.index("finding ") :].splitlines()[1:]]
    assert [(row[0], row[-1]) for row in table[:-1]] == [(name, f"one=={code}.1") for name, code in codes.items()]
    assert [" ".join(row[1:-2]) for row in table[:-1]] == ["holds", "changed", "not run", "broke (7)"]
    assert out.endswith("1 of 4 findings hold\n")
    assert RUN.main(scripts[:1]) == 0
