"""A study that several workers share, on one machine or many: each trial has one of them, and survives its death."""

from __future__ import annotations

import os
import platform
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfer_yolo.errors import ConfigError, listed, redact, require
from deepfer_yolo.files import locked, sha256_of
from deepfer_yolo.recipe import TrainConfig, TuneConfig
from deepfer_yolo.records import Json, JsonValue
from deepfer_yolo.runs import flatten
from deepfer_yolo.train.study import Lost, Study

if TYPE_CHECKING:
    import optuna
    from sqlalchemy import URL

WORKER = "worker"
"""The file in a worker's folder, and the attribute of a trial, that hold its name."""
BEATS, RETRIES = 4, 3
"""Signs of life that may be missed before a trial is begun anew, and how often it is: it may be what kills them."""
OF_A_MACHINE = {"data", "device", "threads", "cache", "logger"}
"""Keys of the recipe in which workers may differ."""
_SETTINGS, _TRIALS = "settings", "trials"
_EXAMPLES = "sqlite:////data/search.db on one machine, postgresql://USER@HOST/DATABASE on many"


def storage_url(text: str) -> URL:
    """The address of a database that workers can share, a file's path made whole.

    Raises ConfigError, which does not repeat a password, or MissingDependencyError.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None:
        raise ConfigError("--storage is not the address of a database", f"for example {_EXAMPLES}")
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        path = Path(url.database).resolve()
        if not path.parent.is_dir():
            raise ConfigError(f"--storage: there is no folder {path.parent}", f"mkdir -p {path.parent}")
        return url.set(database=str(path))
    if url.drivername in ("postgresql", "postgresql+psycopg") and url.database:
        require("psycopg")
        return url.set(drivername="postgresql+psycopg")
    kind = f"{url.drivername} {'with' if url.database else 'without'} a database's name"
    raise ConfigError(f"--storage: workers cannot share {kind}", f"for example {_EXAMPLES}")


def whole_address(text: str) -> str:
    """An address as `storage_url` reads it, with its password."""
    return storage_url(text).render_as_string(hide_password=False)


def secret_of(text: str) -> str | None:
    """The password in an address."""
    password = storage_url(text).password
    return None if password is None else str(password)


def new_name() -> str:
    """A worker's name, which no other has."""
    return f"{platform.node()}-{os.urandom(4).hex()}"


class SharedStudy(Study):
    """A study in a database; trials are asked for and ended by one worker at a time.

    A trial that is begun bears its worker's name, and a sign of life every `heartbeat_s`. One without the latter is
    begun anew by whoever asks next, under another number of Optuna's and the same slot. Raises ConfigError where the
    study was begun with other settings.
    """

    def __init__(self, worker: str, config: TuneConfig, settings: Json) -> None:
        self.worker, self.config, self.url = worker, config, storage_url(str(config.storage))
        with self._alone():
            self.storage = self._open()
            self.study = self._join(settings)

    @property
    def place(self) -> str:
        """The study's name and address, without a password."""
        return f"the search '{self.config.study}' in {redact(str(self.config.storage))}"

    @property
    def n_trials(self) -> int:
        """The largest number that any worker was given."""
        return int(self.study.user_attrs[_TRIALS])

    def _open(self) -> optuna.storages.RDBStorage:
        from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
        from sqlalchemy import NullPool

        with _unwarned():
            return RDBStorage(
                self.url.render_as_string(hide_password=False),
                # A connection for each request: hours lie between them, and none stays open.
                {"connect_args": self._connect_args(), "poolclass": NullPool},
                heartbeat_interval=self.config.heartbeat_s,
                grace_period=BEATS * self.config.heartbeat_s,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )

    def _connect_args(self) -> dict[str, Any]:
        if self.url.drivername == "sqlite":
            return {"timeout": 60}
        # The server ends a transaction, and frees its locks, whose machine has gone.
        return {"connect_timeout": 10, "options": "-c idle_in_transaction_session_timeout=60000"}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other workers from asking and telling meanwhile; a death frees it."""
        if self.url.drivername == "sqlite":
            with locked(Path(f"{self.url.database}.lock")):
                yield
            return
        from sqlalchemy import NullPool, create_engine, text

        engine = create_engine(self.url, poolclass=NullPool, connect_args=self._connect_args())
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": "deepfer tune"})
            yield

    def _join(self, settings: Json) -> optuna.Study:
        study = self._create(self.storage, self.config.study, may_exist=True)
        known = study.user_attrs
        if _TRIALS not in known:  # it is new
            study.set_user_attr(_SETTINGS, settings)
        elif differences := _differences(known[_SETTINGS], settings):
            raise ConfigError(
                f"{self.place} was begun with other settings: {listed(differences)}",
                "give the same ones, or begin another search: --study NAME",
            )
        if self.config.trials > known.get(_TRIALS, 0):
            study.set_user_attr(_TRIALS, self.config.trials)
        return study

    def left(self) -> optuna.trial.Trial | None:
        """The trial that this very worker was at, if nobody else has begun it anew."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if _worker_of(trial) == self.worker:
                self.storage.record_heartbeat(trial._trial_id)
                return self.drawn(trial._trial_id)
        return None

    def ask(self) -> optuna.trial.Trial | None:
        """A trial whose worker has died, else a new one; None where other workers have all that there are."""
        import optuna
        from optuna.trial import TrialState

        with self._alone(), _unwarned():
            optuna.storages.fail_stale_trials(self.study)
            trials = self.study.get_trials()
            # Nobody else is asking now: whoever began a trial without a name has died since.
            trial_id = next((t._trial_id for t in trials if t.state == TrialState.RUNNING and not _worker_of(t)), None)
            if trial_id is None:
                is_waiting = any(trial.state == TrialState.WAITING for trial in trials)
                if not is_waiting and len(self.latest()) >= self.n_trials:
                    return None
                trial_id = self.study.ask()._trial_id
            self.storage.record_heartbeat(trial_id)
            trial = self.drawn(trial_id)
            trial.set_user_attr(WORKER, f"{trial.number} {self.worker}")
            return trial

    def slot(self, trial: optuna.trial.Trial) -> int:
        """The place of the trial in the table, which the repetitions of a trial share."""
        firsts = sorted({_first(one) for one in self.study.trials})
        return firsts.index(_first(self.storage.get_trial(trial._trial_id)))

    def latest(self) -> Mapping[int, optuna.trial.FrozenTrial]:
        """Of each trial the last repetition."""
        last = {_first(trial): trial for trial in self.study.trials}
        return dict(enumerate(last[first] for first in sorted(last)))

    def alive(self, trial: optuna.trial.Trial) -> AbstractContextManager[None]:
        """Give signs of life from a thread of their own, which no error of the database ends."""
        return self._beating(trial._trial_id)

    @contextmanager
    def _beating(self, trial_id: int) -> Iterator[None]:
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        has_ended = threading.Event()

        def beat() -> None:
            while not has_ended.wait(self.config.heartbeat_s):
                with suppress(StorageInternalError, SQLAlchemyError):
                    self.storage.record_heartbeat(trial_id)
            self.storage.remove_session()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            has_ended.set()
            thread.join()

    def report(self, trial: optuna.trial.Trial, epoch: int, fitness: float) -> bool:
        """As a study of one's own does it."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            return super().report(trial, epoch, fitness)
        except UpdateFinishedTrialError:
            raise Lost from None

    def tell(self, trial: optuna.trial.Trial, value: float | None, *, pruned: bool = False) -> None:
        """As a study of one's own does it."""
        with self._alone():
            if self.storage.get_trial(trial._trial_id).state.is_finished():
                raise Lost
            super().tell(trial, value, pruned=pruned)


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats are experimental and usual in its own loop alone."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
        yield


def _first(trial: optuna.trial.FrozenTrial) -> int:
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    with _unwarned():
        number = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return int(trial.number if number is None else number)


def _worker_of(trial: optuna.trial.FrozenTrial) -> str | None:
    """Who runs the trial; a repetition bears a copy of the attribute, with the number of the first."""
    number, _, worker = str(trial.user_attrs.get(WORKER, "")).partition(" ")
    return worker if number == str(trial.number) else None


def settings_of(config: TuneConfig, recipe: TrainConfig, fingerprint: str) -> Json:
    """What all workers must agree on: the search, the recipe with the contents of its files, and the data set."""
    search = config.model_dump(mode="json", exclude={"storage", "study", "trials", "time"})
    return {
        "search": search,
        "recipe": {
            key: [_content(one) for one in value] if isinstance(value, list) else _content(value)
            for key, value in recipe.model_dump(mode="json", exclude=OF_A_MACHINE).items()
        },
        "data": fingerprint,
    }


def _content(value: JsonValue) -> JsonValue:
    """The hash of a file that a value names, since paths differ from machine to machine; any other value as it is."""
    return sha256_of(Path(value)) if isinstance(value, str) and value and Path(value).is_file() else value


def _differences(there: Json, here: Json) -> list[str]:
    one, two = flatten(there), flatten(here)
    keys = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
    return [f"{key.partition('.')[2] or key} ({one.get(key)} there, {two.get(key)} here)" for key in keys]
