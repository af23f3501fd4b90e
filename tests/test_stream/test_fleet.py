"""The simulation of `tests/benchmarks/fleet.py` in cases that can be worked out by hand."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "fleet.py"


@pytest.fixture(scope="module")
def fleet() -> Any:
    spec = importlib.util.spec_from_file_location("fleet", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fleet"] = module
    spec.loader.exec_module(module)
    return module


def test_one_camera_waits_for_its_own_frame_alone(fleet: Any) -> None:
    found = fleet.simulate(fleet.Service(0.002, [0.010], 30.0), 1, 25.0)
    # Reading takes 25 × 2 ms of a second, and the rest of the core labels: 10 / 0.95 ms.
    assert found.labelled == pytest.approx(25, rel=0.01)
    assert found.p50_ms == pytest.approx(10 / 0.95, rel=0.01)
    assert found.core == pytest.approx(0.05 + 0.25, rel=0.02)


def test_a_full_core_takes_the_newest_of_each_in_turn(fleet: Any) -> None:
    found = fleet.simulate(fleet.Service(0.001, [0.010], 30.0), 10, 30.0)
    # 0.3 of the core reads; a turn of ten frames takes 100 / 0.7 ms, and so has each camera 7 results a second.
    assert found.labelled == pytest.approx(7, rel=0.02)
    assert 100 / 0.7 < found.p50_ms < 100 / 0.7 + 1000 / 30
    assert found.core == pytest.approx(1, rel=0.02)
    half = fleet.simulate(fleet.Service(0.001, [0.010], 30.0), 10, 30.0, share=0.5)
    assert half.labelled == pytest.approx(2, rel=0.02)


def test_reading_alone_can_be_too_much(fleet: Any) -> None:
    service = fleet.Service(0.002, [0.010], 30.0)
    assert fleet.simulate(service, 16, 30.0).p99_ms == math.inf
    best = fleet.carried(service, 30.0, 500, 2)
    assert best.p99_ms <= 500
    more = fleet.simulate(service, best.cameras + 1, 30.0)
    assert more.p99_ms > 500 or more.labelled < 2
