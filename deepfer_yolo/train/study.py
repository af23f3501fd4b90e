"""The trials of a search, in Optuna's words: in one folder's own database, for one process at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepfer_yolo.errors import TrainingError
from deepfer_yolo.recipe import Choices, Range, TuneConfig
from deepfer_yolo.records import JsonValue

if TYPE_CHECKING:
    import optuna

DATABASE = "study.db"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A trial that is complete, pruned or has failed, by the last epoch's fitness, of best.pt where it is complete."""

    trial: int
    state: str
    value: float | None
    epochs: int
    params: Mapping[str, JsonValue]


class Lost(Exception):  # noqa: N818  (no fault: the search goes on elsewhere)
    """Another worker has the trial now, since this one gave no sign of life for too long."""


class Study:
    """An Optuna study in `folder/study.db`: random at first, then TPE (Bergstra et al., 2011), with median pruning by
    epoch.

    The draws of a trial follow from the seed and the trial's number, so a search that was interrupted goes on as if it
    had not been.
    """

    def __init__(self, folder: Path, config: TuneConfig) -> None:
        self.config = config
        self.study = self._create(f"sqlite:///{folder / DATABASE}", "tune", may_exist=True)

    def _create(self, storage: object, name: str, *, may_exist: bool) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            load_if_exists=may_exist,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=self.config.startup_trials, n_warmup_steps=self.config.prune_after_epochs
            ),
        )

    @property
    def n_trials(self) -> int:
        """How many trials the search has in all."""
        return self.config.trials

    def left(self) -> optuna.trial.Trial | None:
        """The trial that an interruption left."""
        import optuna

        for left in self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            return self.drawn(left._trial_id)
        return None

    def ask(self) -> optuna.trial.Trial | None:
        """A new trial; None where other workers have all that there are."""
        return self.drawn(self.study.ask()._trial_id)

    def drawn(self, trial_id: int) -> optuna.trial.Trial:
        """The trial with every parameter: those that it lacks are drawn by its number."""
        import optuna

        number = self.study._storage.get_trial(trial_id).number
        self.study.sampler = optuna.samplers.TPESampler(
            seed=self.config.seed + number, n_startup_trials=self.config.startup_trials
        )
        trial = optuna.trial.Trial(self.study, trial_id)
        for key, span in self.config.space.items():
            _suggest(trial, key, span)
        return trial

    def slot(self, trial: optuna.trial.Trial) -> int:
        """The number that the trial has in the table and in the folder."""
        return int(trial.number)

    def alive(self, trial: optuna.trial.Trial) -> AbstractContextManager[None]:
        """Give signs of life while the trial runs, where others look for them."""
        return nullcontext()

    def report(self, trial: optuna.trial.Trial, epoch: int, fitness: float) -> bool:
        """Take one epoch's fitness; whether the trial is worth no more.

        An epoch that was reported before an interruption counts once. Raises Lost.
        """
        if epoch not in self.study.trials[trial.number].intermediate_values:
            trial.report(fitness, epoch)
        return bool(trial.should_prune())

    def tell(self, trial: optuna.trial.Trial, value: float | None, *, pruned: bool = False) -> None:
        """End a trial with its value, as pruned, or without either as failed. Raises Lost."""
        from optuna.trial import TrialState

        state = TrialState.COMPLETE if value is not None else TrialState.PRUNED if pruned else TrialState.FAIL
        self.study.tell(trial, value, state)

    def latest(self) -> Mapping[int, optuna.trial.FrozenTrial]:
        """Each trial as it stands, by its slot."""
        return {trial.number: trial for trial in self.study.trials}

    def ended(self) -> list[TrialResult]:
        """Every trial that is behind us, the best first."""
        found = [
            TrialResult(slot, trial.state.name.lower(), trial.value, len(trial.intermediate_values), trial.params)
            for slot, trial in sorted(self.latest().items())
            if trial.state.is_finished()
        ]
        return sorted(found, key=lambda trial: (trial.state != "complete", -(trial.value or 0)))


def _suggest(trial: optuna.trial.Trial, key: str, span: Range | Choices) -> None:
    if isinstance(span, Choices):
        trial.suggest_categorical(key, span.choices)
    elif isinstance(span.low, int) and isinstance(span.high, int):
        trial.suggest_int(key, span.low, span.high, log=span.log)
    else:
        trial.suggest_float(key, span.low, span.high, log=span.log)


@contextmanager
def storage_explained(place: str, hint: str, secret: str | None = None) -> Iterator[None]:
    """Turn what the study's database cannot do into a TrainingError that says how to go on, without the `secret`."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        why = str(getattr(error.__cause__ or error, "orig", None) or error).splitlines()[0]
        why = why if secret is None else why.replace(secret, "***")
        # Without the error itself where there is a secret, which a traceback would show.
        raise TrainingError(f"{place} cannot be read or written ({why})", hint) from (None if secret else error)
