"""The search of `deepfer tune`: an Optuna study in a file, whose trials are ordinary training runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from deepfer_yolo.config import Choices, Range, TrainConfig, TuneConfig
from deepfer_yolo.errors import ConfigError

if TYPE_CHECKING:
    import optuna

FIXED = frozenset({"data", "device", "threads", "seed", "fitness", "logger", "exclude", "allow_leak"})
"""Keys of the recipe that a search must not touch: another seed or another validation is luck, not a recipe."""


class Study:
    """An Optuna study in `folder/study.db`: random at first, then TPE (Bergstra et al., 2011), with median pruning by epoch.

    The draws of a trial follow from the seed and the trial's number, so a search that was interrupted goes on as if it had not been.
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
            pruner=optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=config.prune_after),
        )

    def next(self) -> optuna.trial.Trial:
        """The trial that an interruption left, else a new one."""
        import optuna

        for left in self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            return optuna.trial.Trial(self.study, left._trial_id)
        seed = self.config.seed + len(self.study.trials)
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.config.startup)
        return self.study.ask({key: _distribution(span) for key, span in self.config.space.items()})

    def report(self, trial: optuna.trial.Trial, epoch: int, fitness: float) -> bool:
        """Take one epoch's fitness; whether the trial is worth no more. An epoch that was reported before an interruption counts once."""
        known = self.study.trials[trial.number].intermediate_values
        if epoch not in known:
            trial.report(fitness, epoch)
        return bool(trial.should_prune())

    def tell(self, trial: optuna.trial.Trial, value: float | None, *, pruned: bool = False) -> None:
        """End a trial with its value, as pruned, or without either as failed."""
        import optuna

        state = optuna.trial.TrialState
        if value is not None:
            self.study.tell(trial, value)
        else:
            self.study.tell(trial, state=state.PRUNED if pruned else state.FAIL)

    def ended(self) -> int:
        """How many trials are behind us."""
        return sum(trial.state.is_finished() for trial in self.study.trials)

    def rows(self) -> list[dict[str, Any]]:
        """Every trial that has ended: number, state, value (the last epoch's where pruned), epochs and parameters; best first."""
        found = [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "epochs": len(trial.intermediate_values),
                "params": dict(trial.params),
            }
            for trial in self.study.trials
            if trial.state.is_finished()
        ]
        return sorted(found, key=lambda row: (row["state"] != "complete", -(row["value"] or 0)))


def check_space(space: Mapping[str, Range | Choices], recipe: TrainConfig) -> None:
    """Raise ConfigError that names every key of the space that is none of the recipe's, or a value that the recipe would refuse."""
    problems = [f"unknown key '{key}'" for key in space if key not in TrainConfig.model_fields]
    problems += [f"{key}: a search must not change it" for key in space if key in FIXED]
    if not space:
        problems.append("space: it is empty")
    for key, span in space.items():
        for value in () if key not in TrainConfig.model_fields else _extremes(span):
            try:
                TrainConfig.model_validate({**recipe.model_dump(), key: value})
            except ValidationError as error:
                problems += [f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {value!r}" for problem in error.errors()]
    if problems:
        raise ConfigError(f"the search space: {'; '.join(problems)}", "each key is one of the recipe's: deepfer train --help")


def _extremes(span: Range | Choices) -> Iterator[Any]:
    yield from span.choices if isinstance(span, Choices) else (span.low, span.high)


def _distribution(span: Range | Choices) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(span, Choices):
        return CategoricalDistribution(span.choices)
    if isinstance(span.low, int) and isinstance(span.high, int):
        return IntDistribution(span.low, span.high, log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)
