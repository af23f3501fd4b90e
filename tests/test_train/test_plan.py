"""What a dry run says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train import plan as planning
from deepfer_yolo.train.plan import estimate, plan
from deepfer_yolo.yolo import build_model


def test_a_dry_run_tells_and_writes_nothing(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = plan(tiny_config.model_copy(update={"start_imgsz": 32}))
    json.dumps(found.to_json())
    assert (found.train, found.val) == (140, 56)
    # 16 filters of 3x3x3 over 16x16 positions, 32 of 3x3x16 over 8x8, 64 of 3x3x32 over 4x4, 1280 of 64 over 4x4, 7 of
    # 1280: two each
    wanted = 2 * (16 * 27 * 256 + 32 * 144 * 64 + 64 * 288 * 16 + 1280 * 64 * 16 + 7 * 1280)
    assert found.gflops * 1e9 == pytest.approx(wanted)
    assert found.estimated_s > 0
    assert not list(tmp_path.iterdir())


def test_the_estimate_counts_the_epochs_of_each_side_and_of_frozen_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {(32, 3): 400.0, (32, 0): 200.0, (64, 0): 100.0}
    monkeypatch.setattr(planning, "images_per_s", lambda model, teachers, config, side, frozen: speeds[side, frozen])
    config = TrainConfig(epochs=8, start_imgsz=32, start_share=0.5, freeze=3, freeze_share=0.25)
    assert estimate(config, build_model("yolo26n-cls", 7), (), 1000) == pytest.approx(
        1000 * (2 / 400 + 2 / 200 + 4 / 100)
    )


def test_a_key_that_nothing_comes_of_is_said(tiny_config: TrainConfig) -> None:
    alone = tiny_config.model_copy(update={"teacher_share": 0.7, "teacher_view": "still", "haze": 0.5})
    assert plan(alone).start[:2] == [
        "without a teacher nothing comes of teacher_share, teacher_view",
        "without sensor nothing comes of haze",
    ]
    assert not tiny_config.idle_keys()
    assert not alone.model_copy(update={"teacher": ("deepfer-n",), "sensor": 0.5}).idle_keys()
