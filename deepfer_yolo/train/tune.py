"""Search for a recipe: trials on the real trainer, one by one, in a folder that an interruption leaves whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from deepfer_yolo.errors import ConfigError, TrainingError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.presets import problem_text, read_yaml, resolve, to_yaml
from deepfer_yolo.recipe import Choices, Range, TrainConfig, TuneConfig
from deepfer_yolo.records import Json, JsonValue, plain
from deepfer_yolo.runs import CONFIG, METRICS, create_run, write_metrics
from deepfer_yolo.train import run
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.splits import open_for_training
from deepfer_yolo.train.training_run import drop_states

if TYPE_CHECKING:
    import optuna

RECIPE, BEST = "recipe.yaml", "best.yaml"
FIXED = frozenset({"data", "device", "threads", "seed", "fitness", "logger", "exclude", "allow_leak"})
"""Keys of the recipe that a search must not touch: another seed or another validation is luck, not a recipe."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A trial that is complete, pruned or has failed, by the last epoch's fitness, of best.pt where it is complete."""

    trial: int
    state: str
    value: float | None
    epochs: int
    params: Mapping[str, JsonValue]


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


class Study:
    """An Optuna study in `folder/study.db`: random at first, then TPE (Bergstra et al., 2011), with median pruning by
    epoch.

    The draws of a trial follow from the seed and the trial's number, so a search that was interrupted goes on as if it
    had not been.
    """

    def __init__(self, folder: Path, config: TuneConfig) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.config = config
        self.study = optuna.create_study(
            storage=f"sqlite:///{folder / 'study.db'}",
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=config.startup_trials, n_warmup_steps=config.prune_after_epochs
            ),
        )

    def next(self) -> optuna.trial.Trial:
        """The trial that an interruption left, else a new one."""
        import optuna

        for left in self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            return optuna.trial.Trial(self.study, left._trial_id)
        seed = self.config.seed + len(self.study.trials)
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.config.startup_trials)
        return self.study.ask({key: _distribution(span) for key, span in self.config.space.items()})

    def report(self, trial: optuna.trial.Trial, epoch: int, fitness: float) -> bool:
        """Take one epoch's fitness; whether the trial is worth no more.

        An epoch that was reported before an interruption counts once.
        """
        if epoch not in self.study.trials[trial.number].intermediate_values:
            trial.report(fitness, epoch)
        return bool(trial.should_prune())

    def tell(self, trial: optuna.trial.Trial, value: float | None, *, pruned: bool = False) -> None:
        """End a trial with its value, as pruned, or without either as failed."""
        from optuna.trial import TrialState

        state = TrialState.COMPLETE if value is not None else TrialState.PRUNED if pruned else TrialState.FAIL
        self.study.tell(trial, value, state)

    def ended(self) -> list[TrialResult]:
        """Every trial that is behind us, the best first."""
        found = [
            TrialResult(
                trial.number, trial.state.name.lower(), trial.value, len(trial.intermediate_values), trial.params
            )
            for trial in self.study.trials
            if trial.state.is_finished()
        ]
        return sorted(found, key=lambda trial: (trial.state != "complete", -(trial.value or 0)))


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


def _distribution(span: Range | Choices) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(span, Choices):
        return CategoricalDistribution(span.choices)
    if isinstance(span.low, int) and isinstance(span.high, int):
        return IntDistribution(span.low, span.high, log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


class _Pruned(Exception):  # noqa: N818  (not an error: the trial ends early)
    """The trial is worse than half of those before it."""


def tune(
    config: TuneConfig, recipe: TrainConfig, *, name: str | None = None, root: Path = Path("runs"),
    show: Callable[[str], None] = print, should_stop: Callable[[], bool] = lambda: False,
) -> TuneResult:  # fmt: skip
    """Search around `recipe`, whose `data` names a data set folder, in a new folder `root/tune/<name>`.

    Raises ConfigError for a space that does not fit the recipe, and what a training raises for its data, model and
    device.
    """
    if recipe.data is None:
        raise ConfigError("no data set was named", "deepfer tune DATASET")
    check_space(config.space, recipe)
    recipe = recipe.model_copy(update={"data": str(Path(recipe.data).resolve())})
    open_for_training(recipe)
    folder = create_run("tune", name, config, root).resolve()
    write_atomic(folder / RECIPE, to_yaml(recipe))
    return _search(folder, config, recipe, show, should_stop)


def resume(
    folder: Path, *, limits: Mapping[str, Any] | None = None, show: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
) -> TuneResult:  # fmt: skip
    """Go on with a search to its own limits or to the `trials` and `time` of `limits`; the time counts anew."""
    folder = folder.resolve()
    if not (folder / RECIPE).is_file():
        raise TrainingError(
            f"{folder} is not a search: it has no {RECIPE}", "name the folder of one, such as runs/tune/<name>"
        )
    config = resolve(TuneConfig, str(folder / CONFIG), limits)
    return _search(folder, config, TrainConfig.model_validate(read_yaml(folder / RECIPE)), show, should_stop)


def _search(
    folder: Path, config: TuneConfig, recipe: TrainConfig, show: Callable[[str], None], should_stop: Callable[[], bool]
) -> TuneResult:
    began = time.monotonic()
    stopped = False
    with run.lock(folder), _storage_explained(folder):
        study = Study(folder, config)
        while (n := len(study.ended())) < config.trials and not stopped:
            if config.time is not None and time.monotonic() - began > config.time * 3600:
                show(f"the time is over after {n} of {config.trials} trials")
                break
            stopped = not _run_trial(study, folder, recipe, show, should_stop)
        trials = study.ended()
        result = TuneResult(folder, trials, _write_best(trials, folder, recipe), stopped)
        write_metrics(folder, {"fitness": recipe.fitness, "trials": trials})
    return result


@contextmanager
def _storage_explained(folder: Path) -> Iterator[None]:
    """Turn what the study's database cannot do into a TrainingError that says how to go on."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        why = str(getattr(error.__cause__ or error, "orig", None) or error).splitlines()[0]
        hint = f"is the disk full? Then free some space, and: deepfer tune --resume {folder}"
        raise TrainingError(f"{folder / 'study.db'} cannot be read or written ({why})", hint) from error


def _run_trial(
    study: Study, folder: Path, recipe: TrainConfig, show: Callable[[str], None], should_stop: Callable[[], bool]
) -> bool:
    """Run one trial to its end; False where it was stopped and waits to be resumed."""
    trial = study.next()
    name = f"{trial.number:03d}"
    place = folder / "train" / name
    show(f"trial {trial.number}: {words(trial.params)}")

    def watch(epoch: int, fitness: float) -> None:
        if study.report(trial, epoch, fitness):
            raise _Pruned

    def tell(line: str) -> None:
        show(f"  {line}")

    try:
        if (place / METRICS).is_file():  # it ended before an interruption, which came before the study was told
            result: object = TrainResult.read(place)
        elif (place / CONFIG).is_file():
            result = run.resume(place, show=tell, should_stop=should_stop, on_epoch=watch)
        else:
            config = recipe.model_copy(update=trial.params)
            result = run.train(config, name=name, root=folder, show=tell, should_stop=should_stop, on_epoch=watch)
    except (_Pruned, TrainingError) as error:
        if not place.is_dir() or isinstance(error.__cause__, OSError):
            raise  # the fault is in the input or the disk, and the next trial would meet it too
        pruned = isinstance(error, _Pruned)
        why = "pruned, worse than the median of those before it" if pruned else f"failed, {error}"
        show(f"trial {trial.number}: {why}")
        study.tell(trial, None, pruned=pruned)
        drop_states(place / "weights")
        return True
    if isinstance(result, TrainResult):
        study.tell(trial, result.best_fitness)
    return isinstance(result, TrainResult)


def _write_best(trials: list[TrialResult], folder: Path, recipe: TrainConfig) -> Path | None:
    """Write the best recipe, if there is one, as a small diff over the defaults for `deepfer train --config`."""
    if not trials or trials[0].state != "complete":
        return None
    best = trials[0]
    chosen = recipe.model_copy(update=best.params)
    changed = chosen.model_dump(mode="json", exclude_defaults=True, exclude={"data"})
    head = (
        f"# Trial {best.trial} of {len(trials)} in {folder.name}: {recipe.fitness} {best.value:.4f} on val. The best "
        "of many trials looks\n# better than it is: train it again with other seeds, and measure it on test once.\n"
    )
    write_atomic(folder / BEST, head + yaml.safe_dump(changed, sort_keys=False))
    return folder / BEST


def words(params: Mapping[str, JsonValue]) -> str:
    """``lr0=0.0123 mixup=0.2``."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )
