"""The gate's rules: pure functions from what was measured to a verdict each, and from verdicts to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deepfer_yolo.config import GateConfig
from deepfer_yolo.evaluate.evaluation import DataUsed, Metrics, ScoredModel
from deepfer_yolo.evaluate.intervals import WHOLE, Interval
from deepfer_yolo.evaluate.paired import ClassComparison, Decision, Latency, PairedComparison

Verdict = Literal["pass", "fail", "inconclusive"]
LabelsOf = Literal["original", "corrected"]

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Ruling:
    """One rule applied: its name, what it found, and why in a sentence."""

    rule: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Protected:
    """Of `n` images that must not break, what the challenger gets wrong, and what of that a champion had right."""

    n: int
    wrong: tuple[str, ...]
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StandIn:
    """The shipped model in the place of a champion that there is not; `refused` says why it cannot be, if so."""

    model: str
    refused: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the rules look at; `champion` is the shipped model where that stands in for one, and without either there is
    no comparison. `labels_of` says which labels, where people corrected some.
    """

    dataset: DataUsed
    labels: tuple[str, ...]
    challenger: ScoredModel
    champion: ScoredModel | None
    comparison: PairedComparison | None
    latency: Latency
    protected: Protected | None
    stand_in: StandIn | None = None
    labels_of: LabelsOf = "original"


def decide(evidence: Evidence, config: GateConfig) -> tuple[Verdict, tuple[Ruling, ...]]:
    """Every rule of `config` applied. One failure fails; else one open question leaves all inconclusive.

    Where neither a champion nor a floor asks for accuracy, the largest class does: nothing passes unasked.
    """
    rulings = floor_rules(evidence.challenger.metrics, config)
    if evidence.comparison is None:
        if not config.floors.asks_for_accuracy:
            rulings.append(largest_class(evidence.challenger.metrics))
    else:
        rulings.append(non_inferiority(evidence.comparison.decision, config.margin))
        if config.superiority:
            rulings.append(superiority(evidence.comparison.decision))
        if config.class_drop:
            rulings.append(class_drop(evidence.comparison.classes))
    rulings += budget_rules(evidence, config)
    if evidence.protected is not None:
        rulings.append(must_not_break(evidence.protected))
    return overall([ruling.verdict for ruling in rulings]), tuple(rulings)


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of several verdicts; inconclusive for none, since nothing was asked."""
    if "fail" in verdicts:
        return "fail"
    return "inconclusive" if "inconclusive" in verdicts or not verdicts else "pass"


def non_inferiority(found: Decision, margin: float) -> Ruling:
    """Pass where the whole interval of the top-1 difference lies above -margin, fail where it lies below."""
    low, high = found.d_interval
    verdict: Verdict = "pass" if low > -margin else "fail" if high < -margin else "inconclusive"
    said = {
        "pass": "not worse than allowed",
        "fail": "worse than allowed",
        "inconclusive": "this test set cannot tell",
    }[verdict]
    return Ruling("non-inferiority", verdict, f"{said}: top-1 difference {_span(found)}, margin {_points(margin)}")


def superiority(found: Decision) -> Ruling:
    """Pass where the lower end of the top-1 difference lies above 0, fail where the upper end lies below it."""
    low, high = found.d_interval
    verdict: Verdict = "pass" if low > 0 else "fail" if high < 0 else "inconclusive"
    said = {"pass": "better", "fail": "worse", "inconclusive": "not shown to be better"}[verdict]
    return Ruling("superiority", verdict, f"{said}: top-1 difference {_span(found)}")


def floor_rules(metrics: Metrics, config: GateConfig) -> list[Ruling]:
    """A floor fails above the upper end of the figure's interval; ECE, which has none, beyond its noise floor."""
    floors = config.floors
    rulings = [
        _floor(f"floor {name}", floor, getattr(metrics, name), getattr(metrics.intervals, name))
        for name, floor in floors.shares().items()
    ]
    for label, floor in floors.recall.items():
        rule = f"floor recall {label}"
        if label not in metrics.per_class or label in metrics.absent:
            rulings.append(Ruling(rule, "inconclusive", f"the split has no such image; floor {_percent(floor)}"))
        else:
            found = metrics.per_class[label]
            rulings.append(_floor(rule, floor, found.recall, found.recall_interval))
    if floors.ece is not None:
        excess = metrics.ece - metrics.ece_noise_floor
        reason = f"ECE {_percent(metrics.ece)} of which {_percent(metrics.ece_noise_floor)} is noise"
        verdict: Verdict = "fail" if excess > floors.ece else "pass"
        rulings.append(Ruling("ceiling ece", verdict, f"{reason}, limit {_percent(floors.ece)}"))
    return rulings


def _floor(rule: str, floor: float, value: float, span: Interval) -> Ruling:
    reached = f"{_percent(value)} (95 % {_percent(span.low)} to {_percent(span.high)}), floor {_percent(floor)}"
    if span == WHOLE:
        return Ruling(rule, "inconclusive", f"{reached}: too few subjects to tell")
    return Ruling(rule, "fail" if floor > span.high else "pass", reached)


def largest_class(metrics: Metrics) -> Ruling:
    """Pass where the whole interval of top-1 lies above the share of the largest class, fail where it lies below: that
    share is what the same answer to every image reaches.
    """
    rule = "better than the largest class"
    label = max(metrics.per_class, key=lambda name: metrics.per_class[name].support)
    share, span = metrics.per_class[label].support / metrics.n, metrics.intervals.top1
    if share == 1:
        return Ruling(rule, "inconclusive", f"every image is {label}: any model that always says so is right")
    verdict: Verdict = "pass" if span.low > share else "fail" if span.high < share else "inconclusive"
    reached = f"top-1 {_percent(metrics.top1)} (95 % {_percent(span.low)} to {_percent(span.high)})"
    return Ruling(rule, verdict, f"{reached}; always saying {label} reaches {_percent(share)}")


def class_drop(classes: Sequence[ClassComparison]) -> Ruling:
    """Fail where the recall of a class fell and Holm's corrected p says that it is not chance."""
    worse = [row for row in classes if row.difference < 0 and row.p_holm < SIGNIFICANCE]
    named = ", ".join(f"{row.label} {100 * row.difference:+.1f} (p {row.p_holm:.2g})" for row in worse)
    reason = f"recall fell: {named}" if worse else "no class fell beyond chance"
    return Ruling("class drop", "fail" if worse else "pass", reason)


def budget_rules(evidence: Evidence, config: GateConfig) -> list[Ruling]:
    """Latency of a single crop and file size: by themselves, and as ratios to a champion's."""
    found, size_mb = evidence.latency, evidence.challenger.model.size_mb
    budgets: list[tuple[str, float, float | None, str]] = [
        ("latency", found.challenger_ms, config.max_latency_ms, "ms"),
        ("size", size_mb, config.max_size_mb, "MB"),
    ]
    if evidence.champion is not None and found.ratio is not None:
        size_ratio = size_mb / evidence.champion.model.size_mb
        budgets += [
            ("latency ratio", found.ratio, config.max_latency_ratio, "× the champion's"),
            ("size ratio", size_ratio, config.max_size_ratio, "× the champion's"),
        ]
    return [
        Ruling(rule, "fail" if value > limit else "pass", f"{value:.2f} {unit}, limit {limit:g}")
        for rule, value, limit, unit in budgets
        if limit is not None
    ]


def must_not_break(images: Protected) -> Ruling:
    """Fail where a protected image that the champion labels rightly (or any, without a champion) is wrong now."""
    broken = images.broken
    some = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
    reason = f"broken: {some}" if broken else f"all {images.n} protected images hold"
    return Ruling("must not break", "fail" if broken else "pass", reason)


def _span(found: Decision) -> str:
    low, high = found.d_interval
    return f"{100 * found.d:+.2f} points (95 % {100 * low:+.2f} to {100 * high:+.2f})"


def _points(share: float) -> str:
    text = f"{100 * share:g}"
    return f"{text} point" if text == "1" else f"{text} points"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
