"""Heavy libraries arrive while the model runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deepfer_yolo.errors import EXTRA_OF_MODULE, MissingDependencyError
from deepfer_yolo.evaluate.evaluation import importing


def test_modules_are_there_after_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with importing("slow_to_import"):
        pass
    assert sys.modules.pop("slow_to_import").value == 3


def test_a_missing_extra_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRA_OF_MODULE, "not_installed_here", "eval")
    with (
        pytest.raises(MissingDependencyError, match="not_installed_here") as raised,
        importing("not_installed_here.metrics"),
    ):
        pytest.fail("the work began")
    assert raised.value.hint == 'pip install "deepfer-yolo[eval]"'
