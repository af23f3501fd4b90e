"""How often the gate is wrong: its rules on simulated pairs of models, at FER2013's size.

    python tests/benchmarks/gate_power.py [--runs 1000] [--n 3589]

Prints, for several discordances (the share of images on which one model alone is right), how often equal models pass
the superiority rule (may be 5 % at most), how often a true drop of twice the margin is promoted (5 % at most) and exits
3 (80 % at least), and how often an equal model passes non-inferiority. Uses the product's own resampling, intervals and
rules.
"""

from __future__ import annotations

import argparse

import numpy as np

from deepfer_yolo.config import GateConfig
from deepfer_yolo.evaluate.gate.rules import non_inferiority, superiority
from deepfer_yolo.evaluate.intervals import Units, clopper_pearson, percentiles, resample
from deepfer_yolo.evaluate.paired import decision_interval

SHARES = np.array([467, 56, 496, 895, 607, 653, 415]) / 3589
"""Class shares of FER2013's PublicTest."""


def verdicts(rng: np.random.Generator, n: int, d: float, discordance: float, replicates: int) -> tuple[str, str]:
    """The verdicts of non-inferiority and of superiority on one simulated test set with true difference `d`."""
    targets = np.sort(rng.choice(7, n, p=SHARES))
    won, lost = (discordance + d) / 2, (discordance - d) / 2
    outcome = rng.choice([1.0, -1.0, 0.0], n, p=[won, lost, 1 - won - lost])
    differences, images = resample([outcome, np.ones(n)], Units(targets), replicates, int(rng.integers(2**31)))
    bootstrap = percentiles(differences / images)
    found = decision_interval(int((outcome > 0).sum()), int((outcome < 0).sum()), n, bootstrap)
    return non_inferiority(found, GateConfig().margin).verdict, superiority(found).verdict


def rate(hits: int, runs: int) -> str:
    """A rate with its exact 95 % interval."""
    low, high = clopper_pearson(hits, runs)
    return f"{hits / runs:6.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--n", type=int, default=3589)
    parser.add_argument("--replicates", type=int, default=400)
    words = parser.parse_args()
    margin = GateConfig().margin
    print(
        f"n = {words.n}, {words.runs} runs a cell, margin {margin:.0%}, {words.replicates} replicates, seed 1; "
        "rates with exact 95 % intervals"
    )
    for discordance in (0.05, 0.10, 0.15, 0.20):
        rng = np.random.default_rng(1)
        equal = [verdicts(rng, words.n, 0.0, discordance, words.replicates) for _ in range(words.runs)]
        drop = [verdicts(rng, words.n, -2 * margin, discordance, words.replicates) for _ in range(words.runs)]
        print(f"discordance {discordance:.0%}", flush=True)
        print(f"  equal models: superiority promotes     {rate(sum(s == 'pass' for _, s in equal), words.runs)}")
        print(f"  equal models: non-inferiority passes   {rate(sum(v == 'pass' for v, _ in equal), words.runs)}")
        print(f"  drop of twice the margin: not promoted {rate(sum(v != 'pass' for v, _ in drop), words.runs)}")
        print(
            f"  drop of twice the margin: exit 3       {rate(sum(v == 'fail' for v, _ in drop), words.runs)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
