"""What was measured: a scored model's figures, which file and which data they are of, and a whole evaluation's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.leaks import Learned
from deepfer_yolo.evaluate.intervals import Interval, Intervals, intervals
from deepfer_yolo.evaluate.metrics import ClassScores, Metrics, measure
from deepfer_yolo.evaluate.predictions import Scores
from deepfer_yolo.evaluate.robustness import Robustness
from deepfer_yolo.evaluate.subsets import Group, Votes, vote_scores
from deepfer_yolo.records import Json, plain
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest, n_bytes


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
class Measurement:
    """Every metric of one model's scores with its 95 % interval, and the agreement with the votes where there are any."""

    metrics: Metrics
    intervals: Intervals
    interval_method: str
    votes: Votes | None

    @property
    def class_intervals(self) -> dict[str, ClassScores[Interval]]:
        """The intervals of each class by its label."""
        return dict(zip(self.metrics.labels, self.intervals.per_class, strict=True))

    def to_json(self) -> Json:
        """As `metrics.json` holds it: the intervals of a class stand beside its figures."""
        content = dict(self.metrics.to_json())
        spans = plain(self.class_intervals)
        content["per_class"] = {
            label: figures | {f"{name}_interval": span for name, span in spans[label].items()}
            for label, figures in plain(self.metrics.per_class).items()
        }
        content |= {"intervals": self.intervals.to_json(), "interval_method": self.interval_method}
        return content if self.votes is None else content | {"votes": plain(self.votes)}


def measure_scores(scores: Scores, config: ScoringConfig) -> Measurement:
    """Every metric of `scores` with its interval."""
    probs, targets = scores.checked()
    method = "bootstrap over subjects" if any(scores.subjects) else "bootstrap stratified by label"
    return Measurement(
        metrics=measure(scores.probs, scores.targets, scores.labels),
        intervals=intervals(probs, targets, config, scores.subjects),
        interval_method=f"95 %, {method}, {config.replicates} replicates",
        votes=vote_scores(scores),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ScoredModel:
    """A model file and what it reached."""

    model: ModelFile
    measured: Measurement

    @classmethod
    def of(cls, model: Classifier, scores: Scores, config: ScoringConfig) -> ScoredModel:
        """An open model and its scores."""
        return cls(ModelFile.of(model), measure_scores(scores, config))

    def to_json(self) -> Json:
        """Both side by side, as `gate.json` holds them."""
        return {**plain(self.model), **self.measured.to_json()}


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What `deepfer evaluate` found; `clean` is without the images that have a copy in train."""

    model: ModelFile
    dataset: DataUsed
    tta: str
    excluded: str | None
    learned_before: Learned | None
    measured: Measurement
    clean: Measurement | None
    groups: Mapping[str, list[Group]]
    robustness: Robustness | None

    @property
    def n_removed(self) -> int:
        """How many images `clean` leaves out."""
        return self.measured.metrics.n - self.clean.metrics.n if self.clean is not None else 0

    def to_json(self) -> Json:
        """As `metrics.json` holds it; what was not asked for is not there."""
        model = plain(self.model)
        del model["size_mb"]
        content = {
            "model": model,
            "dataset": plain(self.dataset),
            "tta": self.tta,
            "excluded": self.excluded,
            "learned_before": self.learned_before.to_json() if self.learned_before is not None else None,
            **self.measured.to_json(),
        }
        if self.clean is not None:
            content["clean"] = {**self.clean.to_json(), "n_removed": self.n_removed}
        if self.groups:
            content["groups"] = plain(self.groups)
        if self.robustness is not None:
            content["robustness"] = plain(self.robustness)
        return content
