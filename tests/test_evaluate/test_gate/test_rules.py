"""Each rule at its edges; the mutants of `rules.py` die here."""

from __future__ import annotations

from typing import Any

import pytest

from deepfer_yolo.config import Floors, GateConfig
from deepfer_yolo.evaluate.gate.rules import (
    budget_rules,
    class_drop,
    decide,
    floor_rules,
    must_not_break,
    non_inferiority,
    overall,
    superiority,
)


def pair(low: float, high: float, classes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"d": (low + high) / 2, "d_interval": [low, high], "classes": classes or []}


def challenger(**changes: Any) -> dict[str, Any]:
    row = {"precision": 0.5, "recall": 0.5, "recall_interval": [0.4, 0.6], "f1": 0.5, "support": 40}
    base = {
        "top1": 0.6,
        "macro_f1": 0.5,
        "ece": 0.10,
        "ece_noise_floor": 0.04,
        "size_mb": 12.0,
        "per_class": {"sad": row},
    }
    return base | {"intervals": {"top1": [0.55, 0.65], "macro_f1": [0.42, 0.58]}} | changes


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
def test_non_inferiority(low: float, high: float, verdict: str) -> None:
    assert non_inferiority(pair(low, high), 0.02).verdict == verdict


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
def test_superiority(low: float, high: float, verdict: str) -> None:
    assert superiority(pair(low, high)).verdict == verdict


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
def test_floors_are_held_against_the_upper_end(floors: Floors, verdict: str) -> None:
    rulings = floor_rules(challenger(), GateConfig(floors=floors))
    assert [ruling.verdict for ruling in rulings] == [verdict]


def test_recall_floor_of_a_class_without_pictures_is_inconclusive() -> None:
    empty = challenger(per_class={"sad": {"recall": None, "recall_interval": [None, None]}})
    assert floor_rules(empty, GateConfig(floors=Floors(recall={"sad": 0.1})))[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("difference", "p", "verdict"),
    [(-0.1, 0.049, "fail"), (-0.1, 0.05, "pass"), (0.1, 0.001, "pass"), (0.0, 0.001, "pass")],
)
def test_class_drop(difference: float, p: float, verdict: str) -> None:
    assert class_drop(pair(0, 0, [{"label": "sad", "difference": difference, "p_holm": p}])).verdict == verdict


@pytest.mark.parametrize(("limit", "verdict"), [(1.49, "fail"), (1.5, "pass")])
def test_budgets(limit: float, verdict: str) -> None:
    measured = {
        "latency": {"ratio": 1.5, "challenger_ms": 1.5},
        "challenger": {"size_mb": 1.5},
        "champion": {"size_mb": 1.0},
    }
    for key in ("max_latency_ratio", "max_size_ratio", "max_latency_ms", "max_size_mb"):
        assert [r.verdict for r in budget_rules(measured, GateConfig.model_validate({key: limit}))] == [verdict], key
    assert budget_rules(measured, GateConfig()) == []


def test_budgets_without_a_champion() -> None:
    measured = {"latency": {"challenger_ms": 1.5}, "challenger": {"size_mb": 15.0}}
    config = GateConfig(max_latency_ms=2, max_size_mb=10, max_latency_ratio=1, max_size_ratio=1)
    assert [(r.rule, r.verdict) for r in budget_rules(measured, config)] == [("latency", "pass"), ("size", "fail")]


def test_must_not_break() -> None:
    assert must_not_break({"n": 3, "broken": []}).verdict == "pass"
    ruling = must_not_break({"n": 9, "broken": ["a", "b", "c", "d"]})
    assert ruling.verdict == "fail"
    assert "a, b, c and 1 more" in ruling.reason


def test_one_failure_outweighs_all_and_one_open_question_outweighs_passes() -> None:
    assert overall(["pass", "inconclusive", "fail"]) == "fail"
    assert overall(["pass", "inconclusive"]) == "inconclusive"
    assert overall(["pass", "pass"]) == "pass"
    assert overall([]) == "pass"


def test_every_configured_rule_is_applied_and_no_other() -> None:
    measured = {
        "challenger": challenger(),
        "champion": {"size_mb": 10.0},
        "pair": pair(0.01, 0.02),
        "latency": {"ratio": 1.0, "challenger_ms": 1.0},
        "must_not_break": {"n": 1, "broken": []},
    }
    full = GateConfig(
        superiority=True,
        class_drop=True,
        max_latency_ratio=2,
        max_size_ratio=2,
        max_latency_ms=2,
        max_size_mb=20,
        floors=Floors(top1=0.1, macro_f1=0.1, recall={"sad": 0.1}, ece=0.5),
    )
    verdict, rulings = decide(measured, full)
    assert verdict == "pass"
    names = [
        "floor top1",
        "floor macro_f1",
        "floor recall sad",
        "ceiling ece",
        "non-inferiority",
        "superiority",
        "class drop",
    ]
    assert [ruling.rule for ruling in rulings] == [
        *names,
        "latency",
        "size",
        "latency ratio",
        "size ratio",
        "must not break",
    ]
    assert [ruling.rule for ruling in decide(measured | {"must_not_break": None}, GateConfig())[1]] == [
        "non-inferiority"
    ]


@pytest.mark.parametrize(
    "config", [GateConfig(superiority=True), GateConfig(floors=Floors(top1=0.9)), GateConfig(max_size_ratio=1.0)]
)
def test_any_rule_can_turn_the_verdict(config: GateConfig) -> None:
    measured = {
        "challenger": challenger(),
        "champion": {"size_mb": 10.0},
        "pair": pair(-0.01, 0.02),
        "latency": {"ratio": 1.0, "challenger_ms": 1.0},
    }
    assert decide(measured, GateConfig())[0] == "pass"
    assert decide(measured, config)[0] != "pass"


def test_without_a_champion_floors_and_budgets_speak() -> None:
    alone = {"challenger": challenger(), "latency": {"challenger_ms": 1.0}}
    assert decide(alone, GateConfig())[0] == "pass"
    assert decide(alone, GateConfig(floors=Floors(top1=0.9), superiority=True))[0] == "fail"
    assert decide(alone, GateConfig(max_size_mb=11))[0] == "fail"
