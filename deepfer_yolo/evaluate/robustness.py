"""What a model withstands and what it looks at: figures on corrupted faces, and occlusion maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.emotions import meeting
from deepfer_yolo.evaluate.corruptions import GROUPS, KINDS, SEVERITIES, corrupted, faces_of, in_chunks, kinds_named
from deepfer_yolo.evaluate.intervals import Interval, Units, resample
from deepfer_yolo.evaluate.metrics import Floats, Ints, check_scores, confusion_matrix, ece, macro_f1, reliability
from deepfer_yolo.evaluate.predictions import OnProgress, Scores, columns, counting
from deepfer_yolo.evaluate.subsets import clear_majorities, take
from deepfer_yolo.records import Crops, Image, Json, Probs, without_none
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import to_input

Predict = Callable[[Crops], Probs]
"""Probabilities (n, C) of faces, uint8 (n, 48, 48, 3)."""
Place = tuple[str, int]
"""A kind of corruption and its severity; CLEAN and 0."""
CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How answers agree with one opinion about `n` images; of several conditions, the means over them.

    `interval` is of `top1`, over images drawn again; a single severity has none.
    """

    n: int
    top1: float
    interval: Interval | None
    macro_f1: float
    ece: float

    def to_json(self) -> Json:
        """The figures, and the interval where there is one."""
        return without_none(self)


@dataclass(frozen=True, slots=True)
class Condition:
    """The figures under one condition, or the means over several: against the data set's labels, and against what most
    voters chose, on the images where that is one label; None without votes.
    """

    label: Agreement
    votes: Agreement | None = None

    def to_json(self) -> Json:
        """Against the labels, and the votes where there are any."""
        return without_none(self)


@dataclass(frozen=True, slots=True)
class Curve:
    """One kind of corruption: its group, what its levels mean, the figures at each severity, and their mean."""

    group: str
    meaning: str
    levels: tuple[float, ...]
    severities: tuple[Condition, ...]
    mean: Condition


@dataclass(frozen=True, slots=True)
class Robustness:
    """The figures on `n` images: clean at 48 pixels, the mean over each group of kinds, and each kind by its name."""

    n: int
    clean: Condition
    means: Mapping[str, Condition]
    kinds: Mapping[str, Curve]


@dataclass(frozen=True, slots=True, eq=False)
class Opinions:
    """What answers are held against: for each image the index of its label, that of what most voters chose (-1 where
    that is not one label), and who is in it (empty where nobody knows).
    """

    labels: tuple[str, ...]
    label: Ints
    votes: Ints
    subjects: Sequence[str] = ()


def sweep(
    classifier: Classifier,
    dataset: Dataset,
    scores: Scores,
    config: EvaluateConfig,
    on_progress: OnProgress | None = None,
) -> Robustness:
    """The figures on at most `config.robustness_pictures` of the scored images, drawn in proportion of the classes.

    Without mirror images: what --tta adds must not look like what a corruption takes away.
    """
    part = take(scores, drawn(scores, config.robustness_pictures, config.seed))
    faces = faces_of(list(load_images(dataset, part.rows, config.workers)))

    def predict(crops: Crops) -> Probs:
        return columns(classifier.predict_images(list(crops)), classifier.labels, part.labels)

    opinions = Opinions(part.labels, part.targets, clear_majorities(part), part.subjects)
    return withstood(predict, faces, opinions, config, on_progress)


def withstood(
    predict: Predict,
    faces: NDArray[np.uint8],
    opinions: Opinions,
    config: EvaluateConfig,
    on_progress: OnProgress | None = None,
) -> Robustness:
    """The figures of `faces` (see `faces_of`): clean, and under each severity of `config.robustness_kinds`.

    Chance in a corruption depends on its kind and severity, on `config.seed` and on the images.
    """
    names = kinds_named(config.robustness_kinds)
    advance = counting(on_progress, (1 + len(names) * SEVERITIES) * len(faces))
    known = (opinions.label, opinions.votes) if (opinions.votes >= 0).any() else (opinions.label,)
    judges = [_Judge(targets, opinions) for targets in known]

    def score(name: str, severity: int) -> None:
        parts = []
        for chunk in corrupted(faces, name, severity, config.seed) if severity else in_chunks(faces):
            parts.append(predict(np.ascontiguousarray(np.broadcast_to(chunk, (*chunk.shape[:3], 3)))))
            advance(len(chunk))
        for judge in judges:
            judge.score((name, severity), np.concatenate(parts))

    score(CLEAN, 0)
    places = {name: [(name, severity) for severity in range(1, SEVERITIES + 1)] for name in names}
    for name in names:
        for place in places[name]:
            score(*place)
    in_group = {
        group: [place for name in names if KINDS[name].group == group for place in places[name]] for group in GROUPS
    }
    averaged = {CLEAN: [(CLEAN, 0)], **{group: some for group, some in in_group.items() if some}, **places}
    columns_of = zip(*(judge.means(list(averaged.values()), config) for judge in judges), strict=True)
    means = {name: Condition(*found) for name, found in zip(averaged, columns_of, strict=True)}
    curves = {
        name: Curve(
            KINDS[name].group,
            KINDS[name].meaning,
            KINDS[name].levels,
            tuple(Condition(*(judge.mean([place]) for judge in judges)) for place in places[name]),
            means[name],
        )
        for name in names
    }
    return Robustness(len(faces), means[CLEAN], {group: means[group] for group in GROUPS if group in means}, curves)


class _Judge:
    """One opinion about the images, and how the answers under each condition agree with it."""

    def __init__(self, targets: Ints, opinions: Opinions) -> None:
        self._rows = np.flatnonzero(targets >= 0)
        self._targets, self._labels = targets[self._rows], opinions.labels
        self._subjects = [opinions.subjects[i] for i in self._rows.tolist()] if opinions.subjects else []
        self._right: dict[Place, Floats] = {}
        self._figures: dict[Place, tuple[float, float]] = {}

    def score(self, place: Place, probs: Probs) -> None:
        """Hold the answers of one condition, probabilities of all images, against the opinion."""
        checked, targets = check_scores(probs[self._rows], self._targets, self._labels)
        answers = checked.argmax(1)
        self._right[place] = (answers == targets).astype(np.float64)
        confusion = confusion_matrix(answers, targets, len(self._labels))
        self._figures[place] = (macro_f1(confusion), ece(reliability(checked, targets)))

    def mean(self, places: Sequence[Place], interval: Interval | None = None) -> Agreement:
        """The means over some conditions."""
        f1, error = np.mean([self._figures[place] for place in places], axis=0).tolist()
        return Agreement(len(self._rows), float(self._shares(places).mean()), interval, f1, error)

    def means(self, groups: Sequence[Sequence[Place]], config: EvaluateConfig) -> list[Agreement]:
        """The means over each group of conditions, with their intervals."""
        shares = [self._shares(places) for places in groups]
        units, everyone = Units.of(self._targets, self._subjects), np.arange(len(self._rows))
        *sums, n = resample([*shares, np.ones(len(everyone))], units, config.replicates, config.seed)
        spans = [units.interval(each / n, everyone) for each in sums]
        return [self.mean(places, span) for places, span in zip(groups, spans, strict=True)]

    def _shares(self, places: Sequence[Place]) -> Floats:
        """Under what share of the conditions each image is answered rightly."""
        return np.asarray(np.mean([self._right[place] for place in places], axis=0), np.float64)


def drawn(scores: Scores, count: int, seed: int) -> list[int]:
    """Rows of at most `count` images, in proportion of the classes."""
    n = len(scores.rows)
    if count >= n:
        return list(range(n))
    order = np.random.default_rng(seed).permutation(n)
    ranked = order[np.argsort(scores.targets[order], kind="stable")]
    # Every (n / count)-th of the images in class order: as many of each class as its share asks for.
    return sorted(int(i) for i in ranked[np.floor(np.arange(count) * n / count).astype(np.int64)])


GRID = 9
"""Places along each side; neighbouring patches overlap by half."""
PATCH = 0.2
"""Side of the patch as a share of the input's."""


def occlusion_map(classifier: Classifier, image: Image, label: str) -> NDArray[np.float64]:
    """How much the probability of `label` falls when a place is covered with the image's mean, float64 (GRID, GRID)."""
    shown = to_input(image, classifier.card.input)
    size = shown.shape[0]
    patch = max(1, round(PATCH * size))
    starts = np.round(np.linspace(0, size - patch, GRID)).astype(int)
    covered = np.repeat(shown[None], GRID * GRID + 1, axis=0)
    mean = shown.reshape(-1, 3).mean(0).round().astype(np.uint8)
    for place in range(GRID * GRID):
        top, left = starts[place // GRID], starts[place % GRID]
        covered[place, top : top + patch, left : left + patch] = mean
    own = meeting([label], classifier.labels)[label]
    probs = classifier.predict(covered)[:, classifier.labels.index(own)].astype(np.float64)
    drop: NDArray[np.float64] = (probs[-1] - probs[:-1]).reshape(GRID, GRID)
    return drop


def overlay(classifier: Classifier, image: Image, drop: NDArray[np.float64]) -> Image:
    """The model's input, uint8 (S, S, 3): in orange what speaks for the label, in blue what speaks against it."""
    from PIL import Image as PillowImage

    shown = to_input(image, classifier.card.input)
    size = shown.shape[0]
    scaled = drop / max(float(np.abs(drop).max()), 1e-6)
    large = PillowImage.fromarray(scaled.astype(np.float32)).resize((size, size), PillowImage.Resampling.BICUBIC)
    heat = np.clip(np.asarray(large), -1, 1)[:, :, None]
    tint = np.where(heat > 0, np.array([230.0, 110.0, 0.0]), np.array([0.0, 114.0, 200.0]))
    weight = 0.65 * np.abs(heat)
    grey = shown.mean(2, keepdims=True)
    return np.asarray(np.clip(grey * (1 - weight) + tint * weight, 0, 255), np.uint8)
