"""The search for a recipe: what it writes, that it prunes, fails and goes on after an interruption as if there had been
none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.exc import OperationalError

from deepfer_yolo.errors import ConfigError, ModelError, TrainingError
from deepfer_yolo.files import STAGING_MARK
from deepfer_yolo.presets import resolve
from deepfer_yolo.recipe import Choices, Range, TrainConfig, TuneConfig
from deepfer_yolo.records import plain
from deepfer_yolo.train import run
from deepfer_yolo.train.measure import Calibration, Score
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.study import Study
from deepfer_yolo.train.tune import BEST, check_space, resume, tune

SPACE: dict[str, Range | Choices] = {"lr0": Range(low=0.01, high=0.2, log=True), "mixup": Choices(choices=(0.0, 0.2))}


def quiet(_: str) -> None:
    """Show nothing."""


def test_a_search_writes_its_trials_and_a_recipe_that_train_takes_and_goes_on_exactly(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    recipe, settings = tiny_config.model_copy(update={"epochs": 2}), TuneConfig(trials=2, startup_trials=1, space=SPACE)
    whole = tune(settings, recipe, name="whole", show=quiet)
    assert [trial.state for trial in whole.trials] == ["complete"] * 2
    values = [trial.value for trial in whole.trials]
    assert values == sorted(values, reverse=True)
    assert whole.best == whole.folder / BEST
    assert resolve(TrainConfig, str(whole.best), {"data": recipe.data}) == recipe.model_copy(
        update=whole.trials[0].params
    )
    assert json.loads((whole.folder / "metrics.json").read_text())["trials"] == plain(whole.trials)

    asked = 0

    def stop_in_the_second_trial() -> bool:
        nonlocal asked
        asked += 1
        return asked == 10  # eight batches a trial

    parted = tune(settings, recipe, name="parted", show=quiet, should_stop=stop_in_the_second_trial)
    assert parted.stopped
    assert len(parted.trials) == 1
    lines: list[str] = []
    again = resume(parted.folder, show=lines.append)
    assert any("resuming" in line for line in lines)
    assert [(trial.trial, trial.value, trial.params) for trial in again.trials] == [
        (trial.trial, trial.value, trial.params) for trial in whole.trials
    ]


def test_a_bad_trial_is_pruned_and_a_failed_one_is_no_end(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    curves = iter([[0.5, 0.6, 0.7], None, [0.6, 0.7, 0.8], [0.1, 0.1, 0.1]])

    def train(config: TrainConfig, *, name: str, root: Path, on_epoch: run.OnEpoch, **_: object) -> TrainResult:
        folder = root / "train" / name
        folder.mkdir(parents=True)
        curve = next(curves)
        if curve is None:
            raise TrainingError("the loss is not a number")
        for epoch, fitness in enumerate(curve, 1):
            on_epoch(epoch, fitness)
        score, calibration = Score(10, curve[-1], 0.0), Calibration(1.0, 0.0, 0.0, 0.0)
        return TrainResult(folder, 3, 3, score, calibration, "top1", 10, None, None, 1, "fp32", 1, {})

    monkeypatch.setattr(run, "train", train)
    lines: list[str] = []
    found = tune(
        TuneConfig(trials=4, startup_trials=1, prune_after_epochs=0, space=SPACE),
        tiny_config,
        name="r",
        show=lines.append,
        root=tmp_path,
    )
    assert [(trial.trial, trial.state, trial.value, trial.epochs) for trial in found.trials[:2]] == [
        (2, "complete", 0.8, 3),
        (0, "complete", 0.7, 3),
    ]
    ended = {trial.trial: (trial.state, trial.epochs) for trial in found.trials}
    assert (ended[1], ended[3]) == (("fail", 0), ("pruned", 1))
    assert "trial 1: failed, the loss is not a number" in lines


def test_a_kill_around_a_trial_loses_and_blocks_nothing(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = TuneConfig(trials=2, startup_trials=1, space=SPACE)
    with monkeypatch.context() as patch:  # after the trial's figures, before the study knows them
        patch.setattr(Study, "tell", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(settings, tiny_config, name="r", show=quiet)
    folder = tmp_path / "runs" / "tune" / "r"
    figures = TrainResult.read(folder / "train" / "000")
    # between the folder of the next trial and its config.yaml
    (folder / "train" / "001").mkdir()
    (folder / "train" / "001" / f".config{STAGING_MARK}00112233aabb.yaml").touch()
    found = resume(folder, show=quiet)
    ended = {trial.trial: trial for trial in found.trials}
    assert [ended[number].state for number in (0, 1)] == ["complete"] * 2
    assert ended[0].value == figures.best_fitness


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_ends_the_search_with_the_way_on(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OperationalError("UPDATE trials", {}, Exception("database or disk is full"))

    monkeypatch.setattr(Study, "ask", full)
    with pytest.raises(TrainingError, match=r"study\.db cannot be .* .database or disk is full") as refusal:
        tune(TuneConfig(trials=1, space=SPACE), tiny_config, name="r", root=tmp_path, show=quiet)
    assert f"deepfer tune --resume {tmp_path / 'tune' / 'r'}" in str(refusal.value.hint)


def test_draws_follow_the_trials_number_and_not_the_process(tmp_path: Path) -> None:
    def draws(folder: Path, again: bool) -> list[dict[str, Any]]:
        folder.mkdir()
        study, found = Study(folder, TuneConfig(space=SPACE, startup_trials=2)), []
        for number in range(6):
            study = Study(folder, TuneConfig(space=SPACE, startup_trials=2)) if again else study
            trial = study.ask()
            study.tell(trial, number / 10)
            found.append(trial.params)
        return found

    one, two = draws(tmp_path / "a", False), draws(tmp_path / "b", True)
    assert one == two
    assert len({params["lr0"] for params in one}) == 6


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"lr": Range(low=0, high=1)}, "unknown key 'lr'"),
        ({"seed": Range(low=0, high=1)}, "seed: a search must not change it"),
        ({"dropout": Range(low=0, high=2)}, "dropout: input should be less than 1, not 2"),
        ({"loss": Choices(choices=("ce", "mse"))}, "loss: input should be .*, not 'mse'"),
        ({}, "it is empty"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(space: dict[str, Range | Choices], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_space(space, TrainConfig())


def test_the_shipped_space_fits_every_shipped_recipe() -> None:
    from deepfer_yolo.presets import configs_dir

    recipes = list((configs_dir() / "train").glob("*.yaml"))
    assert recipes
    for path in recipes:
        check_space(resolve(TuneConfig, "default").space, resolve(TrainConfig, path.stem))


def test_a_range_must_have_an_extent(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"space": {"lr0": {"low": 0.1, "high": 0.01}}}))
    with pytest.raises(ConfigError, match="low must be below high"):
        resolve(TuneConfig, str(tmp_path / "space.yaml"))


def test_a_fault_of_the_input_ends_the_search(tiny_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        tune(
            TuneConfig(space=SPACE),
            tiny_config.model_copy(update={"pretrained": "absent.pt"}),
            name="r",
            show=quiet,
            root=tmp_path,
        )
    with pytest.raises(TrainingError, match="is not a search"):
        resume(tmp_path)
