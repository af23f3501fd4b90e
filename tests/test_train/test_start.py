"""Which network a run starts from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from deepfer_yolo.config import CardConfig
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError, DatasetError, ModelError, TrainingError
from deepfer_yolo.export.cards import card_checkpoint
from deepfer_yolo.presets import configs_dir
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.model_file import SHIPPED
from deepfer_yolo.train.start import average_in, open_teachers, starting_model
from deepfer_yolo.train.training_run import TrainingRun
from deepfer_yolo.yolo import TRAINED_HASHES, ClassificationModel, load_checkpoint, trained_hashes


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


SPELT = ("Sadness", "Anger", "3_happy", "Surprised", "fear", "neutral", "disgusted")


def test_the_same_labels_in_another_order_and_spelling_keep_their_rows(finished_run: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    lines: list[str] = []
    model = starting_model(TrainConfig(model=str(best)), SPELT, lines.append)
    source = load_checkpoint(best)
    images = torch.rand(4, 3, 32, 32)
    places = [EMOTIONS.index(name) for name in ("sad", "angry", "happy", "surprise", "fear", "neutral", "disgust")]
    torch.testing.assert_close(model.eval()(images)[1], source(images)[1][:, places])
    assert lines == [f"{best}: 5 of 5 layers taken as the start"]


def test_shared_labels_keep_their_rows_and_the_others_begin_anew(finished_run: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    lines: list[str] = []
    labels = ("bored", "Happiness", "sad")
    head = starting_model(TrainConfig(model=str(best)), labels, lines.append).model[-1].linear
    old = load_checkpoint(best).model[-1].linear
    for place, name in ((1, "happy"), (2, "sad")):
        assert torch.equal(head.weight[place], old.weight[EMOTIONS.index(name)])
        assert torch.equal(head.bias[place], old.bias[EMOTIONS.index(name)])
    assert not any(torch.equal(head.weight[0], row) for row in old.weight)
    assert lines == [
        f"{best}: 4 of 5 layers taken as the start; 1 fresh (the head is new for bored, and kept for Happiness, sad)"
    ]


@pytest.mark.parametrize("labels", [("a", "b", "c"), tuple("abcdefg")])
def test_other_labels_get_a_new_head(finished_run: Path, labels: tuple[str, ...]) -> None:
    best, lines = finished_run / "weights" / "best.pt", list[str]()
    head = starting_model(TrainConfig(model=str(best)), labels, lines.append).model[-1].linear
    old = load_checkpoint(best).model[-1].linear
    assert head.out_features == len(labels)
    assert not any(torch.equal(row, other) for row in head.weight for other in old.weight)
    assert "and kept for no label" in lines[0]


def test_two_labels_of_the_start_that_mean_one_are_an_error(finished_run: Path) -> None:
    with pytest.raises(DatasetError, match="Happiness, happy and happy all mean happy"):
        starting_model(
            TrainConfig(model=str(finished_run / "weights" / "best.pt")), ("happy", "Happiness", "sad"), lambda _: None
        )


def test_a_start_bears_the_names_of_its_card(finished_run: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.pt"
    for suffix in (".pt", ".json"):
        shutil.copy(finished_run / "weights" / f"best{suffix}", best.with_suffix(suffix))
    card_checkpoint(best, CardConfig(labels=tuple("abcdefg")), overwrite=True)
    head = starting_model(TrainConfig(model=str(best)), ("g", "x", "a"), lambda _: None).model[-1].linear
    old = load_checkpoint(best).model[-1].linear
    assert torch.equal(head.weight[0], old.weight[6])
    assert torch.equal(head.weight[2], old.weight[0])


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


DEEPER = """nc: 7
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 2, C3k2, [64, False, 0.25]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 2, C3k2, [128, False, 0.25]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 2, C3k2, [128, True]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 2, C3k2, [256, True]]
  - [-1, 1, C2PSA, [256]]
head:
  - [-1, 1, Classify, [nc]]
"""
"""yolo26n-cls with two blocks in each stage."""


def test_a_deeper_network_begins_with_the_answers_of_the_one_it_comes_from(tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "deeper.yaml").write_text(DEEPER)
    config = TrainConfig(model=str(tmp_path / "deeper.yaml"), pretrained="deepfer-live")
    deeper = starting_model(config, EMOTIONS, lines.append)
    assert lines[0].endswith("40 of 58 layers taken as the start; 18 fresh")
    images = torch.rand(4, 3, 64, 64)
    live = load_checkpoint(SHIPPED / "deepfer-live.pt").float().eval()
    assert torch.allclose(deeper.eval()(images)[1], live(images)[1], atol=1e-4)
    deeper.train()(images).logsumexp(1).sum().backward()
    joins = deeper.model[4].cv2.conv.weight
    assert joins.grad[:, joins.shape[1] * 3 // 4 :].abs().max() > 0, "what is new learns"


@pytest.mark.parametrize("model", [None, "deepfer-n", "deepfer-n.pt"])
def test_the_shipped_checkpoint_is_the_default_start_and_has_a_name(model: str | None) -> None:
    lines: list[str] = []
    starting_model(TrainConfig(model=model), EMOTIONS, lines.append)
    assert lines == [f"{SHIPPED / 'deepfer-n.pt'}: 40 of 40 layers taken as the start"]


def shifted_copy(best: Path, path: Path, by: float) -> Path:
    """A checkpoint whose weights and statistics are larger by `by`, and which has learned an image of its own."""
    content = torch.load(best, weights_only=False)
    for value in content["model"].state_dict().values():
        if value.is_floating_point():
            value.add_(by)
    setattr(content["model"], TRAINED_HASHES, torch.tensor([int(by * 100)]))
    torch.save(content, path)
    return path


def soup_of(model: str, *others: Path) -> TrainConfig:
    return TrainConfig(model=model, soup=tuple(map(str, others)))


def stirred(config: TrainConfig, labels: tuple[str, ...] = EMOTIONS) -> tuple[ClassificationModel, list[str]]:
    lines: list[str] = []
    model = starting_model(config, labels, lines.append)
    average_in(config, model, labels, lines.append)
    return model, lines


def test_a_soup_is_the_mean_of_the_weights_and_of_the_statistics(finished_run: Path, tmp_path: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    others = [shifted_copy(best, tmp_path / f"{by}.pt", by) for by in (0.25, 0.5)]
    model, lines = stirred(soup_of(str(best), *others))
    source = load_checkpoint(best).state_dict()
    for key, value in model.state_dict().items():
        wanted = source[key] + 0.25 if value.is_floating_point() else source[key]
        torch.testing.assert_close(value, wanted, atol=2e-3, rtol=0)
    assert lines[-1] == "the start is the mean of 3 checkpoints"


def test_a_run_from_a_soup_remembers_what_each_of_it_had_learned(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    best = finished_run / "weights" / "best.pt"
    others = [shifted_copy(best, tmp_path / f"{by}.pt", by) for by in (0.25, 0.5)]
    change = {"model": str(best), "soup": tuple(map(str, others)), "allow_leak": True}
    run = TrainingRun.open(tiny_config.model_copy(update=change))
    learned = trained_hashes(run.model)
    assert learned is not None
    assert {25, 50} <= set(learned.tolist())


def test_a_soup_member_that_does_not_say_what_it_learned_is_named(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    best, silent = finished_run / "weights" / "best.pt", tmp_path / "silent.pt"
    content = torch.load(best, weights_only=False)
    delattr(content["model"], TRAINED_HASHES)
    torch.save(content, silent)
    change = {"model": str(best), "soup": (str(silent),), "allow_leak": True}
    run = TrainingRun.open(tiny_config.model_copy(update=change))
    assert any(f"the checkpoint {silent} of the soup does not say which images" in note for note in run.notes)


def test_a_soup_member_with_its_labels_in_another_order_is_put_in_order(finished_run: Path, tmp_path: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    turned = tmp_path / "turned.pt"
    content = torch.load(best, weights_only=False)
    content["model"].names = dict(enumerate(EMOTIONS[::-1]))
    head = content["model"].model[-1].linear
    head.weight.data, head.bias.data = head.weight.data.flip(0), head.bias.data.flip(0)
    torch.save(content, turned)
    model, _ = stirred(soup_of(str(best), turned))
    for key, value in load_checkpoint(best).state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)


def test_a_soup_of_what_cannot_be_averaged_is_refused(finished_run: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    with pytest.raises(ConfigError, match=r"soup: .*deepfer-n\.pt is another network than the one to train"):
        stirred(soup_of(str(best), Path("deepfer-n")))
    with pytest.raises(ConfigError, match=r"the checkpoint .* alone knows angry, .*; the data set alone knows a, b"):
        stirred(soup_of(str(best), best), ("a", "b"))
    with pytest.raises(ConfigError, match="soup averages the weights of checkpoints, and yolo11n-cls is none"):
        stirred(soup_of("yolo11n-cls", best))
    both = soup_of(str(best), best).model_copy(update={"pretrained": str(best)})
    with pytest.raises(ConfigError, match="soup and pretrained both say where the training starts"):
        stirred(both)


def test_a_yaml_that_is_no_classifier_is_a_clear_error(tmp_path: Path) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("nc: 7\nbackbone:\n  - [-1, 1, NoSuchLayer, [16]]\nhead:\n  - [-1, 1, Classify, [nc]]\n")
    with pytest.raises(ModelError, match=r"bad\.yaml does not describe a classifier"):
        starting_model(TrainConfig(model=str(spec)), EMOTIONS, lambda _: None)


def test_a_teacher_of_other_labels_is_refused(tiny_config: TrainConfig, finished_run: Path) -> None:
    config = tiny_config.model_copy(update={"teacher": (str(finished_run / "weights" / "best.pt"),)})
    with pytest.raises(ConfigError, match=r"the teacher .* alone knows angry, .*; the data set alone knows a, b"):
        open_teachers(config, ("a", "b"))


def test_a_teachers_answers_come_in_the_order_of_the_data_sets_labels(
    tiny_config: TrainConfig, finished_run: Path
) -> None:
    best = finished_run / "weights" / "best.pt"
    (teacher,) = open_teachers(tiny_config.model_copy(update={"teacher": (str(best),)}), SPELT)
    images = torch.rand(4, 3, 32, 32)
    places = [EMOTIONS.index(name) for name in ("sad", "angry", "happy", "surprise", "fear", "neutral", "disgust")]
    torch.testing.assert_close(teacher(images)[1], load_checkpoint(best)(images)[1][:, places])


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
