"""The learning rate by layer, by plateau and against the clock, and that each goes on exactly after an interruption."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deepfer_yolo.config import CardConfig
from deepfer_yolo.errors import ConfigError
from deepfer_yolo.export.cards import card_checkpoint
from deepfer_yolo.presets import resolve
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.card import read_sidecar, sidecar_path
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.run import Stopped, resume, train
from deepfer_yolo.train.schedule import Plateau, decay_by_layer, ema_decay, is_judged, linear_share, warm_up_steps
from deepfer_yolo.train.start import starting_model
from deepfer_yolo.train.trainer import FaceTrainer, keep_layout
from deepfer_yolo.train.training_run import TrainingRun
from deepfer_yolo.yolo import first_convolution, load_checkpoint


def quiet(_: str) -> None:
    """Show nothing."""


def column(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in csv.DictReader((run / "results.csv").read_text().splitlines())]


def stop_after(batches: int) -> Callable[[], bool]:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == batches

    return stop


def test_a_plateau_lowers_the_rate_after_so_many_epochs_and_no_further_than_its_floor() -> None:
    plateau = Plateau(patience=2, factor=0.1, floor=0.05)
    shares = []
    for fitness in (0.5, 0.6, 0.6, 0.55, 0.7, 0.1, 0.1, 0.1, 0.1):
        plateau.update(fitness)
        shares.append(round(plateau.share, 6))
    assert shares == [1, 1, 1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05]


def test_the_moving_average_starts_short_and_reaches_its_memory() -> None:
    assert ema_decay(100, 1.0, 0) == 0.0
    assert ema_decay(100, 1.0, 1) == pytest.approx(2 / 11)
    assert ema_decay(100, 1.0, 10**6) == pytest.approx(0.99, abs=1e-3)


def test_each_layer_learns_at_a_share_of_the_rate_above_it(tiny_config: TrainConfig) -> None:
    model = starting_model(tiny_config, tuple("abcdefg"), quiet)
    by_kind = [[p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim == 1]]
    optimizer = torch.optim.SGD(
        [{"params": by_kind[0], "weight_decay": 0.1}, {"params": by_kind[1]}], lr=1.0, momentum=0.9
    )
    decay_by_layer(optimizer, model, 0.5)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {
        name: rate_of[id(p)] for name, p in model.named_parameters() if name.endswith(("conv.weight", "linear.bias"))
    } == {
        "model.0.conv.weight": 0.125,
        "model.1.conv.weight": 0.25,
        "model.2.conv.weight": 0.5,
        "model.3.conv.conv.weight": 1.0,
        "model.3.linear.bias": 1.0,
    }
    assert {decay_of[id(p)] for p in by_kind[0]} == {0.1}
    assert len(rate_of) == len(list(model.parameters()))


def test_a_stopped_run_with_plateau_and_rates_by_layer_continues_to_the_very_same(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    change = {
        "epochs": 4,
        "schedule": "plateau",
        "plateau_epochs": 1,
        "plateau_factor": 0.5,
        "lr_decay": 0.5,
        "warmup_epochs": 0,
    }
    config = tiny_config.model_copy(update=change)
    whole = train(config, name="whole", show=quiet, root=tmp_path)
    stopped = train(config, name="stopped", show=quiet, should_stop=stop_after(10), root=tmp_path)
    assert isinstance(stopped, Stopped)
    result = resume(stopped.folder, show=quiet)
    assert isinstance(whole, TrainResult)
    assert isinstance(result, TrainResult)
    weights = [load_checkpoint(found.folder / "weights" / "last.pt").state_dict() for found in (whole, result)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    top1, rates = column(whole.folder, "metrics/accuracy_top1"), column(whole.folder, "lr/pg0")
    share, best = 1.0, -math.inf
    for fitness, rate in zip(top1, rates, strict=True):
        assert rate == pytest.approx(0.05 * share)
        share, best = (share, fitness) if fitness > best else (share * 0.5, best)
    assert rates == column(result.folder, "lr/pg0")
    assert rates[-1] < rates[0], "this recipe never met a plateau: the test shows nothing"
    last = [
        key for key in (whole.folder / "results.csv").read_text().splitlines()[0].split(",") if key.startswith("lr/")
    ][-1]
    assert column(whole.folder, last)[0] < 0.05 * 0.5**2


SHORT = {
    "epochs": 4, "schedule": "linear", "warmup_epochs": 1.5, "lrf": 0.1, "optimizer": "adamw", "lr0": 0.005,
    "imgsz": 64, "start_imgsz": 32, "start_share": 0.5, "freeze": 2, "freeze_share": 0.25, "val_from": 0.5,
}  # fmt: skip
"""Everything that changes from epoch to epoch, and a rate that changes from step to step."""


@pytest.fixture(scope="module")
def short_run(
    tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[object, ...]]]:
    """The folder of a finished run by SHORT, and for each epoch its side, which layers learned and its last rate."""
    seen: list[tuple[object, ...]] = []
    original = FaceTrainer._loss

    def watch(self: FaceTrainer, batch: dict[str, torch.Tensor], *words: object) -> object:
        learns = tuple(layer.conv.weight.requires_grad for layer in self.network.model[:3])
        normalises = tuple(layer.bn.training for layer in self.network.model[:3])
        assert all(group["fused"] for group in self.optimizer.param_groups)
        seen.append((self.epoch, batch["img"].shape[-1], learns, normalises))
        return original(self, batch, *words)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaceTrainer, "_loss", watch)
        config = tiny_config.model_copy(update=SHORT)
        whole = train(config, name="whole", show=quiet, root=tmp_path_factory.mktemp("short"))
    assert isinstance(whole, TrainResult)
    return whole.folder, seen


def test_sides_and_frozen_layers_follow_the_epoch(short_run: tuple[Path, list[tuple[object, ...]]]) -> None:
    _, seen = short_run
    assert len(seen) == 16
    early, late = (False, False, True), (True, True, True)
    assert dict.fromkeys(seen) == dict.fromkeys(
        [(0, 32, early, early), (1, 32, late, late), (2, 64, late, late), (3, 64, late, late)]
    )


def test_a_linear_schedule_falls_from_step_to_step(short_run: tuple[Path, list[tuple[object, ...]]]) -> None:
    folder, _ = short_run
    # Four steps an epoch, six of warm-up, then evenly down to a tenth at step 16; the csv has each epoch's last.
    wanted = [3 / 6, 1 - 0.9 * 1 / 10, 1 - 0.9 * 5 / 10, 1 - 0.9 * 9 / 10]
    assert column(folder, "lr/pg0") == pytest.approx([0.005 * share for share in wanted], rel=1e-5)
    assert linear_share(16, 6, 16, 0.1) == pytest.approx(0.1)


def test_epochs_before_val_from_are_not_judged(
    tiny_config: TrainConfig, short_run: tuple[Path, list[tuple[object, ...]]], tmp_path: Path
) -> None:
    folder, _ = short_run
    top1 = column(folder, "metrics/accuracy_top1")
    assert [math.isnan(value) for value in top1] == [True, True, False, False]
    log = (folder / "log.txt").read_text()
    assert "nan" not in log
    assert TrainResult.read(folder).val.top1 == pytest.approx(max(top1[2:]), abs=1e-5)
    asked: list[int] = []
    config = tiny_config.model_copy(update={"epochs": 2, "val_from": 1.0})
    train(config, name="last", show=quiet, on_epoch=lambda epoch, _: asked.append(epoch), root=tmp_path)
    assert asked == [2], "the last epoch is always judged, and nobody hears of the others"
    assert [is_judged(config, epoch, 2) for epoch in range(2)] == [False, True]
    with pytest.raises(ConfigError, match="val_from"):
        resolve(TrainConfig, None, {"time": "1h", "val_from": 0.5})


@pytest.mark.parametrize("batches", [2, 5, 11])
def test_a_run_that_changes_as_it_goes_is_resumed_to_the_very_same(
    tiny_config: TrainConfig, short_run: tuple[Path, list[tuple[object, ...]]], tmp_path: Path, batches: int
) -> None:
    folder, _ = short_run
    config = tiny_config.model_copy(update=SHORT)
    stopped = train(config, name="stopped", show=quiet, should_stop=stop_after(batches), root=tmp_path)
    assert isinstance(stopped, Stopped)
    result = resume(stopped.folder, show=quiet)
    assert isinstance(result, TrainResult)
    weights = [load_checkpoint(found / "weights" / "last.pt").state_dict() for found in (folder, result.folder)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert column(folder, "lr/pg0") == column(result.folder, "lr/pg0")


def test_a_run_stopped_in_its_warm_up_goes_on_with_the_rate_of_that_step(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    stopped = train(tiny_config, name="stopped", show=quiet, should_stop=stop_after(2), root=tmp_path)
    assert isinstance(stopped, Stopped)
    assert warm_up_steps(tiny_config, 4, 3) == 4, "this recipe is not in its warm-up: the test shows nothing"
    result = resume(stopped.folder, show=quiet)
    assert isinstance(result, TrainResult)
    weights = [load_checkpoint(found / "weights" / "last.pt").state_dict() for found in (finished_run, result.folder)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("kept", [True, False])
def test_the_gradient_of_the_last_normalisation_has_the_layout_of_the_network(
    tiny_config: TrainConfig, kept: bool
) -> None:
    model = starting_model(tiny_config, tuple("abcdefg"), quiet).train().to(memory_format=torch.channels_last)
    if kept:
        keep_layout(model)
    layouts: list[bool] = []
    model.model[-1].conv.bn.register_full_backward_hook(
        lambda module, given, received: layouts.append(received[0].is_contiguous(memory_format=torch.channels_last))
    )
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    torch.autograd.backward(model.predict(images).sum())
    assert layouts == [kept], "without our help it is another one; where that has changed, keep_layout can go"


def test_freezing_the_whole_network_is_refused(tiny_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="freeze: the network has 4 layers"):
        train(tiny_config.model_copy(update={"freeze": 4}), name="frozen", show=quiet, root=tmp_path)


@pytest.mark.parametrize(("given", "hours"), [("90m", 1.5), ("1.5h", 1.5), ("2", 2), ("36s", 0.01), (0.25, 0.25)])
def test_a_time_is_hours_unless_it_says_otherwise(given: str | float, hours: float) -> None:
    assert resolve(TrainConfig, None, {"time": given}).time == pytest.approx(hours)


@pytest.mark.parametrize("given", ["soon", "-1h", "0", "1d", "nan"])
def test_a_time_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="time"):
        resolve(TrainConfig, None, {"time": given})


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock for the training loop by which every batch takes one second, however busy the machine is."""
    now = SimpleNamespace(s=1000.0)
    clock = SimpleNamespace(time=lambda: now.s)
    original = FaceTrainer._loss

    def tick(self: FaceTrainer, *words: object) -> object:
        now.s += 1
        return original(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(FaceTrainer, "_loss", tick)
    monkeypatch.setattr("ultralytics.engine.trainer.time", clock)
    monkeypatch.setattr("deepfer_yolo.train.trainer.time", clock)
    return now


def test_the_schedule_ends_with_the_time_and_an_interruption_does_not_lengthen_it(
    tiny_config: TrainConfig, tmp_path: Path, slow_clock: SimpleNamespace
) -> None:  # fmt: skip
    config = tiny_config.model_copy(
        update={"time": 24 / 3600, "warmup_epochs": 0}
    )  # four batches an epoch: six epochs, not three
    stopped = train(config, name="stopped", show=quiet, should_stop=stop_after(10), root=tmp_path)
    slow_clock.s += 10_000
    result = resume(stopped.folder, show=quiet)
    assert isinstance(result, TrainResult)
    assert result.epochs == 6
    assert column(result.folder, "time") == [4, 8, 12, 16, 20, 24]
    # After the first epoch the loop knows how long the run will be: from there on the cosine is that of six epochs.
    wanted = [0.05 * ((1 - math.cos(epoch * math.pi / 6)) / 2 * (0.01 - 1) + 1) for epoch in range(6)]
    assert column(result.folder, "lr/pg0") == pytest.approx(wanted, rel=1e-4)


def test_a_time_that_ends_within_an_epoch_ends_the_run_there(
    tiny_config: TrainConfig, tmp_path: Path, slow_clock: SimpleNamespace
) -> None:
    result = train(tiny_config.model_copy(update={"time": 5 / 3600}), name="r", show=quiet, root=tmp_path)
    assert isinstance(result, TrainResult)
    assert column(result.folder, "time") == [4, 6]


def test_a_teacher_changes_what_is_learned_and_is_itself_left_alone(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    best = finished_run / "weights" / "best.pt"
    before = best.read_bytes()
    alone, taught = tmp_path / "alone", tmp_path / "taught"
    config = tiny_config.model_copy(update={"epochs": 1})
    train(config, name="r", show=quiet, root=alone)
    train(config.model_copy(update={"teacher": (str(best),), "teacher_share": 1.0}), name="r", show=quiet, root=taught)
    losses = [
        (root / "train" / "r" / "results.csv").read_text().splitlines()[1].split(",")[2] for root in (alone, taught)
    ]
    assert losses[0] != losses[1]
    assert best.read_bytes() == before


def test_a_teacher_of_still_images_is_asked_once_for_each(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    best = str(finished_run / "weights" / "best.pt")
    update = {"teacher": (best,), "teacher_share": 1.0, "teacher_view": "still", "epochs": 2}
    run = TrainingRun.open(tiny_config.model_copy(update=update))
    asked: list[int] = []
    run.teachers[0].model[0].register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    trainer = FaceTrainer(run, tmp_path)
    trainer.train()
    assert sum(asked) == len(run.train)
    with torch.inference_mode():
        images = next(iter(trainer.train_loader.still()))
        wanted = (run.teachers[0](images)[1] / 2).softmax(1)
    torch.testing.assert_close(trainer.train_loader.taught[: len(wanted)], wanted, atol=0.02, rtol=0)


def test_a_grey_network_learns_from_one_plane_at_sides_that_ultralytics_would_round(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    change = {"model": "cnn-rep-xs", "imgsz": 48, "epochs": 1, "lr0": 0.01, "weight_decay": 0.05, "optimizer": "adamw"}
    result = train(tiny_config.model_copy(update=change), name="r", show=quiet, root=tmp_path)
    assert isinstance(result, TrainResult)
    best = result.folder / "weights" / "best.pt"
    network = load_checkpoint(best)
    weight = first_convolution(network).weight
    assert not weight[:, ::2].any()
    assert weight[:, 1].std() > 0.05
    assert read_sidecar(best).input.size == 48
    # The checkpoint itself says what it was fed, for a card that is written later.
    sidecar_path(best).unlink()
    assert card_checkpoint(best, CardConfig())[1].input.size == 48


def test_memory_is_not_filled_before_it_is_written(tiny_config: TrainConfig, tmp_path: Path) -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True
    FaceTrainer(TrainingRun.open(tiny_config), tmp_path)
    assert not torch.utils.deterministic.fill_uninitialized_memory
