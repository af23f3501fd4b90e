"""How presets, files and flags become one configuration, and what wrong ones are told."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepfer_yolo.config import (
    AuditConfig,
    BenchmarkConfig,
    CardConfig,
    ConvertConfig,
    EvaluateConfig,
    PredictConfig,
    StreamConfig,
)
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.presets import Config, key_of, resolve, to_yaml
from deepfer_yolo.recipe import TrainConfig, TuneConfig
from deepfer_yolo.servers import ServeConfig


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


def test_a_wrong_flag_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("batch: 0\n")
    with pytest.raises(ConfigError) as error:
        resolve(TrainConfig, str(path), {"epochs": -3})
    assert "the command line: epochs: " in error.value.message
    assert f"{path}: batch: " in error.value.message


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


@pytest.mark.parametrize(
    ("section", "before", "now"),
    [
        (StreamConfig, "max_age", "max_age_s"),
        (StreamConfig, "stall", "stall_s"),
        (StreamConfig, "hold", "hold_s"),
        (StreamConfig, "lost", "lost_s"),
        (ServeConfig, "rate", "rate_per_s"),
        (ServeConfig, "stop_timeout", "stop_timeout_s"),
        (PredictConfig, "detect_size", "detect_size_px"),
        (AuditConfig, "near_radius", "near_radius_bits"),
        (TuneConfig, "startup", "startup_trials"),
    ],
)
def test_a_key_without_its_unit_is_refused_with_the_full_name(
    section: type[Config], before: str, now: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(f"{before}: 1\n")
    with pytest.raises(ConfigError, match=rf"unknown key '{before}' \(did you mean '{now}'\?\)"):
        resolve(section, str(path))


def test_a_flag_may_leave_out_the_unit_of_its_key() -> None:
    assert key_of(StreamConfig, "max_age") == "max_age_s"
    assert key_of(ServeConfig, "rate") == "rate_per_s"
    assert key_of(ServeConfig, "max_wait_ms") == "max_wait_ms"
    assert key_of(StreamConfig, "max") == "max"


def test_texts_of_the_command_line_become_values() -> None:
    assert resolve(ConvertConfig, None, {"map": ["contempt=disgust", "a=b=c"]}).map == {
        "contempt": "disgust",
        "a": "b=c",
    }
    assert resolve(BenchmarkConfig, None, {"batch": "1, 8"}).batch == (1, 8)
    assert resolve(TrainConfig, None, {"time": "90m"}).time == 1.5
    assert resolve(CardConfig, None, {"mean": "0.5,0.25,1", "labels": "a, b"}).mean == (0.5, 0.25, 1.0)
    assert resolve(CardConfig, None, {"labels": "a, b"}).labels == ("a", "b")
    for text in ("0.5,1", "a,b,c", "1,2,3,4"):
        with pytest.raises(ConfigError, match="the command line: mean"):
            resolve(CardConfig, None, {"mean": text})
    with pytest.raises(ConfigError, match=r"map: 'contempt=' is not KEY=VALUE"):
        resolve(ConvertConfig, None, {"map": ["contempt="]})
    with pytest.raises(ConfigError, match=r"batch\.1: .*'x'"):
        resolve(BenchmarkConfig, None, {"batch": "1,x"})


def test_a_flag_that_is_refused_is_called_as_it_was_typed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the command line: max_age: input should be greater than 0, not -1\.0"):
        resolve(StreamConfig, None, {"max_age": -1.0})
    assert resolve(StreamConfig, None, {"max_age": 2.0}).max_age_s == 2.0


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("epochs: yes", "epochs: yes, no, on, off, true and false are no value of it"),
        ("lr0: .inf", "lr0: input should be"),
        ("lr0: .nan", "lr0: input should be"),
        (f"model: [{'x' * 5000}]", "model"),
        (f"{'k' * 900}: 1", "unknown key 'kkk"),
        ("epochs: !!int x", "not valid yaml"),
        ("epochs: !!bool x", "not valid yaml"),
        ("epochs: !!timestamp x", "not valid yaml"),
        ("epochs: 2024-99-99", "not valid yaml"),
        ("[1, 2]: 3", "not valid yaml"),
        ("soup: best.pt", "soup: input should be a list, such as [a, b], not 'best.pt'"),
        (f"epochs: {'[' * 3000}", "not valid yaml"),
        ("epochs: 1\0", "not valid yaml"),
    ],
)
def test_values_of_the_wrong_kind_are_one_short_error(content: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(what)) as refusal:
        resolve(TrainConfig, str(path))
    assert len(refusal.value.message) < 400


YAML_LIKE = st.text("{}[]:,!&*|>-?#'\"%@` \n\tabc019.", max_size=80).map(str.encode)


@given(content=st.one_of(st.binary(max_size=200), YAML_LIKE))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_yaml_ends_in_anything_but_a_configuration_or_a_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        resolve(TrainConfig, str(path))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("epochs: 1\nseed: 3\nepochs: 2\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml is not valid yaml: the key 'epochs' stands twice.*line 3"):
        resolve(TrainConfig, str(file))
