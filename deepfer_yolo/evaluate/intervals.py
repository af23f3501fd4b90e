"""How far chance reaches: bootstrap intervals of every metric, and exact ones where the bootstrap is blind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any, NamedTuple

import numpy as np

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.errors import explained_imports
from deepfer_yolo.evaluate.metrics import (
    COVERAGES,
    NOT_SHARES,
    ClassScores,
    Floats,
    Headline,
    Ints,
    Tally,
    class_scores,
    coverage_key,
    headline,
    surest,
    tally,
)
from deepfer_yolo.records import Json, plain

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
MIN_SUBJECTS = 6
"""Of fewer, the extremes of all resamples (the worst and the best subject) hold the truth less often than 95 %."""
NEAR_THRESHOLD = 0.05
"""Share of the images on each side of a confidence threshold that count as near it."""
CARD_METRICS = ("top1", "macro_f1", "balanced_accuracy", "nll")
_CELLS = 8_000_000
"""Weights held at once while resampling: 64 MB."""


class Interval(NamedTuple):
    """Where a figure lies with 95 % confidence; NaN at both ends where it is not defined."""

    low: float
    high: float


WHOLE, UNKNOWN = Interval(0.0, 1.0), Interval(np.nan, np.nan)
"""All that a share can be, and no interval at all."""


@dataclass(frozen=True, slots=True)
class Intervals(Headline[Interval]):
    """The interval of every headline metric, of the accuracy on the surest images, and of each class in order."""

    selective_accuracy: Mapping[str, Interval]
    per_class: tuple[ClassScores[Interval], ...]

    def to_json(self) -> Json:
        """All but those of the classes, which `metrics.json` holds beside the classes' figures."""
        names = list(self.by_name())
        paired = sorted(names, key=lambda name: names.index(name.replace("weighted", "macro")))
        return {name: plain(getattr(self, name)) for name in (*paired, "selective_accuracy")}

    def of_card(self) -> dict[str, list[float]]:
        """Those that a model card has room for, where they are known."""
        known = {name: getattr(self, name) for name in CARD_METRICS}
        return {name: list(span) for name, span in known.items() if not np.isnan(span).any()}


def intervals(probs: Floats, targets: Ints, config: ScoringConfig, subjects: Sequence[str] = ()) -> Intervals:
    """95 % intervals of every metric.

    Where no resample differs (all right, all wrong) the bootstrap is blind, and the exact binomial interval stands in.
    """
    by_image = [*tally(probs, targets), selective_rows(probs, targets)]
    units = Units.of(targets, subjects)
    *drawn, kept = resample(by_image, units, config.replicates, config.seed)
    summed = Tally(*drawn)
    found, classes = headline(summed), class_scores(summed.labels, summed.answers, summed.right)
    sure = kept / summed.n[:, None]
    everyone = np.arange(len(targets))
    spans: Any = {
        name: units.interval(values, everyone, is_share=name not in NOT_SHARES)
        for name, values in found.by_name().items()
    }
    return Intervals(
        **spans,
        selective_accuracy={
            coverage_key(share): units.interval(values, surest(probs, share))
            for share, values in zip(COVERAGES, sure.T, strict=True)
        },
        per_class=tuple(
            ClassScores(
                *(
                    units.interval(values[:, c], np.flatnonzero(targets == c))
                    for values in (classes.precision, classes.recall, classes.f1)
                )
            )
            for c in range(probs.shape[1])
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What is drawn again: images within each stratum, or, where `clusters` (n,) are known, whole ones (subjects)."""

    strata: Ints
    clusters: Ints | None = None

    @classmethod
    def of(cls, targets: Ints, subjects: Sequence[str]) -> Units:
        """Images within each label; where any has a subject, the subjects."""
        return cls(targets, cluster_ids(subjects))

    @property
    def n_clusters(self) -> int | None:
        """How many clusters there are; None where images are drawn."""
        return None if self.clusters is None else int(self.clusters.max()) + 1

    @property
    def too_few(self) -> bool:
        """Whether there are fewer clusters than an interval of 95 % can be had from."""
        return self.n_clusters is not None and self.n_clusters < MIN_SUBJECTS

    @property
    def method(self) -> str:
        """How the images are drawn again, in words."""
        if self.n_clusters is None:
            return "stratified by label"
        reason = f", too few to say how far chance reaches ({MIN_SUBJECTS} at least)" if self.too_few else ""
        return f"over {self.n_clusters} subject{'s' * (self.n_clusters != 1)}{reason}"

    @property
    def beyond(self) -> float:
        """The share of the replicates beyond each end of an interval.

        Few clusters, or a few large ones, know less of the spread between them than many: t instead of the normal
        distribution, with the degrees of freedom of as many clusters of one size (Kish 1965; Hesterberg 2015, 5.3).
        """
        if self.clusters is None:
            return TAIL
        with explained_imports():
            from scipy.special import ndtr, stdtrit
        sizes = np.bincount(self.clusters).astype(np.float64)
        n_effective = float(sizes.sum() ** 2 / (sizes**2).sum())
        return float(ndtr(stdtrit(max(n_effective - 1, 1.0), TAIL)))

    def span(self, values: Floats, whole: Interval) -> Interval:
        """The interval of a figure from its replicates; `whole`, all that it can be, of too few clusters."""
        return whole if self.too_few else percentiles(values, self.beyond)

    def interval(self, values: Floats, rows: Ints, *, is_share: bool = True) -> Interval:
        """The interval of one figure of the images `rows` from its replicates; exact where no resample differs.

        Of clusters that are all right, one counts as one: what its images have in common is not known from there.
        """
        if is_share:  # what was summed in another order may end in 1.0000000000000002, what was linearised beyond
            values = np.clip(np.round(values, 12), 0, 1)
        low, high = self.span(values, WHOLE if is_share and len(rows) else UNKNOWN)
        if is_share and len(rows) and low == high and low in (0.0, 1.0):
            n = len(rows) if self.clusters is None else len(np.unique(self.clusters[rows]))
            return clopper_pearson(round(low * n), n)
        return Interval(low, high)


def resample(by_image: Sequence[Floats], units: Units, replicates: int, seed: int) -> list[Floats]:
    """Sums of each array (n,) or (n, k) over the same resamples of the images, (replicates,) or (replicates, k).

    Images are drawn again within each stratum, which keeps the class counts of the split; with `clusters` (n,) whole
    clusters (subjects) are drawn instead, since images of one person are not independent (Davison & Hinkley 1997, 3.8).
    """
    rng = np.random.default_rng(seed)
    rows, strata, clusters = np.column_stack(by_image), _without_singles(units.strata), units.clusters
    if clusters is None:
        sums = sum(_resample(rows[strata == stratum], replicates, rng) for stratum in np.unique(strata))
    else:
        together = np.zeros((int(clusters.max()) + 1, rows.shape[1]))
        np.add.at(together, clusters, rows)
        sums = _resample(together, replicates, rng)
    widths = [1 if array.ndim == 1 else array.shape[1] for array in by_image]
    parts = np.split(np.asarray(sums, np.float64), np.cumsum(widths)[:-1], axis=1)
    return [part[:, 0] if array.ndim == 1 else part for part, array in zip(parts, by_image, strict=True)]


def _without_singles(strata: Ints) -> Ints:
    """Strata of one image, which would never vary, joined to one another, or a lone one to the smallest of the rest."""
    names, places, counts = np.unique(strata, return_inverse=True, return_counts=True)
    singles = np.flatnonzero(counts == 1)
    if not len(singles) or len(names) == 1:
        return strata
    joined = singles if len(singles) > 1 else np.argsort(counts, kind="stable")[:2]
    return np.where(np.isin(places, joined), joined[0], places)


def _resample(rows: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Sums over resamples of all rows, (replicates, k).

    Draws n - 1 of n and rescales (Rao and Wu 1988): plain resampling makes the intervals of small classes too short.
    """
    n = len(rows)
    m = max(1, n - 1)
    step = max(1, _CELLS // n)
    sums = []
    for start in range(0, replicates, step):
        count = min(step, replicates - start)
        drawn = rng.integers(0, n, (count, m), dtype=np.int64) + n * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        sums.append((n / m) * (weights.astype(np.float64) @ rows))
    return np.concatenate(sums)


def percentiles(replicates: Floats, beyond: float = TAIL) -> Interval:
    """The percentile interval of one figure over its replicates (r,), those that are NaN left out."""
    known = replicates[~np.isnan(replicates)]
    return Interval(*np.quantile(known, [beyond, 1 - beyond]).tolist()) if len(known) else Interval(np.nan, np.nan)


def selective_rows(probs: Floats, targets: Ints) -> Floats:
    """What the accuracy on the surest images is the mean of, for each of COVERAGES, float64 (n, 4).

    A resample has a threshold of its own. Its effect is linearised: an image more above the old threshold pushes one
    out that is right as often as those near it (the influence function of a trimmed mean, Huber 1981, 3.3). Without
    that term 93 % are covered where 95 belong.
    """
    n = len(targets)
    right = (probs.argmax(1) == targets).astype(np.float64)
    order = surest(probs, 1.0)
    columns = []
    for share in COVERAGES:
        cut, reach = len(surest(probs, share)), max(1, round(NEAR_THRESHOLD * n))
        near = right[order[max(0, cut - reach) : cut + reach]].mean()
        kept = np.zeros(n)
        kept[order[:cut]] = 1
        columns.append(near + kept * (right - near) * n / cut)
    return np.stack(columns, axis=1)


def cluster_ids(subjects: Sequence[str]) -> Ints | None:
    """Subjects as integers 0, 1, …, each image without one a subject of its own; None where no image has one."""
    if not any(subjects):
        return None
    names = [subject or f"\0{i}" for i, subject in enumerate(subjects)]
    return np.asarray(np.unique(names, return_inverse=True)[1], np.int64)


def clopper_pearson(k: int, n: int) -> Interval:
    """The exact two-sided interval of a proportion (Clopper & Pearson 1934)."""
    return Interval(beta_quantile(k, n - k + 1, TAIL), beta_quantile(k + 1, n - k, 1 - TAIL))


def at_least(k: int, n: int) -> float:
    """The lower end of `clopper_pearson`, by numpy alone: parity is proven where SciPy is not installed."""
    misses = np.arange(n - k + 1)
    ways = np.array([lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) for i in misses.tolist()])
    low, high = 0.0, k / n
    while high - low > 1e-9:
        share = (low + high) / 2
        as_many = np.exp(ways + misses * np.log1p(-share) + (n - misses) * np.log(share)).sum()
        low, high = (low, share) if as_many > TAIL else (share, high)
    return low


def beta_quantile(a: float, b: float, share: float) -> float:
    """The quantile of a beta distribution; its limits 0 for a = 0 and 1 for b = 0."""
    with explained_imports():
        from scipy.special import betaincinv
    return float(betaincinv(a, b, share)) if a and b else float(b == 0)
