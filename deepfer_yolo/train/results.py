"""What a finished run gives: best.pt with its card, and the figures of metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self

import numpy as np

from deepfer_yolo import __version__
from deepfer_yolo.data.corrected import taught_by
from deepfer_yolo.errors import TrainingError
from deepfer_yolo.evaluate.predictions import PREDICTIONS, Scores, predictions_csv
from deepfer_yolo.files import sha256_of, write_atomic
from deepfer_yolo.records import Json, parse_json, plain
from deepfer_yolo.runs import METRICS, write_metrics
from deepfer_yolo.runtime.card import Card, write_sidecar
from deepfer_yolo.train.losses import hard_labels, judged_labels
from deepfer_yolo.train.measure import Calibration, Logits, Score, calibrate, card_metrics, logits_of, score, softmax
from deepfer_yolo.train.progress import Progress, save_curves
from deepfer_yolo.train.splits import read_held_out
from deepfer_yolo.train.trainer import FaceTrainer
from deepfer_yolo.train.training_run import drop_states
from deepfer_yolo.yolo import count_parameters


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run: its folder, and the figures of its metrics.json."""

    folder: Path
    best_epoch: int
    epochs: int
    val: Score
    calibration: Calibration
    fitness: str
    train_images: int
    images_per_s: float | None
    epoch_s: float | None
    parameters: int
    precision: str
    threads: int
    learned_before: Json
    test: Score | None = None
    """Of a fold: on the images that it neither trained on nor chose by."""
    corrections: tuple[Json, ...] = ()
    """What people corrected of the labels: file, SHA-256 and counts of each."""

    @property
    def checkpoint(self) -> Path:
        """The best epoch's network, as it is shipped."""
        return self.folder / "weights" / "best.pt"

    @property
    def best_fitness(self) -> float:
        """The figure of val that chose the epoch."""
        return self.val.macro_f1 if self.fitness == "macro_f1" else self.val.top1

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The result of the run in `folder`, which has finished."""
        try:
            figures = parse_json((folder / METRICS).read_text(encoding="utf-8"))
            figures |= {key: Score(**figures[key]) for key in ("val", "test") if key in figures}
            return cls(folder, **figures | {"calibration": Calibration(**figures["calibration"])})
        except (ValueError, TypeError, KeyError) as error:
            raise TrainingError(f"{folder / METRICS} cannot be read: {error}", "train again under a new name") from None

    def metrics(self) -> Json:
        """The figures of metrics.json."""
        figures = plain(self)
        del figures["folder"], figures["val"]["confusion"]
        for name in ("test", "corrections"):
            if not figures[name]:
                del figures[name]
        return dict(figures)

    def to_json(self) -> Json:
        """The figures, and where run and checkpoint are."""
        return {"run": str(self.folder), "checkpoint": str(self.checkpoint), **self.metrics()}


def finish(trainer: FaceTrainer, progress: Progress) -> TrainResult:
    """Measure best.pt as it lies on the disk, write its card, that of last.pt, and metrics.json, and drop what only a
    resume needs.
    """
    run, folder, batch = trainer.run, trainer.save_dir, trainer.run.config.batch
    logits, labels = logits_of(trainer.best, run.val, batch), run.val.labels.numpy()
    calibration = calibrate(logits, labels)
    test = None if run.config.fold is None else _test(trainer, calibration.temperature)
    result = TrainResult(
        folder=folder,
        best_epoch=trainer.stopper.best_epoch,
        epochs=trainer.epoch + 1,
        val=score(logits, labels),
        calibration=calibration,
        fitness=run.config.fitness,
        train_images=len(run.train),
        images_per_s=float(np.median(progress.images_per_s)) if progress.images_per_s else None,
        epoch_s=float(np.median(progress.epoch_s)) if progress.epoch_s else None,
        parameters=count_parameters(run.model),
        precision=run.precision,
        threads=run.config.threads,
        learned_before=run.leaks,
        test=test,
        corrections=tuple(one.model_dump(mode="json") for one in run.dataset.corrections),
    )
    write_sidecar(_card(trainer, trainer.best, logits, calibration), trainer.best)
    if run.config.fold is None:  # the last epoch may be the better one elsewhere, in int8 for one
        logits = logits_of(trainer.last, run.val, batch)
        write_sidecar(_card(trainer, trainer.last, logits, calibrate(logits, labels)), trainer.last)
    save_curves(folder)
    write_metrics(folder, result.metrics())
    drop_states(trainer.wdir)
    return result


def _card(trainer: FaceTrainer, checkpoint: Path, logits: Logits, calibration: Calibration) -> Card:
    """The card of a checkpoint of the run that gave these logits, (n, C), for the validation split."""
    run = trainer.run
    judged, _ = judged_labels(run.dataset.rows("val"), run.dataset, run.config.judge)
    subjects = [row.subject for row in judged]
    by = {} if run.config.judge == "label" else {"judged_by": run.config.judge}
    figures = card_metrics(logits, run.val.labels.numpy(), calibration, subjects)
    return Card(
        name=trainer.save_dir.name,
        labels=run.dataset.labels,
        input=run.spec,
        temperature=calibration.temperature,
        trained_on=taught_by(run.dataset),
        metrics={"val": {"dataset": run.dataset.name, **by, **figures}},
        file_sha256=sha256_of(checkpoint),
        producer={"deepfer": __version__} | {name: metadata.version(name) for name in ("ultralytics", "torch")},
    )


def _test(trainer: FaceTrainer, temperature: float) -> Score:
    """The score on the test images of a fold. What is said of each of them is written beside it, as the mean over the
    image and its mirror image where training mirrors: likely label errors are ranked by it. No label stands there,
    since corrected ones are not those of the data set.
    """
    run, batch = trainer.run, trainer.run.config.batch
    rows, split = run.dataset.rows("test"), read_held_out(run.dataset, "test", run.spec)
    logits = logits_of(trainer.best, split, batch)
    views = [logits] + ([logits_of(trainer.best, split, batch, mirrored=True)] if run.config.fliplr else [])
    probs = np.mean([softmax(view, temperature) for view in views], axis=0).astype(np.float32)
    said = Scores(tuple(rows), run.dataset.labels, np.array(hard_labels(rows, run.dataset), np.int64), probs)
    write_atomic(trainer.save_dir / PREDICTIONS, predictions_csv(said, with_labels=False))
    judged, truth = judged_labels(rows, run.dataset, run.config.judge)
    places = {row.path: place for place, row in enumerate(rows)}
    return score(logits[[places[row.path] for row in judged]], np.array(truth))
