"""One training run from a data set folder to a measured checkpoint with its card."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo import __version__
from deepfer_yolo.config import TrainConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.errors import ConfigError, TrainingError
from deepfer_yolo.files import locked, sha256_of
from deepfer_yolo.presets import read_yaml
from deepfer_yolo.runs import CONFIG, METRICS, create_run, write_metrics
from deepfer_yolo.runtime.card import Card, InputSpec, TrainedOn, write_sidecar
from deepfer_yolo.train.decoded_split import Faces, FilePixels
from deepfer_yolo.train.device import check_device, free_memory, is_out_of_memory, use_bf16
from deepfer_yolo.train.loggers import attach_logger, prepare_logger
from deepfer_yolo.train.measure import (
    calibrate,
    card_metrics,
    confusion_of,
    logits_of,
    save_augmented,
    save_curves,
    score,
)
from deepfer_yolo.train.progress import Log, Progress, clock
from deepfer_yolo.train.ranks import check_ranks, is_asked_to_stop, launch, n_devices
from deepfer_yolo.train.splits import open_for_training, read_splits, read_test
from deepfer_yolo.train.start import (
    check_start,
    drop_states,
    newest_state,
    open_teachers,
    recall,
    remember_all,
    starting_model,
)
from deepfer_yolo.train.trainer import FaceTrainer, Interrupted, Job
from deepfer_yolo.yolo import RANK

LOG, LOCK = "log.txt", ".lock"

OnEpoch = Callable[[int, float], None]
"""Called with the number of each epoch, from 1, and its fitness; what it raises ends the run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run gave: its folder, best.pt and the figures of metrics.json."""

    folder: Path
    checkpoint: Path
    metrics: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run that a signal stopped; it can be resumed."""

    folder: Path


def train(
    config: TrainConfig, *, name: str | None = None, show: Callable[[str], None] = print, should_stop: Callable[[], bool] = lambda: False,
    root: Path = Path("runs"), command: str = "train", on_epoch: OnEpoch | None = None,
) -> Outcome | Stopped:  # fmt: skip
    """Train by `config`, whose `data` names a data set folder, into a new folder `root/<command>/<name>`.

    Raises DatasetError (LeakError where the start has learned held-out pictures), ConfigError, ModelError,
    MissingDependencyError or TrainingError, all before a folder is made where the fault is in the input.
    """
    config = absolute(config)
    if config.folds is not None and config.fold is None:
        raise ConfigError(
            f"folds: {config.folds} asks for a cross-validation, and this is a single run",
            "leave folds out, or name one fold",
        )
    check_device(config.device)
    check_ranks(config)
    prepare_logger(config.logger)
    dataset = open_for_training(config)
    notes: list[str] = []
    torch.manual_seed(config.seed)  # before the network draws its first weights
    model = starting_model(config, dataset.labels, notes.append)
    material = read_material(config, dataset)
    leaks, lines = check_start(config, dataset, material.val, model, material.teachers)
    folder = create_run(command, name, config, root).resolve()
    with lock(folder):
        log = Log(folder / LOG, show)
        for note in notes + lines:
            log(note)
        if n_devices(config.device) > 1:
            del material, model  # each process reads its own
            return _run_ranks(config, folder, should_stop, on_epoch)
        return _run(config, dataset, material, model, folder, log, should_stop, None, leaks, on_epoch)


def absolute(config: TrainConfig) -> TrainConfig:
    """The recipe with the whole paths of its files, so that a run can be resumed from anywhere; names of models stay
    names.

    Raises ConfigError where no data are named.
    """
    if config.data is None:
        raise ConfigError("no data set was named", "deepfer train DATASET")
    paths = {
        key: str(Path(value).resolve()) for key in ("data", "exclude") if (value := getattr(config, key)) is not None
    }
    models = {key: whole_path(value) for key in ("model", "pretrained") if (value := getattr(config, key)) is not None}
    return config.model_copy(update={**paths, **models, "teacher": tuple(map(whole_path, config.teacher))})


def whole_path(model: str) -> str:
    """The whole path of a model file that is there; a name of a model or an architecture as it is."""
    return str(Path(model).resolve()) if Path(model).is_file() else model


def resume(
    folder: Path,
    *,
    show: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: OnEpoch | None = None,
) -> Outcome | Stopped:
    """Continue the run in `folder` from its newest whole state, or from its beginning where it was stopped before the
    first.

    Raises TrainingError for a run that has finished, is under way elsewhere, or whose data set has changed.
    """
    folder = folder.resolve()
    if not (folder / CONFIG).is_file():
        raise TrainingError(
            f"{folder} is not a run: it has no {CONFIG}", "name the folder of a run, such as runs/train/<name>"
        )
    if (folder / METRICS).is_file():
        raise TrainingError(
            f"the run {folder} has finished; there is nothing to resume",
            f"start from it with: --model {folder}/weights/best.pt",
        )
    config = TrainConfig.model_validate(read_yaml(folder / CONFIG))
    check_device(config.device)
    check_ranks(config)
    prepare_logger(config.logger)
    with lock(folder):
        log = Log(folder / LOG, show)
        if n_devices(config.device) > 1:
            return _run_ranks(config, folder, should_stop, on_epoch)
        return _continue(config, folder, log, should_stop, on_epoch)


def work(folder: Path, trainer: type[FaceTrainer] = FaceTrainer) -> None:
    """Take part in the run in `folder` as one of several processes; only the first one says and writes anything."""
    config = TrainConfig.model_validate(read_yaml(folder / CONFIG))
    log = (
        Log(folder / LOG, lambda line: print(line, file=sys.stderr, flush=True))
        if RANK < 1
        else Log(Path(os.devnull), lambda _: None)
    )
    _continue(config, folder, log, lambda: is_asked_to_stop(folder), None, trainer)


def _run_ranks(
    config: TrainConfig, folder: Path, should_stop: Callable[[], bool], on_epoch: OnEpoch | None
) -> Outcome | Stopped:
    if on_epoch is not None:
        raise ConfigError(f"--device {config.device}: a search runs each trial on one device", "name a single one")
    launch(folder, n_devices(config.device), config.threads, should_stop)
    if not (folder / METRICS).is_file():
        return Stopped(folder)
    return Outcome(folder, folder / "weights" / "best.pt", json.loads((folder / METRICS).read_text(encoding="utf-8")))


def _continue(
    config: TrainConfig, folder: Path, log: Log, should_stop: Callable[[], bool], on_epoch: OnEpoch | None,
    trainer: type[FaceTrainer] = FaceTrainer,
) -> Outcome | Stopped:  # fmt: skip
    """Go on from the newest state in `folder`, or begin where there is none."""
    dataset = open_for_training(config)
    state = newest_state(folder / "weights")
    if state is not None and state["fingerprint"] != dataset.fingerprint:
        raise TrainingError(f"the data set {dataset.root} has changed since the run began", "start a new run")
    if state is not None or RANK < 0:
        log(f"resuming {folder} from {_place(state)}")
    torch.manual_seed(config.seed)
    start = config if state is None else config.model_copy(update={"pretrained": None})
    model = starting_model(start, dataset.labels, lambda _: None)
    material = read_material(config, dataset)
    if state is None:
        leaks, _ = check_start(config, dataset, material.val, model, material.teachers)
    else:
        leaks = recall(model, state)
    return _run(config, dataset, material, model, folder, log, should_stop, state, leaks, on_epoch, trainer)


def _place(state: dict[str, Any] | None) -> str:
    if state is None:
        return "the beginning: no checkpoint had been written"
    return (
        "its last epoch, to measure it" if state["done"] else f"epoch {state['epoch'] + 1}, batch {state['batch'] + 1}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a run learns from, decoded; read before its folder is made, so that bad input leaves no folder behind."""

    train: Faces
    val: Faces
    spec: InputSpec
    teachers: tuple[Any, ...]
    seconds: float


def read_material(config: TrainConfig, dataset: Dataset) -> Material:
    """Decode both splits and open the teachers. Raises DatasetError or ModelError where one cannot be used."""
    began = time.perf_counter()
    # The first optimiser of a process imports torch's compiler, which takes two seconds; here files are waited for
    # meanwhile.
    threading.Thread(target=importlib.import_module, args=("torch._dynamo",), daemon=True).start()
    teachers = open_teachers(config, dataset.labels)
    train_split, val_split, spec = read_splits(dataset, config)
    return Material(train_split, val_split, spec, teachers, time.perf_counter() - began)


def _run(
    config: TrainConfig, dataset: Dataset, material: Material, model: Any, folder: Path, log: Log, should_stop: Callable[[], bool],
    state: dict[str, Any] | None, leaks: dict[str, Any], on_epoch: OnEpoch | None, kind: type[FaceTrainer] = FaceTrainer,
) -> Outcome | Stopped:  # fmt: skip
    began = time.perf_counter()
    train_split, val_split, spec = material.train, material.val, material.spec
    bf16 = use_bf16(config)
    remember_all(model, material.teachers, train_split)
    job = Job(
        config,
        folder,
        dataset.labels,
        train_split,
        val_split,
        spec,
        model,
        bf16,
        state,
        dataset.fingerprint,
        material.teachers,
        leaks,
    )
    trainer = kind(job, should_stop)
    weights = sum(parameter.numel() for parameter in model.parameters())
    log(
        f"{len(train_split):,} train and {len(val_split):,} val pictures, {spec.colour}, {weights:,} parameters, {config.device}, "
        f"{'bf16' if bf16 else 'fp32'}, {config.threads} threads; read in {material.seconds:.1f} s"
    )
    if isinstance(train_split.pixels, FilePixels):
        why = (
            "as the recipe asks"
            if config.cache == "files"
            else f"since {free_memory() / 1e9:.1f} GB of free memory would not hold them"
        )
        log(f"pictures are decoded from their files for every batch, {why}")
    progress = Progress(log)
    if RANK < 1:
        attach_logger(trainer, config.logger, log)
        progress.attach(trainer)
        trainer.add_callback("on_train_start", lambda running: save_augmented(running.train_loader, folder))
    if on_epoch is not None:
        trainer.add_callback("on_fit_epoch_end", lambda running: on_epoch(running.epoch + 1, float(running.fitness)))
    try:
        trainer.train()
    except Interrupted:
        log(f"stopped in epoch {trainer.epoch + 1} of {trainer.epochs}, state saved")
        return Stopped(folder)
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
    if RANK > 0:
        return Stopped(folder)
    figures = finish(job, dataset, trainer, progress)
    val, honest = figures["val"], figures["calibration"]
    log(
        f"best.pt, epoch {figures['best_epoch']}: top-1 {val['top1']:.2%}, macro-F1 {val['macro_f1']:.2%}, {clock(time.perf_counter() - began)}"
    )
    log(
        f"temperature {honest['temperature']:.3f}: ECE {honest['ece_before']:.1%} before, {honest['ece_after']:.1%} after "
        f"(cross-fitted; {honest['ece_floor']:.1%} would be perfect at this n)"
    )
    return Outcome(folder, trainer.best, figures)


def finish(job: Job, dataset: Dataset, trainer: FaceTrainer, progress: Progress) -> dict[str, Any]:
    """Measure best.pt as it lies on the disk, write its card and metrics.json, and drop what only a resume would need."""
    logits, labels = logits_of(trainer.best, job.val, job.config.batch), job.val.labels.numpy()
    val, calibration = score(logits, labels), calibrate(logits, labels)
    figures = {
        "best_epoch": trainer.stopper.best_epoch,
        "epochs": trainer.epoch + 1,
        "val": val,
        "calibration": calibration,
        "fitness": job.config.fitness,
        "train_images": len(job.train),
        "images_per_s": float(np.median(progress.images_per_s)) if progress.images_per_s else None,
        "epoch_s": float(np.median(progress.epoch_s)) if progress.epoch_s else None,
        "parameters": sum(parameter.numel() for parameter in job.model.parameters()),
        "precision": "bf16" if job.bf16 else "fp32",
        "threads": job.config.threads,
        "learned_before": job.leaks,
    }
    if job.config.fold is not None:
        figures["test"] = tested(trainer.best, dataset, job)
    subjects = {row.path: row.subject for row in dataset.all_rows}
    card = Card(
        name=job.folder.name,
        labels=job.labels,
        input=job.spec,
        temperature=calibration["temperature"],
        trained_on=TrainedOn(name=dataset.name, fingerprint=dataset.fingerprint),
        metrics={
            "val": {
                "dataset": dataset.name,
                **card_metrics(logits, labels, calibration, [subjects[path] for path in job.val.paths]),
            }
        },
        file_sha256=sha256_of(trainer.best),
        producer={
            "deepfer": __version__,
            "ultralytics": metadata.version("ultralytics"),
            "torch": metadata.version("torch"),
        },
    )
    write_sidecar(card, trainer.best)
    save_curves(job.folder)
    write_metrics(job.folder, figures)
    drop_states(trainer.wdir)
    return figures


def tested(checkpoint: Path, dataset: Dataset, job: Job) -> dict[str, Any]:
    """What `checkpoint` gives on the part of a cross-validation that neither trained nor chose it."""
    faces = read_test(dataset, job.spec)
    logits, labels = logits_of(checkpoint, faces, job.config.batch), faces.labels.numpy()
    return {**score(logits, labels), "confusion": confusion_of(logits, labels).tolist()}


def lock(folder: Path) -> AbstractContextManager[None]:
    """Keep a second process out of a run's folder."""
    busy = TrainingError(f"another process is training in {folder}", "wait for it, or choose another --name")
    return locked(folder / LOCK, busy)
