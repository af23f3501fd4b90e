"""Which test notices when a rule of the gate is turned round: every mutant, and the first test that kills it.

    python tests/benchmarks/gate_mutants.py

Each mutant is one replacement in the source, run in a forked process against the tests of its file. Exits 1 where one
survives.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RULES = "tests/test_evaluate/test_gate/test_rules.py"
PAIRED = "tests/test_evaluate/test_paired.py"
PROMOTION = "tests/test_evaluate/test_gate/test_promotion.py"
GATE = "tests/test_cli/test_gate.py"
FOLDERS = dict.fromkeys(("rules", "promotion", "gate"), "gate.")
MUTANTS = [
    ("rules", "if low > -margin", "if low < -margin", RULES),
    ("rules", "if high < -margin", "if high > -margin", RULES),
    ("rules", "if low > 0", "if low < 0", RULES),
    ("rules", "if high < 0", "if high > 0", RULES),
    ("rules", "if floor > span.high", "if floor < span.high", RULES),
    ("rules", "if floor > span.high", "if floor > span.low", RULES),
    ("rules", 'Ruling(rule, "inconclusive"', 'Ruling(rule, "pass"', RULES),
    ("rules", "if excess > floors.ece", "if excess < floors.ece", RULES),
    ("rules", "row.difference < 0", "row.difference > 0", RULES),
    ("rules", "row.p_holm < SIGNIFICANCE", "row.p_holm > SIGNIFICANCE", RULES),
    ("rules", "if value > limit", "if value < limit", RULES),
    ("rules", "if value > limit", "if value >= limit", RULES),
    ("rules", "found.ratio, config.max_latency_ratio", "found.ratio, config.max_size_ratio", RULES),
    ("rules", "if evidence.champion is not None and", "if evidence.champion is None and", RULES),
    ("rules", "size_mb / evidence.champion.model.size_mb", "evidence.champion.model.size_mb / size_mb", RULES),
    ("rules", '"fail" if broken', '"fail" if not broken', RULES),
    ("rules", 'if "fail" in verdicts', 'if "fail" not in verdicts', RULES),
    ("rules", 'if "inconclusive" in verdicts', 'if "inconclusive" not in verdicts', RULES),
    ("rules", " or not verdicts else", " else", RULES),
    ("rules", "if not config.floors.asks_for_accuracy:", "if config.floors.asks_for_accuracy:", RULES),
    ("rules", "if span.low > share", "if span.high > share", RULES),
    ("rules", "if span.high < share", "if span.low < share", RULES),
    ("rules", "if share == 1:", "if share == 2:", RULES),
    ("rules", "if config.superiority:", "if not config.superiority:", RULES),
    ("rules", "if config.class_drop:", "if not config.class_drop:", RULES),
    (
        "paired",
        "max(upper_bound(wins + losses, n), MIN_DISCORDANCE)",
        "min(upper_bound(wins + losses, n), MIN_DISCORDANCE)",
        PAIRED,
    ),
    ("paired", "d = (wins - losses) / n", "d = (losses - wins) / n", PAIRED),
    ("paired", "Interval(min(", "Interval(max(", PAIRED),
    ("paired", ", max(bootstrap.high", ", min(bootstrap.high", PAIRED),
    ("paired", "np.maximum.accumulate(stepped)", "np.minimum.accumulate(stepped)", PAIRED),
    ("paired", "beta_quantile(k + 1, n - k, CONFIDENCE)", "beta_quantile(k, n - k + 1, CONFIDENCE)", PAIRED),
    ("promotion", "if promote and held != decision.champion", "if promote and held == decision.champion", PROMOTION),
    ("promotion", "None if held is None else digest(held)", "None", PROMOTION),
    ("gate", "if known != judged_on:", "if known == judged_on:", GATE),
    ("gate", "if config.floors.asks_for_accuracy:", "if not config.floors.asks_for_accuracy:", GATE),
    ("gate", "scores[:1] if stand_in else scores", "scores", GATE),
    ("gate", "right[1][place[path]]", "not right[1][place[path]]", GATE),
    ("gate", 'result.verdict == "pass" and', 'result.verdict != "pass" and', GATE),
    ("gate", '"fail": EXIT_GATE_FAILED', '"fail": EXIT_INCONCLUSIVE', GATE),
    ("gate", '"inconclusive": EXIT_INCONCLUSIVE', '"inconclusive": 0', GATE),
]


class FirstFailure:
    """A pytest plugin that remembers the first failing test."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest after each phase of a test."""
        if report.failed and not self.name:
            self.name = report.nodeid


def killer(module: str, old: str, new: str, tests: str) -> str:
    """The first test that fails with the mutant in place; empty where all pass. Runs in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        mutated = importlib.import_module(f"deepfer_yolo.evaluate.{FOLDERS.get(module, '')}{module}")
        path = Path(str(mutated.__file__))
        source = path.read_text(encoding="utf-8")
        assert source.count(old) == 1, f"{path}: {old!r} stands there {source.count(old)} times"
        exec(compile(source.replace(old, new), str(path), "exec"), mutated.__dict__)
        plugin = FirstFailure()
        with contextlib.redirect_stdout(io.StringIO()):
            pytest.main([str(ROOT / tests), "-x", "-q", "-p", "no:cacheprovider"], plugins=[plugin])
        os.write(writing, plugin.name.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answer:
        name = answer.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the run of {module}: {new!r} broke off"
    return name


def main() -> None:
    """Run every mutant and print the table."""
    os.chdir(ROOT)
    survivors = 0
    for module, old, new, tests in MUTANTS:
        name = killer(module, old, new, tests)
        survivors += not name
        print(f"{module}.py: {old}  ->  {new}\n    {'killed by ' + name if name else 'SURVIVED'}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} killed")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
