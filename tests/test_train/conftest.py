"""A network small enough to train in a second, and one finished run of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepfer_yolo.recipe import TrainConfig

TINY = """nc: 7
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [-1, 1, Classify, [nc]]
"""


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model yaml of three convolutions."""
    path = tmp_path_factory.mktemp("model") / "tiny-cls.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_config(tiny_yaml: Path, painted_dataset: Path) -> TrainConfig:
    """A recipe for it on the painted data set: 140 images, four batches an epoch."""
    return TrainConfig(
        data=str(painted_dataset),
        model=str(tiny_yaml),
        epochs=3,
        imgsz=32,
        batch=35,
        threads=1,
        lr0=0.05,
        ema_epochs=0.5,
    )


@pytest.fixture(scope="session")
def finished_run(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run of `tiny_config`. Treat it as read-only."""
    from deepfer_yolo.train.results import TrainResult
    from deepfer_yolo.train.run import train

    result = train(tiny_config, name="finished", show=lambda _: None, root=tmp_path_factory.mktemp("runs"))
    assert isinstance(result, TrainResult)
    return result.folder
