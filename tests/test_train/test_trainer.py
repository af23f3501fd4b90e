"""The learning rate by layer, by plateau and against the clock, and that each goes on exactly after an interruption."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deepfer_yolo.errors import ConfigError
from deepfer_yolo.presets import resolve
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.run import Stopped, resume, train
from deepfer_yolo.train.start import starting_model
from deepfer_yolo.train.trainer import FaceTrainer, Plateau, decay_by_layer, ema_decay
from deepfer_yolo.yolo import load_checkpoint


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
