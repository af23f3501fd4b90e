"""How presets, files and flags become one configuration, and what wrong ones are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deepfer_yolo.config import EvaluateConfig, TrainConfig, resolve, to_yaml
from deepfer_yolo.errors import ConfigError


def test_flag_beats_file_beats_default(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("epochs: 7\nbatch: 32\n")
    config = resolve(TrainConfig, str(path), {"epochs": 3, "seed": None})
    assert (config.epochs, config.batch, config.seed) == (3, 32, TrainConfig().seed)
    assert resolve(TrainConfig, None, yaml.safe_load(to_yaml(config))) == config


def test_an_unknown_key_names_the_nearest_and_all_problems_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("epoch: 7\nbatch: many\n")
    with pytest.raises(ConfigError) as error:
        resolve(TrainConfig, str(path))
    assert str(path) in error.value.message
    assert "unknown key 'epoch' (did you mean 'epochs'?)" in error.value.message
    assert "batch" in error.value.message
    assert "'many'" in error.value.message


@pytest.mark.parametrize("content", ["- a\n- b\n", "epochs: [1\n", "just text"])
def test_what_is_not_a_mapping_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="yaml"):
        resolve(TrainConfig, str(path))


def test_a_missing_preset_or_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no such configuration file: nowhere\.yaml"):
        resolve(EvaluateConfig, "nowhere.yaml")
    with pytest.raises(ConfigError, match="no preset named 'nowhere'"):
        resolve(TrainConfig, "nowhere")
