"""A model on a data set: which file and which images, every metric with its interval, and a whole evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.config import EvaluateConfig, ScoringConfig
from deepfer_yolo.data.corrected import Judged, SplitCorrections
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.duplicates import copies_in_train
from deepfer_yolo.data.leaks import Learned
from deepfer_yolo.data.shards import Answers
from deepfer_yolo.errors import ConfigError, require
from deepfer_yolo.evaluate.answers import AnswersFile, read_answers
from deepfer_yolo.evaluate.corruptions import kinds_named
from deepfer_yolo.evaluate.intervals import UNKNOWN, Interval, Intervals, Units, intervals
from deepfer_yolo.evaluate.metrics import (
    N_BINS,
    ClassScores,
    Floats,
    Headline,
    Ints,
    Reliability,
    class_scores,
    confusion_matrix,
    coverage_key,
    ece,
    headline,
    noise_floor,
    reliability,
    selective_accuracy,
)
from deepfer_yolo.evaluate.predictions import OnProgress, Scores, score_dataset
from deepfer_yolo.evaluate.robustness import Robustness, sweep
from deepfer_yolo.evaluate.subsets import Group, Votes, by_column, check_column, relabelled, vote_scores, without
from deepfer_yolo.records import Json, plain, without_none
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest, n_bytes


@dataclass(frozen=True, slots=True)
class ClassMetrics(ClassScores[float]):
    """One class of a split with its `support` images; without any, recall and F1 are NaN."""

    support: int
    precision_interval: Interval
    recall_interval: Interval
    f1_interval: Interval


@dataclass(frozen=True, slots=True, eq=False)
class Metrics(Headline[float]):
    """Every metric of one model on one split of `n` images, as `metrics.json` holds them; shares lie in 0..1.

    Rows of `confusion` (C, C) are the labels, columns the answers; `absent` are the labels without an image.
    """

    n: int
    ece: float
    ece_noise_floor: float
    ece_bins: int
    selective_accuracy: Mapping[str, float]
    per_class: Mapping[str, ClassMetrics]
    confusion: Ints
    confusion_normalised: Floats
    labels: tuple[str, ...]
    absent: tuple[str, ...]
    reliability: Reliability | None
    intervals: Intervals
    interval_method: str
    votes: Votes | None
    not_measured: tuple[str, ...] = ()
    """What labels without probabilities do not say; NaN, and no reliability."""

    def to_json(self) -> Json:
        """By name, `n` first; no votes where the manifest has none, and nothing that was not measured."""
        shown = {"n": self.n} | without_none(self)
        return shown if self.not_measured else {key: value for key, value in shown.items() if key != "not_measured"}


def measure(scores: Scores, config: ScoringConfig) -> Metrics:
    """Every metric of `scores`. Raises ModelError for what is no probability, and DatasetError for no images."""
    probs, targets = scores.checked()
    units, bins = Units.of(targets, scores.subjects), reliability(probs, targets)
    spans = intervals(probs, targets, config, scores.subjects)
    summed = scores.summed()
    figures: Any = {name: float(value) for name, value in headline(summed).by_name().items()}
    confusion = confusion_matrix(probs.argmax(1), targets, len(scores.labels))
    support, classes = confusion.sum(1), class_scores(summed.labels, summed.answers, summed.right)
    per_class = {}
    for c, (label, span) in enumerate(zip(scores.labels, spans.per_class, strict=True)):
        found = (float(values[c]) for values in (classes.precision, classes.recall, classes.f1))
        precision, recall, f1 = found if support[c] else (0.0, np.nan, np.nan)
        per_class[label] = ClassMetrics(precision, recall, f1, int(support[c]), span.precision, span.recall, span.f1)
    metrics = Metrics(
        **figures,
        n=len(targets),
        ece=ece(bins),
        ece_noise_floor=noise_floor(probs),
        ece_bins=N_BINS,
        selective_accuracy={coverage_key(share): value for share, value in selective_accuracy(probs, targets).items()},
        per_class=per_class,
        confusion=confusion,
        confusion_normalised=confusion / support.clip(1)[:, None],
        labels=scores.labels,
        absent=tuple(scores.labels[c] for c in np.flatnonzero(support == 0)),
        reliability=bins,
        intervals=spans,
        interval_method=f"95 %, bootstrap {units.method}, {config.replicates} replicates",
        votes=vote_scores(scores),
    )
    return metrics if scores.has_probs else _of_labels_alone(metrics)


NEEDS_PROBABILITIES = ("top2", "top5", "nll", "brier")


def _of_labels_alone(metrics: Metrics) -> Metrics:
    """`metrics` without what needs probabilities."""
    spans: Any = dict.fromkeys(NEEDS_PROBABILITIES, UNKNOWN)
    figures: Any = dict.fromkeys((*NEEDS_PROBABILITIES, "ece", "ece_noise_floor"), np.nan)
    return replace(
        metrics,
        **figures,
        selective_accuracy={},
        reliability=None,
        intervals=replace(metrics.intervals, **spans, selective_accuracy={}),
        votes=None if metrics.votes is None else replace(metrics.votes, cross_entropy=np.nan),
        not_measured=(*figures, "selective_accuracy", "reliability"),
    )


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Which file a model is, and what runs it."""

    name: str
    path: Path
    sha256: str
    size_mb: float
    provider: str

    @classmethod
    def of(cls, model: Classifier) -> ModelFile:
        """The file behind an open model."""
        size_mb = n_bytes(model.path) / 1e6
        return cls(model.card.name, model.path, digest(model.path), size_mb, model.provider)


@dataclass(frozen=True, slots=True)
class DataUsed:
    """Which split of which data set was scored."""

    name: str
    path: Path
    fingerprint: str
    split: str

    @classmethod
    def of(cls, dataset: Dataset, split: str) -> DataUsed:
        """One split of an open data set."""
        return cls(dataset.name, dataset.root, dataset.fingerprint, split)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredModel:
    """A model file and what it reached."""

    model: ModelFile
    metrics: Metrics

    @classmethod
    def of(cls, model: Classifier, scores: Scores, config: ScoringConfig) -> ScoredModel:
        """An open model, measured by its scores."""
        return cls(ModelFile.of(model), measure(scores, config))

    def to_json(self) -> Json:
        """Both side by side, as `gate.json` holds them."""
        return {**plain(self.model), **self.metrics.to_json()}


@dataclass(frozen=True, slots=True, eq=False)
class OriginalLabels:
    """How the labels of the split were corrected, and the figures under those of before."""

    how: SplitCorrections
    fingerprint: str
    metrics: Metrics

    def to_json(self) -> Json:
        """As `metrics.json` holds it."""
        return {**self.how.to_json(), "original": {"fingerprint": self.fingerprint, **self.metrics.to_json()}}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What `deepfer evaluate` found, of a model or of the answers in files; `clean` is without the images that have a
    copy in train.
    """

    model: ModelFile | None
    dataset: DataUsed
    scores: Scores
    tta: str
    excluded: str | None
    learned_before: Learned | None
    metrics: Metrics
    clean: Metrics | None
    groups: Mapping[str, list[Group]]
    robustness: Robustness | None
    answers: tuple[AnswersFile, ...] = ()
    corrections: OriginalLabels | None = None
    uncorrected: Scores | None = None
    """Where the split was corrected: `scores` under the manifest's own labels, with the images that were left out."""

    @property
    def name(self) -> str:
        """The model's name, or those of the files of answers."""
        return self.model.name if self.model is not None else ", ".join(file.path.name for file in self.answers)

    @property
    def n_removed(self) -> int:
        """How many images `clean` leaves out."""
        return self.metrics.n - self.clean.n if self.clean is not None else 0

    def to_json(self) -> Json:
        """As `metrics.json` holds it; what was not asked for is not there."""
        clean = {**self.clean.to_json(), "n_removed": self.n_removed} if self.clean is not None else None
        judged: Json = {"answers": plain(self.answers)}
        if self.model is not None:
            judged = {"model": {name: value for name, value in plain(self.model).items() if name != "size_mb"}}
        conditions = {"tta": self.tta, "excluded": self.excluded, "learned_before": self.learned_before}
        extras = {
            "corrections": self.corrections,
            "clean": clean,
            "groups": self.groups or None,
            "robustness": self.robustness,
        }
        return {
            **judged,
            "dataset": plain(self.dataset),
            **plain(conditions),
            **self.metrics.to_json(),
            **without_none(extras),
        }


def evaluate(
    classifier: Classifier,
    dataset: Dataset,
    config: EvaluateConfig,
    learned: Learned | None = None,
    on_progress: OnProgress | None = None,
    answers: Answers | None = None,
) -> Evaluation:
    """Score and measure. `learned` is what `check_models` found; `answers` are the model's where it has run already."""
    check_request(config)
    judged, flip = Judged.of(dataset, config.split), config.tta == "flip"
    scores = score_dataset(classifier, judged.original, config, on_progress, flip=flip, answers=answers)
    found = _measured(scores, judged, config)
    robustness = sweep(classifier, dataset, found.scores, config, on_progress) if config.robustness else None
    return replace(found, model=ModelFile.of(classifier), learned_before=learned, robustness=robustness)


def evaluate_answers(
    files: Sequence[Path], dataset: Dataset, config: EvaluateConfig, whole: Dataset | None = None
) -> Evaluation:
    """Measure the answers in `files`; see `read_answers`. Raises ConfigError for what needs a model."""
    check_request(config)
    if config.robustness or config.tta != "none":
        raise ConfigError("files of answers have no model to ask: --robustness and --tta need one", "leave them out")
    judged = Judged.of(dataset, config.split)
    scores, answers = read_answers(files, judged.original, config, whole)
    return replace(_measured(scores, judged, config), answers=answers)


def check_request(config: EvaluateConfig) -> None:
    """Raise, before any work, for what cannot be measured."""
    for column in config.by:
        check_column(column)
    kinds_named(config.robustness_kinds)
    require("scipy", "matplotlib", *(("cv2",) if config.robustness else ()))


def _measured(scores: Scores, judged: Judged, config: EvaluateConfig) -> Evaluation:
    """All that scores tell, yet without who gave them; where people corrected the split, under both labels."""
    dataset, corrections, uncorrected = judged.dataset, None, None
    if judged.how is not None:
        corrections = OriginalLabels(judged.how, judged.original.fingerprint, measure(scores, config))
        uncorrected = relabelled(scores, dataset.before or dataset)
        scores = relabelled(scores, dataset)
    clean = without(scores, copies_in_train(dataset, config.split)) if config.clean else None
    return Evaluation(
        model=None,
        dataset=DataUsed.of(dataset, config.split),
        scores=scores,
        tta=config.tta,
        excluded=config.exclude,
        learned_before=None,
        metrics=measure(scores, config),
        clean=measure(clean, config) if clean is not None else None,
        groups={column: by_column(scores, column) for column in config.by},
        robustness=None,
        corrections=corrections,
        uncorrected=uncorrected,
    )
