"""Which network a run starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError, ModelError, TrainingError
from deepfer_yolo.presets import configs_dir
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.model_file import SHIPPED
from deepfer_yolo.train.start import open_teachers, starting_model
from deepfer_yolo.yolo import load_checkpoint


def test_a_bare_name_trains_from_scratch_and_says_so() -> None:
    lines: list[str] = []
    model = starting_model(TrainConfig(model="yolo11n-cls"), EMOTIONS, lines.append)
    assert lines == ["yolo11n-cls: training from scratch (no --pretrained)"]
    assert tuple(model.names.values()) == EMOTIONS
    assert model.model[-1].linear.out_features == 7


def test_a_checkpoint_with_the_same_labels_is_taken_whole(finished_run: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    lines: list[str] = []
    model = starting_model(TrainConfig(model=str(best)), EMOTIONS, lines.append)
    source = load_checkpoint(best).state_dict()
    assert all(torch.equal(value, source[name]) for name, value in model.state_dict().items())
    n = sum(value.ndim > 1 for value in source.values())
    assert lines == [f"{best}: {n} of {n} layers taken as the start"]


def test_the_same_labels_in_another_order_do_not_keep_the_head(finished_run: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    lines: list[str] = []
    model = starting_model(TrainConfig(model=str(best)), EMOTIONS[::-1], lines.append)
    source = load_checkpoint(best).state_dict()
    differ = {name for name, value in model.state_dict().items() if not torch.equal(value, source[name])}
    assert differ == {"model.3.linear.weight", "model.3.linear.bias"}
    assert "1 fresh (the head: its labels differ)" in lines[0]


def test_other_classes_get_a_new_head(finished_run: Path) -> None:
    model = starting_model(
        TrainConfig(model=str(finished_run / "weights" / "best.pt")), ("a", "b", "c"), lambda _: None
    )
    assert model.model[-1].linear.out_features == 3


def test_pretrained_that_shares_no_layer_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("nc: 7\nbackbone:\n  - [-1, 1, Conv, [24, 3, 2]]\nhead:\n  - [-1, 1, Classify, [nc]]\n")
    with pytest.raises(TrainingError, match="no layer of"):
        starting_model(TrainConfig(model=str(other), pretrained=str(_wide(tmp_path))), EMOTIONS, lambda _: None)


def _wide(folder: Path) -> Path:
    from deepfer_yolo.yolo import build_model

    spec = folder / "wide.yaml"
    spec.write_text("nc: 5\nbackbone:\n  - [-1, 1, nn.Identity, []]\nhead:\n  - [-1, 1, Classify, [nc]]\n")
    model = build_model(str(spec), 5)
    path = folder / "wide.pt"
    torch.save({"model": model, "ema": None}, path)
    return path


@pytest.mark.parametrize("model", [None, "deepfer-n", "deepfer-n.pt"])
def test_the_shipped_checkpoint_is_the_default_start_and_has_a_name(model: str | None) -> None:
    lines: list[str] = []
    starting_model(TrainConfig(model=model), EMOTIONS, lines.append)
    assert lines == [f"{SHIPPED / 'deepfer-n.pt'}: 40 of 40 layers taken as the start"]


def test_a_yaml_that_is_no_classifier_is_a_clear_error(tmp_path: Path) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("nc: 7\nbackbone:\n  - [-1, 1, NoSuchLayer, [16]]\nhead:\n  - [-1, 1, Classify, [nc]]\n")
    with pytest.raises(ModelError, match=r"bad\.yaml does not describe a classifier"):
        starting_model(TrainConfig(model=str(spec)), EMOTIONS, lambda _: None)


def test_a_teacher_of_other_labels_is_refused(tiny_config: TrainConfig, finished_run: Path) -> None:
    config = tiny_config.model_copy(update={"teacher": (str(finished_run / "weights" / "best.pt"),)})
    with pytest.raises(ConfigError, match="the teacher"):
        open_teachers(config, ("a", "b"))


@pytest.mark.parametrize("path", sorted((configs_dir() / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_our_model_yamls_are_built_by_bare_name_and_stay_small(path: Path) -> None:
    model = starting_model(TrainConfig(model=path.stem), EMOTIONS, lambda _: None)
    limit = 5_000_000 if path.stem == "cnn-l" else 2_000_000  # cnn-l is a teacher, for a GPU
    assert sum(parameter.numel() for parameter in model.parameters()) <= limit
    for size in (32, 64):
        assert model.eval()(torch.zeros(1, 3, size, size))[0].shape == (1, 7)


def test_a_teacher_sees_images_at_its_own_size(tiny_config: TrainConfig, finished_run: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    (teacher,) = open_teachers(tiny_config.model_copy(update={"teacher": (str(best),)}), EMOTIONS)
    seen: list[torch.Size] = []
    teacher.model[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    for size in (16, 32, 48):
        teacher(torch.rand(2, 3, size, size))
    assert [shape[-1] for shape in seen] == [32, 32, 48]
    flat = torch.full((1, 3, 16, 16), 0.25)
    torch.testing.assert_close(teacher(flat)[1], load_checkpoint(best)(torch.full((1, 3, 32, 32), 0.25))[1])
