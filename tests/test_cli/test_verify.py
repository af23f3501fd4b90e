"""`deepfer verify` exits 3 where the model answers otherwise than its card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepfer_yolo import runs
from deepfer_yolo.cli import doctor
from deepfer_yolo.cli.app import app
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import attach


def test_other_answers_exit_3(exported: Path, tmp_path: Path) -> None:
    card = Classifier(exported).card
    assert card.golden is not None
    probs = [list(reversed(row)) for row in card.golden.probs]
    path = tmp_path / "model.onnx"
    path.write_bytes(exported.read_bytes())
    attach(card.model_copy(update={"golden": card.golden.model_copy(update={"probs": probs})}), path)
    found = CliRunner().invoke(app, ["verify", str(path), "--json"])
    assert found.exit_code == 3
    assert json.loads(found.stdout)["passed"] is False
    assert CliRunner().invoke(app, ["verify", str(path)]).stdout.startswith("FAILED: ")


def test_where_int8_is_slow_fp32_is_recommended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "cpuinfo"
    old.write_text("model name\t: Intel(R) Core(TM) i5-2400 CPU @ 3.10GHz\nflags\t\t: fpu sse sse2 ssse3 sse4_2 avx\n")
    monkeypatch.setattr(runs, "CPU_INFO", old)
    note = "fp32 is faster here: this processor has no AVX2"
    assert f"note: {note}" in CliRunner().invoke(app, ["verify", "deepfer-xs"]).stdout
    assert json.loads(CliRunner().invoke(app, ["verify", "deepfer-xs", "--json"]).stdout)["note"].startswith(note)
    assert "note:" not in CliRunner().invoke(app, ["verify", "deepfer-n"]).stdout, "its file is fp32"
    found = CliRunner().invoke(app, ["benchmark", "deepfer-xs", "--batch", "1", "--rounds", "1", "--calls", "2"])
    assert found.stdout.splitlines()[-1].startswith(note)
    report = doctor._examine(with_sizes=False)
    assert [report.processor, *report.notes] == ["Intel(R) Core(TM) i5-2400 CPU @ 3.10GHz", runs.FASTER_IN_FP32]
    old.write_text(old.read_text().replace("avx\n", "avx avx2\n"))
    assert "note:" not in CliRunner().invoke(app, ["verify", "deepfer-xs"]).stdout
    old.write_text("Features\t: fp asimd asimddp\n")
    assert not runs.int8_is_slow(), "what is known of x86 says nothing of ARM"
