"""Models on the same images: the difference of two, how sure it is, and what this test set could have shown at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import CompareConfig, ScoringConfig
from deepfer_yolo.data.corrected import Judged, SplitCorrections
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.data.leaks import Learned
from deepfer_yolo.errors import explained_imports, require
from deepfer_yolo.evaluate.evaluation import DataUsed, ScoredModel
from deepfer_yolo.evaluate.intervals import CONFIDENCE, UNKNOWN, Interval, Units, beta_quantile, resample
from deepfer_yolo.evaluate.metrics import NOT_SHARES, Ints, Tally, headline, tally
from deepfer_yolo.evaluate.predictions import OnProgress, Scores, common_labels, score_dataset
from deepfer_yolo.evaluate.subsets import relabelled
from deepfer_yolo.records import Crops, Json, plain, without_none
from deepfer_yolo.report.page import interval, percent
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import to_inputs

Z95 = 1.959964
"""The 97.5 % point of the normal distribution."""
MIN_DISCORDANCE = 0.02
"""Two models are never taken to disagree on fewer images than this share, whatever a small test set shows."""
DIFFERENCES = {
    "top1": "top-1 accuracy, %",
    "macro_f1": "macro F1, %",
    "balanced_accuracy": "balanced accuracy, %",
    "nll": "NLL",
    "brier": "Brier score",
}
"""The figures that are compared, as tables call them."""
LATENCY_ROUNDS, LATENCY_CALLS = 9, 20
OnModel = Callable[[str], OnProgress]
"""Called with the name of a model that is scored next; gives its progress callback."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of the challenger minus the champion's, with its 95 % interval."""

    difference: float
    interval: Interval

    def shown(self, scale: float = 100, digits: int = 1) -> list[str]:
        """Both as a table has them; shares in points, a dash for an interval that is not known."""
        if np.isnan(self.interval).any():
            return [f"{scale * self.difference:+.{digits}f}", "–"]
        value, low, high = (f"{scale * one:+.{digits}f}" for one in (self.difference, *self.interval))
        return [value, f"{low} to {high}"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate decides by: the top-1 difference `d`, and the shares of images on which one model alone is right.

    Differences below `resolution` cannot be told from none on this test set.
    """

    d: float
    d_interval: Interval
    discordance: float
    discordance_upper: float
    resolution: float


@dataclass(frozen=True, slots=True)
class ClassComparison:
    """One class: the recall of both, on how many of its `n` images one alone is right, and McNemar's exact p.

    `p_holm` is Holm's correction of it over the classes.
    """

    label: str
    n: int
    challenger: float
    champion: float
    difference: float
    wins: int
    losses: int
    p: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two models on the same `n` images: the challenger alone is right on `wins`, the champion on `losses`."""

    n: int
    wins: int
    losses: int
    mcnemar_p: float
    differences: Mapping[str, Difference]
    decision: Decision
    classes: tuple[ClassComparison, ...]
    interval_method: str

    def difference(self, metric: str) -> Difference:
        """The difference in one of DIFFERENCES."""
        return self.differences[metric]

    def to_json(self) -> Json:
        """As `gate.json` holds it: the decision stands among the other keys."""
        content = plain(self)
        decision, *last = (content.pop(name) for name in ("decision", "classes", "interval_method"))
        return {**content, **decision, "classes": last[0], "interval_method": last[1]}


def compare_pair(challenger: Scores, champion: Scores, config: ScoringConfig) -> PairedComparison:
    """The paired comparison of two models' scores on the same rows and labels.

    Raises ValueError where the rows or labels are not the same: pairing would be meaningless.
    """
    if challenger.labels != champion.labels or challenger.rows != champion.rows:
        raise ValueError("a paired comparison needs the same images and the same labels for both models")
    (a, targets), (b, _) = challenger.checked(), champion.checked()
    units = Units.of(targets, challenger.subjects)
    tallies = tally(a, targets), tally(b, targets)
    # One set of resamples for both models: that is what pairs them.
    sums = resample([*tallies[0], *tallies[1]], units, config.replicates, config.seed)
    drawn = headline(Tally(*sums[: len(sums) // 2])), headline(Tally(*sums[len(sums) // 2 :]))
    exact = headline(challenger.summed()), headline(champion.summed())
    differences = {}
    for name in DIFFERENCES:
        found, replicates = ([getattr(side, name) for side in sides] for sides in (exact, drawn))
        span = units.span(replicates[0] - replicates[1], UNKNOWN if name in NOT_SHARES else Interval(-1.0, 1.0))
        differences[name] = Difference(float(found[0] - found[1]), span)
    right_a, right_b = a.argmax(1) == targets, b.argmax(1) == targets
    wins, losses = _alone_right(right_a, right_b)
    decision = decision_interval(wins, losses, len(targets), differences["top1"].interval)
    differences["top1"] = Difference(differences["top1"].difference, decision.d_interval)
    return PairedComparison(
        n=len(targets),
        wins=wins,
        losses=losses,
        mcnemar_p=mcnemar(wins, losses),
        differences=differences,
        decision=decision,
        classes=compare_classes(right_a, right_b, targets, challenger.labels),
        interval_method=f"{CONFIDENCE:.0%}, paired bootstrap {units.method}, {config.replicates} replicates",
    )


def decision_interval(wins: int, losses: int, n: int, bootstrap: Interval) -> Decision:
    """The top-1 difference with the wider of its bootstrap interval and of a normal one.

    The normal one takes the discordance (the share of images on which one model alone is right) at its 95 % upper bound
    (Clopper-Pearson) and at MIN_DISCORDANCE at least: the variance of d is (discordance - d²) / n. Without it two equal
    models would have an interval of no width on any test set. `resolution` is that half-width.
    """
    d = (wins - losses) / n
    discordance = max(upper_bound(wins + losses, n), MIN_DISCORDANCE)
    resolution = Z95 * float(np.sqrt(max(discordance - d * d, 0.0) / n))
    wider = Interval(min(bootstrap.low, d - resolution), max(bootstrap.high, d + resolution))
    return Decision(d, wider, (wins + losses) / n, discordance, resolution)


def upper_bound(k: int, n: int) -> float:
    """The one-sided 95 % upper bound of a proportion (Clopper & Pearson 1934)."""
    return beta_quantile(k + 1, n - k, CONFIDENCE)


def mcnemar(wins: int, losses: int) -> float:
    """The exact two-sided p of McNemar's test: a binomial test on the images where one model alone is right."""
    with explained_imports():
        from scipy.special import bdtr
    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) of p values, in their own order."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, np.float64)[order] * (len(p_values) - np.arange(len(p_values)))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return [float(p) for p in corrected]


def compare_classes(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], targets: Ints, labels: Sequence[str]
) -> tuple[ClassComparison, ...]:
    """One comparison a class that occurs."""
    there = np.unique(targets).tolist()
    sides = [(right_a[targets == c], right_b[targets == c]) for c in there]
    counts = [_alone_right(a, b) for a, b in sides]
    p_values = [mcnemar(*count) for count in counts]
    return tuple(
        ClassComparison(
            labels[c], len(a), float(a.mean()), float(b.mean()), (wins - losses) / len(a), wins, losses, p, p_holm
        )
        for c, (a, b), (wins, losses), p, p_holm in zip(there, sides, counts, p_values, holm(p_values), strict=True)
    )


def _alone_right(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int]:
    return int((a & ~b).sum()), int((b & ~a).sum())


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds a single crop; the ratio is challenger to champion, which may be missing."""

    challenger_ms: float
    champion_ms: float | None = None
    ratio: float | None = None
    ratio_range: Interval | None = None

    def to_json(self) -> Json:
        """What was measured."""
        return without_none(self)


def latency(challenger: Classifier, champion: Classifier | None, dataset: Dataset, scores: Scores) -> Latency:
    """The latency of both as the median over alternating rounds of medians.

    Alternation matters: on shared machines timings drift by a factor of two within minutes.
    """
    images = list(load_images(dataset, list(scores.rows[:1])))
    sides = [(model, to_inputs(images, model.card.input)) for model in (challenger, champion) if model is not None]
    for model, crops in sides:
        _median_ms(model, crops)
    rounds = np.array([[_median_ms(model, crops) for model, crops in sides] for _ in range(LATENCY_ROUNDS)])
    of_challenger, *of_champion = rounds.T
    if not of_champion:
        return Latency(float(np.median(of_challenger)))
    ratios = of_challenger / of_champion[0]
    return Latency(
        challenger_ms=float(np.median(of_challenger)),
        champion_ms=float(np.median(of_champion)),
        ratio=float(np.median(ratios)),
        ratio_range=Interval(float(ratios.min()), float(ratios.max())),
    )


def _median_ms(model: Classifier, crops: Crops) -> float:
    times = []
    for _ in range(LATENCY_CALLS):
        start = time.perf_counter()
        model.predict(crops)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


@dataclass(frozen=True, slots=True, eq=False)
class ComparedModel:
    """One of several models; all but the first are compared with the first."""

    scored: ScoredModel
    against_first: PairedComparison | None
    latency: Latency

    def to_json(self) -> Json:
        """As `metrics.json` of `deepfer compare` holds it."""
        return {**self.scored.to_json(), **without_none({"against_first": self.against_first, "latency": self.latency})}


@dataclass(frozen=True, slots=True, eq=False)
class SideBySide:
    """What `deepfer compare` found; `original` is the same under the labels of before, where people corrected them as
    `how` says.
    """

    dataset: DataUsed
    labels: tuple[str, ...]
    models: tuple[ComparedModel, ...]
    learned_before: Learned
    how: SplitCorrections | None = None
    original: tuple[ComparedModel, ...] = ()

    def to_json(self) -> Json:
        """As `metrics.json` of `deepfer compare` holds it."""
        found = dict(plain(self))
        how, original = found.pop("how"), found.pop("original")
        return found if how is None else {**found, "corrections": {**how, "original": original}}


def compare_models(
    models: Sequence[Classifier],
    dataset: Dataset,
    config: CompareConfig,
    learned: Learned,
    on_model: OnModel,
) -> SideBySide:
    """Every model's metrics with intervals, and the paired difference of each to the first."""
    labels = common_labels([model.labels for model in models], dataset.labels, config.labels)
    judged = Judged.of(dataset, config.split)
    named = [(model.path.name, model) for model in models]
    scores = score_models(named, judged.original, config, labels, on_model)
    times = [latency(model, models[0], judged.original, scores[0]) for model in models]
    used = DataUsed.of(dataset, config.split)
    if judged.how is None:
        return SideBySide(used, labels, _compared(models, scores, times, config), learned)
    corrected = [relabelled(one, dataset) for one in scores]
    both = (_compared(models, one, times, config) for one in (corrected, scores))
    return SideBySide(used, labels, next(both), learned, judged.how, next(both))


def _compared(
    models: Sequence[Classifier], scores: Sequence[Scores], times: Sequence[Latency], config: CompareConfig
) -> tuple[ComparedModel, ...]:
    pairs = [None, *(compare_pair(one, scores[0], config) for one in scores[1:])]
    scored = (ScoredModel.of(model, one, config) for model, one in zip(models, scores, strict=True))
    return tuple(ComparedModel(*found) for found in zip(scored, pairs, times, strict=True))


def score_models(
    models: Iterable[tuple[str, Classifier]],
    dataset: Dataset,
    config: ScoringConfig,
    labels: Sequence[str],
    on_model: OnModel,
) -> list[Scores]:
    """The scores of each named model on the same images and labels."""
    require("scipy")
    return [score_dataset(model, dataset, config, on_model(name), labels=labels) for name, model in models]


MODEL_HEADER = ("model", "top-1 %", "95 % interval", "macro F1 %", "NLL", "ECE %", "ms", "MB")
PAIR_HEADER = ("against the first", "top-1", "95 % interval", "macro F1", "95 % interval", "p", "time")


def model_rows(models: Iterable[ComparedModel]) -> list[list[str]]:
    """One row a model; shares in per cent, latency of a single crop."""
    rows = []
    for one in models:
        model, metrics = one.scored.model, one.scored.metrics
        shares = [percent(metrics.top1), interval(*metrics.intervals.top1), percent(metrics.macro_f1)]
        rest = [percent(metrics.ece), f"{one.latency.challenger_ms:.2f}", f"{model.size_mb:.1f}"]
        rows.append([model.name, *shares, f"{metrics.nll:.3f}", *rest])
    return rows


def pair_rows(models: Iterable[ComparedModel]) -> list[list[str]]:
    """One row a model after the first: differences in points with intervals, McNemar's exact p, the latency ratio."""
    rows = []
    for one in models:
        if (pair := one.against_first) is not None:
            shown = [*pair.difference("top1").shown(), *pair.difference("macro_f1").shown()]
            rows.append([one.scored.model.name, *shown, f"{pair.mcnemar_p:.2g}", f"× {one.latency.ratio:.2f}"])
    return rows
