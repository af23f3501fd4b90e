"""The gate's rules: pure functions from measured numbers to a verdict each, and from verdicts to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from deepfer_yolo.config import GateConfig

Verdict = Literal["pass", "fail", "inconclusive"]

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Ruling:
    """One rule applied: its name, what it found, and why in a sentence."""

    rule: str
    verdict: Verdict
    reason: str

    def as_dict(self) -> dict[str, str]:
        """The ruling as plain data."""
        return asdict(self)


def decide(measured: Mapping[str, Any], config: GateConfig) -> tuple[Verdict, list[Ruling]]:
    """Every rule of `config` applied to what `contest` measured.

    One failure fails; else one open question leaves all inconclusive.
    """
    rulings = [*floor_rules(measured["challenger"], config)]
    pair = measured.get("pair")
    if pair is not None:
        rulings.append(non_inferiority(pair, config.margin))
        if config.superiority:
            rulings.append(superiority(pair))
        if config.class_drop:
            rulings.append(class_drop(pair))
    rulings.extend(budget_rules(measured, config))
    if measured.get("must_not_break") is not None:
        rulings.append(must_not_break(measured["must_not_break"]))
    return overall([ruling.verdict for ruling in rulings]), rulings


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of several verdicts; pass for none."""
    if "fail" in verdicts:
        return "fail"
    return "inconclusive" if "inconclusive" in verdicts else "pass"


def non_inferiority(pair: Mapping[str, Any], margin: float) -> Ruling:
    """Pass where even the lower end of the top-1 difference stays above -margin, fail where even the upper end lies
    below it.
    """
    low, high = pair["d_interval"]
    verdict: Verdict = "pass" if low > -margin else "fail" if high < -margin else "inconclusive"
    said = {
        "pass": "not worse than allowed",
        "fail": "worse than allowed",
        "inconclusive": "this test set cannot tell",
    }[verdict]
    return Ruling("non-inferiority", verdict, f"{said}: top-1 difference {_span(pair)}, margin {_points(margin)}")


def superiority(pair: Mapping[str, Any]) -> Ruling:
    """Pass where the lower end of the top-1 difference lies above 0, fail where the upper end lies below it."""
    low, high = pair["d_interval"]
    verdict: Verdict = "pass" if low > 0 else "fail" if high < 0 else "inconclusive"
    said = {"pass": "better", "fail": "worse", "inconclusive": "not shown to be better"}[verdict]
    return Ruling("superiority", verdict, f"{said}: top-1 difference {_span(pair)}")


def floor_rules(challenger: Mapping[str, Any], config: GateConfig) -> list[Ruling]:
    """A floor fails where it lies above the upper end of the challenger's own interval; ECE, which has none, beyond its
    noise floor.
    """
    floors = config.floors
    wanted = [
        (f"floor {key}", value, challenger[key], challenger["intervals"][key]) for key, value in floors.shares().items()
    ]
    for label, value in floors.recall.items():
        row = challenger["per_class"].get(label)
        if row is None or row["recall"] is None:
            wanted.append((f"floor recall {label}", value, None, None))
        else:
            wanted.append((f"floor recall {label}", value, row["recall"], row["recall_interval"]))
    rulings = [_floor(*values) for values in wanted]
    if floors.ece is not None:
        excess = challenger["ece"] - challenger["ece_noise_floor"]
        reason = f"ECE {_percent(challenger['ece'])} of which {_percent(challenger['ece_noise_floor'])} is noise, limit {_percent(floors.ece)}"
        rulings.append(Ruling("ceiling ece", "fail" if excess > floors.ece else "pass", reason))
    return rulings


def _floor(rule: str, floor: float, value: float | None, interval: Sequence[float] | None) -> Ruling:
    if value is None or interval is None:
        return Ruling(rule, "inconclusive", f"the split has no such picture; floor {_percent(floor)}")
    reached = f"{_percent(value)} (95 % {_percent(interval[0])} to {_percent(interval[1])}), floor {_percent(floor)}"
    return Ruling(rule, "fail" if floor > interval[1] else "pass", reached)


def class_drop(pair: Mapping[str, Any]) -> Ruling:
    """Fail where the recall of a class fell and Holm's corrected p says that it is not chance."""
    worse = [row for row in pair["classes"] if row["difference"] < 0 and row["p_holm"] < SIGNIFICANCE]
    named = ", ".join(f"{row['label']} {100 * row['difference']:+.1f} (p {row['p_holm']:.2g})" for row in worse)
    return Ruling(
        "class drop", "fail" if worse else "pass", f"recall fell: {named}" if worse else "no class fell beyond chance"
    )


def budget_rules(measured: Mapping[str, Any], config: GateConfig) -> list[Ruling]:
    """Latency of a single crop and file size: by themselves, and where there is a champion as ratios to it, measured in
    alternation.
    """
    found, challenger, champion = measured["latency"], measured["challenger"], measured.get("champion")
    budgets = [
        ("latency", found["challenger_ms"], config.max_latency_ms, "ms"),
        ("size", challenger["size_mb"], config.max_size_mb, "MB"),
    ]
    if champion is not None:
        budgets += [
            ("latency ratio", found["ratio"], config.max_latency_ratio, "× the champion's"),
            ("size ratio", challenger["size_mb"] / champion["size_mb"], config.max_size_ratio, "× the champion's"),
        ]
    return [_budget(rule, value, limit, unit) for rule, value, limit, unit in budgets if limit is not None]


def _budget(rule: str, value: float, limit: float, unit: str) -> Ruling:
    return Ruling(rule, "fail" if value > limit else "pass", f"{value:.2f} {unit}, limit {limit:g}")


def must_not_break(pictures: Mapping[str, Any]) -> Ruling:
    """Fail where a protected picture that the champion labels rightly (or any, without a champion) is wrong now."""
    broken = pictures["broken"]
    some = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
    reason = f"broken: {some}" if broken else f"all {pictures['n']} protected pictures hold"
    return Ruling("must not break", "fail" if broken else "pass", reason)


def _span(pair: Mapping[str, Any]) -> str:
    low, high = pair["d_interval"]
    return f"{100 * pair['d']:+.2f} points (95 % {100 * low:+.2f} to {100 * high:+.2f})"


def _points(share: float) -> str:
    text = f"{100 * share:g}"
    return f"{text} point" if text == "1" else f"{text} points"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
