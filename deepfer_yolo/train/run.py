"""The one door to training: a run or a cross-validation, begun or gone on with."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deepfer_yolo.errors import ConfigError, DeepferError, TrainingError
from deepfer_yolo.files import locked
from deepfer_yolo.presets import read_yaml
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.records import Json
from deepfer_yolo.runs import CONFIG, LOCK, METRICS, create_run, release, write_metrics
from deepfer_yolo.train import nodes
from deepfer_yolo.train.crossval import CrossValidation, write_folds, write_predictions
from deepfer_yolo.train.device import check_device, is_out_of_memory, n_devices
from deepfer_yolo.train.loggers import attach_logger, prepare_logger
from deepfer_yolo.train.progress import Callbacks, Log, Progress, clock
from deepfer_yolo.train.ranks import launch
from deepfer_yolo.train.results import TrainResult, finish
from deepfer_yolo.train.splits import open_for_training
from deepfer_yolo.train.start import average_in, starting_model
from deepfer_yolo.train.trainer import FaceTrainer, Interrupted
from deepfer_yolo.train.training_run import RunState, TrainingRun, newest_state
from deepfer_yolo.yolo import RANK

LOG = "log.txt"

OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run, or a cross-validation, that a signal stopped; it can be resumed."""

    folder: Path
    is_finished: bool = False
    """It is finished after all, and the first of several processes has the result."""


def train(
    config: TrainConfig, *, name: str | None = None, root: Path = Path("runs"), show: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False, on_epoch: OnEpoch | None = None,
) -> TrainResult | CrossValidation | Stopped:  # fmt: skip
    """Train by `config`, whose `data` names a data set folder, into a new folder `root/train/<name>`; where it names
    `folds` and no single `fold`, one run a fold into `fold-<number>` there. See `Callbacks`.

    Raises DatasetError (LeakError where the start has learned held-out images), ConfigError, ModelError,
    MissingDependencyError or TrainingError, all before a folder is made where the fault is in the input.
    """
    callbacks = Callbacks(show, should_stop, on_epoch)
    config = absolute(config)
    if nodes.is_part():
        return _begin_over_nodes(config, root / "train", name, callbacks)
    _check(config, callbacks)
    begin = _begin if config.n_runs == 1 else _cross_validate
    return begin(config, root / "train", name, callbacks)


def resume(
    folder: Path, *, show: Callable[[str], None] = print, should_stop: Callable[[], bool] = lambda: False,
    on_epoch: OnEpoch | None = None,
) -> TrainResult | CrossValidation | Stopped:  # fmt: skip
    """Continue the run in `folder` from its newest whole state, or from its beginning where it was stopped before the
    first; of a cross-validation, the folds that have not finished. See `Callbacks`.

    Raises TrainingError for a run that has finished, is under way elsewhere, or whose data set has changed.
    """
    callbacks = Callbacks(show, should_stop, on_epoch)
    folder = folder.resolve()
    if nodes.is_part():
        return _continue_over_nodes(folder, callbacks)
    config = _unfinished(folder)
    _check(config, callbacks)
    return _continue(config, folder, callbacks) if config.n_runs == 1 else _each_fold(config, folder, callbacks)


def _unfinished(folder: Path) -> TrainConfig:
    """The recipe of a run that can go on."""
    if not (folder / CONFIG).is_file():
        raise TrainingError(
            f"{folder} is not a run: it has no {CONFIG}", "name the folder of a run, such as runs/train/<name>"
        )
    if (folder / METRICS).is_file():
        raise TrainingError(
            f"the run {folder} has finished; there is nothing to resume",
            f"start from it with: --model {folder}/weights/best.pt",
        )
    return recipe_of(folder)


def absolute(config: TrainConfig) -> TrainConfig:
    """The recipe with the whole paths of its files, so that a run can be resumed from anywhere; names of models stay
    names.

    Raises ConfigError where no data are named.
    """
    if config.data is None:
        raise ConfigError("no data set was named", "deepfer train DATASET")
    return config.model_copy(
        update={
            "data": str(Path(config.data).resolve()),
            "exclude": config.exclude and str(Path(config.exclude).resolve()),
            "corrections": config.corrections and str(Path(config.corrections).resolve()),
            "model": config.model and whole_path(config.model),
            "pretrained": config.pretrained and whole_path(config.pretrained),
            "soup": tuple(map(whole_path, config.soup)),
            "teacher": tuple(map(whole_path, config.teacher)),
        }
    )


def whole_path(model: str) -> str:
    """The whole path of a model file that is there; a name of a model or an architecture as it is."""
    return str(Path(model).resolve()) if Path(model).is_file() else model


def recipe_of(folder: Path) -> TrainConfig:
    """The recipe of the run in `folder`."""
    return TrainConfig.model_validate(read_yaml(folder / CONFIG))


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run's folder."""
    busy = TrainingError(f"another process is training in {folder}", "wait for it, or choose another --name")
    with locked(folder / LOCK, busy):
        release(folder)
        yield


def _check(config: TrainConfig, callbacks: Callbacks) -> None:
    """Raise for what this machine has not, and for what a search cannot use."""
    check_device(config)
    prepare_logger(config.logger)
    if callbacks.on_epoch is not None and (n_devices(config.device) > 1 or nodes.is_part()):
        where = "torchrun" if nodes.is_part() else f"--device {config.device}"
        raise ConfigError(f"{where}: a search runs each trial on one device", "name a single one")
    if config.n_runs > 1 and nodes.is_part():
        raise ConfigError("folds: over several nodes each fold is a run of its own", "fold: 1 in a --config file")
    if callbacks.on_epoch is not None and config.n_runs > 1:
        raise ConfigError(f"folds: a search runs each trial once, not {config.folds} times", "leave folds out")


def _begin(config: TrainConfig, parent: Path, name: str | None, callbacks: Callbacks) -> TrainResult | Stopped:
    """Train in a new folder `name` in `parent`."""
    run = TrainingRun.open(config)
    folder = create_run(parent.name, name, config, parent.parent).resolve()
    with lock(folder):
        log = Log(folder / LOG, callbacks.show)
        for note in run.notes:
            log(note)
        if n_devices(config.device) == 1:
            return _execute(run, folder, callbacks)
        del run  # each process reads its own
        return _in_processes(config, folder, callbacks)


def _continue(config: TrainConfig, folder: Path, callbacks: Callbacks) -> TrainResult | Stopped:
    with lock(folder):
        go_on = _in_processes if n_devices(config.device) > 1 else continue_here
        return go_on(config, folder, callbacks)


def _in_processes(config: TrainConfig, folder: Path, callbacks: Callbacks) -> TrainResult | Stopped:
    launch(folder, n_devices(config.device), config.threads, callbacks.should_stop)
    return TrainResult.read(folder) if (folder / METRICS).is_file() else Stopped(folder)


def continue_here(
    config: TrainConfig, folder: Path, callbacks: Callbacks, trainer: type[FaceTrainer] = FaceTrainer
) -> TrainResult | Stopped:
    """Go on in this process from the newest state in `folder`, or begin where there is none."""
    state = RunState.read(newest_state(folder / "weights"))
    if state is not None or RANK < 0:
        _say_where(state, folder, callbacks)
    return _execute(TrainingRun.open(config, state), folder, callbacks, trainer)


def _say_where(state: RunState | None, folder: Path, callbacks: Callbacks) -> None:
    place = "the beginning: no checkpoint had been written" if state is None else state.place
    Log(folder / LOG, callbacks.show)(f"resuming {folder} from {place}")


def _begin_over_nodes(
    config: TrainConfig, parent: Path, name: str | None, callbacks: Callbacks
) -> TrainResult | Stopped:
    """Train in a new folder `name` in `parent` of the first process, as one of several that torchrun started."""
    with nodes.joined():
        nodes.together(lambda: _check(config, callbacks))
        nodes.require_same(config.model_dump(mode="json"))
        run = nodes.together(lambda: TrainingRun.open(config))
        folder = Path(nodes.lead(lambda: str(create_run(parent.name, name, config, parent.parent).resolve())))
        for note in run.notes:
            Log(folder / LOG, callbacks.show)(note)
        return _in_step(run, folder, callbacks)


def _continue_over_nodes(folder: Path, callbacks: Callbacks) -> TrainResult | Stopped:
    """Go on with the run in a folder of the first process, whose state all others are given."""

    def recorded() -> tuple[Json, bytes | None, str]:
        return _unfinished(folder).model_dump(mode="json"), newest_state(folder / "weights"), str(folder)

    with nodes.joined():
        recipe, content, place = nodes.lead(recorded)
        config, state = TrainConfig.model_validate(recipe), RunState.read(content)
        nodes.together(lambda: _check(config, callbacks))
        run = nodes.together(lambda: TrainingRun.open(config, state))
        _say_where(state, Path(place), callbacks)
        return _in_step(run, Path(place), callbacks)


def _in_step(run: TrainingRun, folder: Path, callbacks: Callbacks) -> TrainResult | Stopped:
    """Train with the other processes, whose data set has to be the same."""
    nodes.require_same({"the data set": run.dataset.fingerprint})
    with ExitStack() as held:
        nodes.lead(lambda: held.enter_context(lock(folder)))
        result = _execute(run, folder, callbacks)
        if isinstance(result, Stopped) and not result.is_finished:
            nodes.wait_for_all()  # torchrun ends all processes as soon as one has ended: after the state is saved
        return result


def _execute(
    run: TrainingRun, folder: Path, callbacks: Callbacks, kind: type[FaceTrainer] = FaceTrainer
) -> TrainResult | Stopped:
    """Train to the end, or until a stop is asked for, and measure."""
    began = time.perf_counter()
    log = Log(folder / LOG, callbacks.show)
    trainer = kind(run, folder, callbacks.should_stop)
    for line in run.describe():
        log(line)
    progress = Progress(log)
    if RANK < 1:
        attach_logger(trainer, run.config.logger, log)
        progress.attach(trainer)
    if (on_epoch := callbacks.on_epoch) is not None:

        def judged(running: FaceTrainer) -> None:
            if running.fitness is not None:
                on_epoch(running.epoch + 1, float(running.fitness))

        trainer.add_callback("on_fit_epoch_end", judged)
    try:
        with _explained(run.config, folder):
            trainer.train()
    except Interrupted:
        log(f"stopped in epoch {trainer.epoch + 1} of {trainer.epochs}, state saved")
        return Stopped(folder)
    if RANK > 0:
        return Stopped(folder, is_finished=True)
    result = finish(trainer, progress)
    spent = clock(time.perf_counter() - began)
    log(f"best.pt, epoch {result.best_epoch}: top-1 {result.val.top1:.2%}, macro-F1 {result.val.macro_f1:.2%}, {spent}")
    log(str(result.calibration))
    return result


@contextmanager
def _explained(config: TrainConfig, folder: Path) -> Iterator[None]:
    """Turn what a machine runs out of into a TrainingError that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory with batch {config.batch} at {config.imgsz} pixels", f"use --batch {config.batch // 2}"
        ) from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise TrainingError(
            f"the disk is full: {folder}", f"free some space, then: deepfer train --resume {folder}"
        ) from error


def _cross_validate(
    config: TrainConfig, parent: Path, name: str | None, callbacks: Callbacks
) -> CrossValidation | Stopped:
    """Train every fold in a new folder `name` in `parent`."""
    # What is wrong with the input is found here, for every fold, before a folder is made.
    opened = [open_for_training(config.model_copy(update={"fold": number})) for number in range(1, config.n_runs + 1)]
    model = starting_model(config, opened[0].labels, lambda _: None)
    average_in(config, model, opened[0].labels, lambda _: None)
    folder = create_run(parent.name, name, config, parent.parent).resolve()
    try:
        return _each_fold(config, folder, callbacks)
    except DeepferError:
        if not any(folder.glob("fold-*")):
            shutil.rmtree(folder)  # the input was refused: nothing has begun
        raise


def _each_fold(config: TrainConfig, folder: Path, callbacks: Callbacks) -> CrossValidation | Stopped:
    """Train the folds that have not finished, and sum all up."""
    with lock(folder):
        write_folds(config, folder)
        results = []
        for number in range(1, config.n_runs + 1):
            fold = folder / f"fold-{number}"
            if not (fold / METRICS).is_file():
                callbacks.show(f"fold {number} of {config.n_runs}")
                done = _one_fold(config.model_copy(update={"fold": number}), fold, callbacks)
                if isinstance(done, Stopped):
                    return Stopped(folder)
            results.append(TrainResult.read(fold))
        write_predictions(config, folder)
        tests = tuple(result.test for result in results if result.test is not None)
        result = CrossValidation(folder, tests, config.group_by, config.seed)
        write_metrics(folder, result.metrics())
    return result


def _one_fold(config: TrainConfig, fold: Path, callbacks: Callbacks) -> TrainResult | Stopped:
    if (fold / CONFIG).is_file():
        return _continue(recipe_of(fold), fold, callbacks)
    if fold.is_dir():
        shutil.rmtree(fold)  # killed before it was a run
    return _begin(config, fold.parent, fold.name, callbacks)
