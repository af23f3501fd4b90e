"""Each rule at its edges; the mutants of `rules.py` die here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.config import Floors, GateConfig
from deepfer_yolo.evaluate.gate.rules import (
    Protected,
    budget_rules,
    class_drop,
    decide,
    floor_rules,
    largest_class,
    must_not_break,
    non_inferiority,
    overall,
    superiority,
)
from deepfer_yolo.evaluate.intervals import Interval
from deepfer_yolo.evaluate.paired import ClassComparison, Latency

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.019, 0.01, "pass"),
        (0.01, 0.02, "pass"),
        (-0.02, 0.01, "inconclusive"),
        (-0.03, -0.02, "inconclusive"),
        (-0.03, 0.03, "inconclusive"),
        (-0.05, -0.021, "fail"),
    ],
)
def test_non_inferiority(decision: Build, low: float, high: float, verdict: str) -> None:
    assert non_inferiority(decision(low, high), 0.02).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.02, "pass"),
        (0.0, 0.02, "inconclusive"),
        (-0.01, 0.0, "inconclusive"),
        (-0.01, 0.01, "inconclusive"),
        (-0.02, -0.001, "fail"),
    ],
)
def test_superiority(decision: Build, low: float, high: float, verdict: str) -> None:
    assert superiority(decision(low, high)).verdict == verdict


@pytest.mark.parametrize(
    ("floors", "verdict"),
    [
        (Floors(top1=0.66), "fail"),
        (Floors(top1=0.65), "pass"),
        (Floors(top1=0.62), "pass"),
        (Floors(macro_f1=0.59), "fail"),
        (Floors(macro_f1=0.58), "pass"),
        (Floors(recall={"sad": 0.61}), "fail"),
        (Floors(recall={"sad": 0.60}), "pass"),
        (Floors(ece=0.05), "fail"),
        (Floors(ece=0.07), "pass"),
    ],
)
def test_floors_are_held_against_the_upper_end(metrics: Build, floors: Floors, verdict: str) -> None:
    rulings = floor_rules(metrics(), GateConfig(floors=floors))
    assert [ruling.verdict for ruling in rulings] == [verdict]


@pytest.mark.parametrize("label", ["sad", "happy"])
def test_recall_floor_of_a_class_without_images_is_inconclusive(metrics: Build, label: str) -> None:
    config = GateConfig(floors=Floors(recall={label: 0.1}))
    assert floor_rules(metrics(recall=np.nan), config)[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("difference", "p", "verdict"),
    [(-0.1, 0.049, "fail"), (-0.1, 0.05, "pass"), (0.1, 0.001, "pass"), (0.0, 0.001, "pass")],
)
def test_class_drop(difference: float, p: float, verdict: str) -> None:
    found = ClassComparison("sad", 40, 0.5, 0.5 - difference, difference, 0, 4, p, p)
    assert class_drop([found]).verdict == verdict


@pytest.mark.parametrize(("limit", "verdict"), [(1.49, "fail"), (1.5, "pass")])
def test_budgets(evidence: Build, limit: float, verdict: str) -> None:
    slower = Latency(1.5, 1.0, 1.5, Interval(1.4, 1.6))
    found = evidence(0.0, 0.0, size_mb=1.5, champion_mb=1.0, latency=slower)
    for key in ("max_latency_ratio", "max_size_ratio", "max_latency_ms", "max_size_mb"):
        assert [r.verdict for r in budget_rules(found, GateConfig.model_validate({key: limit}))] == [verdict], key
    assert budget_rules(found, GateConfig()) == []


def test_budgets_without_a_champion(evidence: Build) -> None:
    config = GateConfig(max_latency_ms=2, max_size_mb=10, max_latency_ratio=1, max_size_ratio=1)
    rulings = budget_rules(evidence(), config)
    assert [(r.rule, r.verdict) for r in rulings] == [("latency", "pass"), ("size", "fail")]


def test_must_not_break() -> None:
    assert must_not_break(Protected(3, (), ())).verdict == "pass"
    ruling = must_not_break(Protected(9, tuple("abcd"), tuple("abcd")))
    assert ruling.verdict == "fail"
    assert "a, b, c and 1 more" in ruling.reason


def test_one_failure_outweighs_all_and_one_open_question_outweighs_passes() -> None:
    assert overall(["pass", "inconclusive", "fail"]) == "fail"
    assert overall(["pass", "inconclusive"]) == "inconclusive"
    assert overall(["pass", "pass"]) == "pass"
    assert overall([]) == "inconclusive", "nothing was asked"


def test_every_configured_rule_is_applied_and_no_other(evidence: Build) -> None:
    full = GateConfig(
        superiority=True,
        class_drop=True,
        max_latency_ratio=2,
        max_size_ratio=2,
        max_latency_ms=2,
        max_size_mb=20,
        floors=Floors(top1=0.1, macro_f1=0.1, recall={"sad": 0.1}, ece=0.5),
    )
    verdict, rulings = decide(evidence(0.01, 0.02, protected=Protected(1, (), ())), full)
    assert verdict == "pass"
    floors = ("floor top1", "floor macro_f1", "floor recall sad", "ceiling ece")
    compared = ("non-inferiority", "superiority", "class drop")
    budgets = ("latency", "size", "latency ratio", "size ratio")
    assert [ruling.rule for ruling in rulings] == [*floors, *compared, *budgets, "must not break"]
    assert [ruling.rule for ruling in decide(evidence(0.01, 0.02), GateConfig())[1]] == ["non-inferiority"]


@pytest.mark.parametrize(
    "config", [GateConfig(superiority=True), GateConfig(floors=Floors(top1=0.9)), GateConfig(max_size_ratio=1.0)]
)
def test_any_rule_can_turn_the_verdict(evidence: Build, config: GateConfig) -> None:
    assert decide(evidence(-0.01, 0.02), GateConfig())[0] == "pass"
    assert decide(evidence(-0.01, 0.02), config)[0] != "pass"


@pytest.mark.parametrize(
    ("n_images", "verdict"),  # of which 40 are sad; top-1 lies in 55 to 65 %
    [
        (100, "pass"),
        (73, "pass"),
        (72, "inconclusive"),
        (62, "inconclusive"),
        (61, "fail"),
        (41, "fail"),
        (40, "inconclusive"),
    ],
)
def test_the_largest_class_is_what_any_answer_reaches(metrics: Build, n_images: int, verdict: str) -> None:
    ruling = largest_class(metrics(n_images=n_images))
    assert (ruling.rule, ruling.verdict) == ("better than the largest class", verdict)
    assert "sad" in ruling.reason


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        (GateConfig(), True),
        (GateConfig(floors=Floors(ece=0.5), max_size_mb=20, superiority=True, class_drop=True), True),
        (GateConfig(floors=Floors(top1=0.1)), False),
        (GateConfig(floors=Floors(macro_f1=0.1)), False),
        (GateConfig(floors=Floors(recall={"sad": 0.1})), False),
    ],
)
def test_without_a_champion_something_asks_for_accuracy(evidence: Build, config: GateConfig, asked: bool) -> None:
    verdict, rulings = decide(evidence(), config)
    assert verdict == "pass"
    assert ("better than the largest class" in [ruling.rule for ruling in rulings]) == asked
    assert "better than the largest class" not in [ruling.rule for ruling in decide(evidence(0.0, 0.1), config)[1]]


def test_without_a_champion_floors_and_budgets_speak(evidence: Build) -> None:
    assert decide(evidence(), GateConfig(floors=Floors(top1=0.9), superiority=True))[0] == "fail"
    assert decide(evidence(), GateConfig(max_size_mb=11))[0] == "fail"
