"""First contact in a child process: a crash or a hang of native code becomes a report, and each file is met once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepfer_yolo.cli.app import app
from deepfer_yolo.errors import ModelError
from deepfer_yolo.painted import paint_golden
from deepfer_yolo.runtime import first_contact
from deepfer_yolo.runtime.classifier import Classifier

Sabotage = Callable[[str], None]


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sabotage:
    """Makes every child that meets a model run the given line first."""

    def install(line: str) -> None:
        asked = "'deepfer_yolo.runtime.first_contact' in ' '.join(sys.orig_argv)"
        (tmp_path / "sitecustomize.py").write_text(f"import os, sys, time\nif {asked}: {line}\n")
        paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    return install


def test_a_crash_of_native_code_becomes_a_report(exported: Path, sabotage: Sabotage) -> None:
    sabotage("os.abort()")
    with pytest.raises(ModelError, match=r"crashed \(SIGABRT\)"):
        first_contact.first_contact(exported, "cpu")


def test_a_format_meets_its_library_in_a_child_once(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[tuple[Path, str]] = []
    monkeypatch.setenv("DEEPFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(first_contact, "_ask", lambda path, provider, _: met.append((path, provider)))
    twin, other = tmp_path / "twin.onnx", tmp_path / "other.onnx"
    twin.write_bytes(exported.read_bytes())
    other.write_bytes(exported.read_bytes() + b"\0")
    for path, provider in (
        (exported, "openvino"),
        (twin, "openvino"),
        (exported, "openvino"),
        (exported, "cuda"),
        (other, "openvino"),
    ):
        first_contact.ensure_contact(path, provider)
    assert met == [(exported, "openvino"), (exported, "cuda"), (other, "openvino")]
    monkeypatch.setenv("DEEPFER_CACHE", str(exported / "no folder"))
    first_contact.ensure_contact(exported, "openvino")
    assert len(met) == 4


def test_a_crash_while_opening_never_reaches_us(
    exported: Path, sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sabotage("os.abort()")
    monkeypatch.setenv("DEEPFER_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # a crash leaves no note that would let the second attempt through
        with pytest.raises(ModelError, match=r"on openvino: the native library crashed \(SIGABRT\)"):
            Classifier(exported, provider="openvino")
    assert Classifier(exported).predict(paint_golden(1, 1, 32)).shape == (1, 7)


def test_a_child_that_hangs_is_ended(exported: Path, sabotage: Sabotage) -> None:
    sabotage("time.sleep(60)")
    with pytest.raises(ModelError, match="no answer within 1 s") as caught:
        first_contact.first_contact(exported, "openvino", timeout_s=1)
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(f"deepfer verify {exported} --provider openvino --timeout-s 4")


def test_who_waits_long_enough_for_a_slow_start_opens_the_door_for_other_commands(
    exported: Path, sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sabotage("time.sleep(2)")
    monkeypatch.setenv("DEEPFER_CACHE", str(tmp_path / "cache"))
    verify = ["verify", str(exported), "--timeout-s"]
    late = CliRunner().invoke(app, [*verify, "1"])
    assert isinstance(late.exception, ModelError)
    assert late.exception.message.endswith("no answer within 1 s")
    timed = CliRunner().invoke(app, ["benchmark", str(exported), "--provider", "openvino", "--timeout-s", "1"])
    assert "on openvino: no answer within 1 s" in timed.stdout
    assert CliRunner().invoke(app, [*verify, "60"]).exit_code == 0
    sabotage("os.abort()")
    first_contact.ensure_contact(exported, "cpu")
    with pytest.raises(ModelError, match="crashed"):
        first_contact.ensure_contact(exported, "openvino")
