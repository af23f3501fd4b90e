"""Do 95 % intervals cover 95 %: the product's intervals on simulated test sets whose true figures are known.

    python tests/benchmarks/interval_coverage.py [--runs 1000] [--n 3589] [--subjects 40]

A model is simulated by its logits: each class has its own mean confusion, as measured models of FER2013 have. The truth
is taken on four million images; each test set keeps the class counts of FER2013's PublicTest, scaled to n, which is
what "stratified" stands for.
"""

from __future__ import annotations

import argparse

import numpy as np

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.evaluate.intervals import clopper_pearson, intervals
from deepfer_yolo.evaluate.metrics import COVERAGES, Tally, coverage_key, headline, selective_accuracy, tally, total

COUNTS = np.array([467, 56, 496, 895, 607, 653, 415])
STRENGTH = np.array([1.9, 1.7, 1.5, 3.6, 2.2, 1.7, 3.0])
"""Mean logit of the true class: 64 % top-1."""
SPREAD = 0.7
"""Standard deviation between persons of what is added to STRENGTH."""
FIGURES = ("top1", "macro_f1", "balanced_accuracy", "nll", "brier")


def draw(rng: np.random.Generator, targets: np.ndarray, person: np.ndarray | float = 0.0) -> np.ndarray:
    """Probabilities for images of the classes `targets`, of persons who are read better by `person`."""
    strength = STRENGTH[targets] + person
    logits = 1.35 * rng.normal(size=(len(targets), 7)) + strength[:, None] * np.eye(7)[targets]
    logits[:, 5] += 0.5 * np.isin(targets, (0, 2, 4))  # sad is what most mistakes are called
    odds = np.exp(1.2 * logits)  # overconfident, as uncalibrated networks are
    return odds / odds.sum(1, keepdims=True)


TestSet = tuple[np.ndarray, np.ndarray, list[str]]


def of_images(rng: np.random.Generator, n: int) -> TestSet:
    """A test set with the class counts of PublicTest."""
    targets = np.repeat(np.arange(7), np.maximum(np.round(COUNTS * n / COUNTS.sum()).astype(int), 1))
    return draw(rng, targets), targets, []


def of_subjects(rng: np.random.Generator, n: int, count: int) -> TestSet:
    """A test set of `count` new persons, with n images about."""
    sizes = rng.lognormal(0, 1, count)
    sizes = np.maximum(np.round(n * sizes / (count * np.exp(0.5))).astype(int), 1)
    subjects = np.repeat(np.arange(count), sizes)
    targets = rng.choice(7, len(subjects), p=COUNTS / COUNTS.sum())
    probs = draw(rng, targets, SPREAD * rng.normal(size=count)[subjects])
    return probs, targets, [str(subject) for subject in subjects]


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--n", type=int, default=3589)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--subjects", type=int, default=0)
    words = parser.parse_args()

    def made(rng: np.random.Generator, n: int, count: int = words.subjects) -> TestSet:
        return of_subjects(rng, n, count) if words.subjects else of_images(rng, n)

    rng = np.random.default_rng(1)
    large = [made(rng, 400_000, 100_000)[:2] for _ in range(10)]
    parts = [total(tally(*one)) for one in large]
    summed = headline(Tally(*(np.sum([getattr(part, name) for part in parts], axis=0) for name in Tally._fields)))
    truth = {name: getattr(summed, name) for name in FIGURES}
    truth |= {f"surest {share}": np.mean([selective_accuracy(*one)[share] for one in large]) for share in COVERAGES}
    names = [*FIGURES, *(f"surest {share}" for share in COVERAGES)]
    hits, width = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    for run in range(words.runs):
        probs, targets, subjects = made(rng, words.n)
        spans = intervals(probs, targets, ScoringConfig(replicates=words.replicates, seed=run), subjects)
        found = {name: getattr(spans, name) for name in FIGURES}
        found |= {f"surest {share}": spans.selective_accuracy[coverage_key(share)] for share in COVERAGES}
        for name in names:
            low, high = found[name]
            hits[name] += low <= truth[name] <= high
            width[name] += (high - low) / words.runs
    print(
        f"n = {words.n}{f' of {words.subjects} subjects' if words.subjects else ''}, {words.runs} test sets, "
        f"{words.replicates} replicates, seed 1"
    )
    for name in names:
        low, high = clopper_pearson(hits[name], words.runs)
        print(
            f"{name:18} truth {truth[name]:.4f}  mean width {width[name]:.4f}  "
            f"covered {hits[name] / words.runs:6.1%} ({low:.1%} to {high:.1%})"
        )


if __name__ == "__main__":
    main()
