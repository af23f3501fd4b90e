"""Search for a recipe: trials on the real trainer, one by one, in a folder that an interruption leaves whole; several
such workers may share a search.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from deepfer_yolo.errors import ConfigError, TrainingError, redact
from deepfer_yolo.files import write_atomic
from deepfer_yolo.presets import problem_text, read_yaml, resolve, to_yaml
from deepfer_yolo.recipe import Choices, Range, TrainConfig, TuneConfig
from deepfer_yolo.records import Json, JsonValue, plain
from deepfer_yolo.runs import CONFIG, METRICS, create_run, write_metrics
from deepfer_yolo.train import run
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.shared_study import WORKER, SharedStudy, new_name, secret_of, settings_of, whole_address
from deepfer_yolo.train.splits import open_for_training
from deepfer_yolo.train.study import DATABASE, Lost, Study, TrialResult, storage_explained
from deepfer_yolo.train.training_run import drop_states

if TYPE_CHECKING:
    import optuna

RECIPE, BEST = "recipe.yaml", "best.yaml"
FIXED = frozenset({"data", "device", "threads", "seed", "fitness", "logger", "exclude", "allow_leak"})
"""Keys of the recipe that a search must not touch: another seed or another validation is luck, not a recipe."""


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a search has found: all trials that ended, best first, and the best recipe where one was completed."""

    folder: Path
    trials: list[TrialResult]
    best: Path | None
    stopped: bool = False

    def to_json(self) -> Json:
        """Folder, best recipe and trials."""
        return dict(plain({"run": self.folder, "best": self.best, "trials": self.trials}))


def check_space(space: Mapping[str, Range | Choices], recipe: TrainConfig) -> None:
    """Raise ConfigError that names every key and value of the space that the recipe would refuse."""
    problems = [f"{key}: a search must not change it" for key in space if key in FIXED]
    if not space:
        problems.append("space: it is empty")
    for key, span in space.items():
        for value in span.choices if isinstance(span, Choices) else (span.low, span.high):
            try:
                TrainConfig.model_validate({**recipe.model_dump(), key: value})
            except ValidationError as error:
                problems += [problem_text(problem, TrainConfig) for problem in error.errors()]
    if problems:
        raise ConfigError(
            f"the search space: {'; '.join(dict.fromkeys(problems))}",
            "each key is one of the recipe's: deepfer train --help",
        )


class _Pruned(Exception):  # noqa: N818  (not an error: the trial ends early)
    """The trial is worse than half of those before it."""


def tune(
    config: TuneConfig, recipe: TrainConfig, *, name: str | None = None, root: Path = Path("runs"),
    show: Callable[[str], None] = print, should_stop: Callable[[], bool] = lambda: False,
) -> TuneResult:  # fmt: skip
    """Search around `recipe`, whose `data` names a data set folder, in a new folder `root/tune/<name>`; where `config`
    names a storage, as one worker of several.

    Raises ConfigError for a space that does not fit the recipe, and what a training raises for its data, model and
    device.
    """
    if recipe.data is None:
        raise ConfigError("no data set was named", "deepfer tune DATASET")
    check_space(config.space, recipe)
    recipe = run.absolute(recipe)
    fingerprint = open_for_training(recipe).fingerprint
    shared, recorded = None, config
    if config.storage is not None:
        config = config.model_copy(update={"storage": whole_address(config.storage)})
        recorded = config.model_copy(update={"storage": redact(str(config.storage))})
        with _explained(config, "the same command again"):
            shared = SharedStudy(new_name(), config, settings_of(config, recipe, fingerprint))
    folder = create_run("tune", name, recorded, root).resolve()
    if shared is not None:
        write_atomic(folder / WORKER, shared.worker)
    write_atomic(folder / RECIPE, to_yaml(recipe))
    return _search(folder, shared, config, recipe, show, should_stop)


def resume(
    folder: Path, *, limits: Mapping[str, Any] | None = None, show: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
) -> TuneResult:  # fmt: skip
    """Go on with a search to its own limits or to the `trials` and `time` of `limits`; the time counts anew.

    `limits` may hold the `storage` of a shared one, and must where its address has a password, which is not recorded.
    """
    folder = folder.resolve()
    if not (folder / RECIPE).is_file():
        raise TrainingError(
            f"{folder} is not a search: it has no {RECIPE}", "name the folder of one, such as runs/tune/<name>"
        )
    recorded, limits = resolve(TuneConfig, str(folder / CONFIG)), dict(limits or {})
    if recorded.storage is None and limits.get("storage") is not None:
        raise ConfigError(f"the search in {folder} is not shared", "leave out --storage and DEEPFER_STORAGE")
    if "***" in (recorded.storage or "") and limits.get("storage") is None:
        hint = f"deepfer tune --resume {folder} --storage {recorded.storage}"
        raise ConfigError(f"the address of the search in {folder} has a secret, which is not recorded", hint)
    config = resolve(TuneConfig, str(folder / CONFIG), limits)
    recipe = TrainConfig.model_validate(read_yaml(folder / RECIPE))
    shared = None
    if config.storage is not None:
        worker = (folder / WORKER).read_text(encoding="utf-8")
        settings = settings_of(config, recipe, open_for_training(recipe).fingerprint)
        with _explained(config, "the same command again"):
            shared = SharedStudy(worker, config, settings)
    return _search(folder, shared, config, recipe, show, should_stop)


def _search(
    folder: Path, shared: SharedStudy | None, config: TuneConfig, recipe: TrainConfig, show: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> TuneResult:  # fmt: skip
    began, stopped, is_told = time.monotonic(), False, False
    with run.lock(folder), _explained(config, f"deepfer tune --resume {folder}", str(folder / DATABASE)):
        study = shared or Study(folder, config)
        while (n := len(study.ended())) < study.n_trials and not stopped:
            if config.time is not None and time.monotonic() - began > config.time * 3600:
                show(f"the time is over after {n} of {study.n_trials} trials")
                break
            trial = study.left()
            if trial is None and (trial := study.ask()) is not None and config.storage is not None:
                shutil.rmtree(_place(folder, study.slot(trial)), ignore_errors=True)  # of an attempt that was lost
            if trial is not None:
                stopped = not _run_trial(study, trial, folder, recipe, show, should_stop)
                continue
            if not is_told:
                show(f"{n} of {study.n_trials} trials have ended, the rest are with other workers: waiting for them")
            is_told, stopped = True, _wait(config.heartbeat_s, should_stop)
        trials = study.ended()
        named = folder.name if config.storage is None else config.study
        result = TuneResult(folder, trials, _write_best(trials, folder, recipe, named), stopped)
        write_metrics(folder, {"fitness": recipe.fitness, "trials": trials})
    return result


def _explained(config: TuneConfig, again: str, own: str = "") -> AbstractContextManager[None]:
    """Errors of the shared database, or of the folder's `own`, as one that says what to do `again`."""
    if config.storage is None:
        return storage_explained(own, f"is the disk full? Then free some space, and: {again}")
    hint = f"is the database up, and can it be reached from here? Then: {again}"
    return storage_explained(redact(config.storage), hint, secret_of(config.storage))


def _wait(seconds: float, should_stop: Callable[[], bool]) -> bool:
    """Let some time pass; whether it was asked to stop."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if should_stop():
            return True
        time.sleep(0.5)
    return False


def _place(folder: Path, number: int) -> Path:
    return folder / "train" / f"{number:03d}"


def _run_trial(
    study: Study, trial: optuna.trial.Trial, folder: Path, recipe: TrainConfig, show: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> bool:  # fmt: skip
    """Run one trial to its end; False where it was stopped and waits to be resumed."""
    number = study.slot(trial)
    place = _place(folder, number)
    show(f"trial {number}: {words(trial.params)}")

    def watch(epoch: int, fitness: float) -> None:
        if study.report(trial, epoch, fitness):
            raise _Pruned

    def tell(line: str) -> None:
        show(f"  {line}")

    def trained() -> object:
        if (place / METRICS).is_file():  # it ended before an interruption, which came before the study was told
            return TrainResult.read(place)
        if (place / CONFIG).is_file():
            return run.resume(place, show=tell, should_stop=should_stop, on_epoch=watch)
        config = recipe.model_copy(update=trial.params)
        return run.train(config, name=place.name, root=folder, show=tell, should_stop=should_stop, on_epoch=watch)

    try:
        try:
            with study.alive(trial):
                result = trained()
        except (_Pruned, TrainingError) as error:
            if not place.is_dir() or isinstance(error.__cause__, OSError):
                raise  # the fault is in the input or the disk, and the next trial would meet it too
            pruned = isinstance(error, _Pruned)
            why = "pruned, worse than the median of those before it" if pruned else f"failed, {error}"
            show(f"trial {number}: {why}")
            study.tell(trial, None, pruned=pruned)
            drop_states(place / "weights")
            return True
        if isinstance(result, TrainResult):
            study.tell(trial, result.best_fitness)
    except Lost:
        show(f"trial {number}: another worker has it now, since this one gave no sign of life for too long")
        shutil.rmtree(place, ignore_errors=True)
        return True
    return isinstance(result, TrainResult)


def _write_best(trials: list[TrialResult], folder: Path, recipe: TrainConfig, named: str) -> Path | None:
    """Write the best recipe, if there is one, as a small diff over the defaults for `deepfer train --config`."""
    if not trials or trials[0].state != "complete":
        return None
    best = trials[0]
    chosen = recipe.model_copy(update=best.params)
    changed = chosen.model_dump(mode="json", exclude_defaults=True, exclude={"data"})
    head = (
        f"# Trial {best.trial} of {len(trials)} in {named}: {recipe.fitness} {best.value:.4f} on val. The best "
        "of many trials looks\n# better than it is: train it again with other seeds, and measure it on test once.\n"
    )
    write_atomic(folder / BEST, head + yaml.safe_dump(changed, sort_keys=False))
    return folder / BEST


def words(params: Mapping[str, JsonValue]) -> str:
    """``lr0=0.0123 mixup=0.2``."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )
