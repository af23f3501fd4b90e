"""A whole evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.errors import EXTRA_OF_MODULE, MissingDependencyError, install_line
from deepfer_yolo.evaluate.evaluation import evaluate
from deepfer_yolo.runtime.classifier import Classifier


def test_a_missing_extra_is_told_before_the_work(
    painted_dataset: Path, linear_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepfer_yolo.errors.find_spec", {"scipy": "there", "matplotlib": None}.get)
    with pytest.raises(MissingDependencyError, match="matplotlib") as raised:
        evaluate(
            Classifier(linear_model),
            open_dataset(painted_dataset),
            EvaluateConfig(),
            on_progress=lambda *_: pytest.fail("the work began"),
        )
    assert raised.value.hint == install_line("eval")
    assert EXTRA_OF_MODULE["scipy"] == "eval"
