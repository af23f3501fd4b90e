"""Two models on the same pictures: the difference, how sure it is, and what this test set could have shown at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import MissingDependencyError
from deepfer_yolo.evaluate.metrics import check_scores
from deepfer_yolo.evaluate.score import Scores
from deepfer_yolo.evaluate.statistics import CONFIDENCE, REPLICATES, cluster_ids, headline, percentiles, replicate_sums, rows_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Z95 = 1.959964
"""The 97.5 % point of the normal distribution."""
MIN_DISCORDANCE = 0.02
"""Two models are never taken to disagree on fewer pictures than this share, whatever a small test set shows."""
DIFFERENCES = ("top1", "macro_f1", "balanced_accuracy", "nll", "brier")


def compare_pair(challenger: Scores, champion: Scores, replicates: int = REPLICATES, seed: int = 0) -> dict[str, Any]:
    """The paired comparison of two models' `Scores` on the same rows and labels; every difference is challenger minus champion.

    Raises ValueError where the rows or labels are not the same: pairing would be meaningless.
    """
    if challenger.labels != champion.labels or challenger.rows != champion.rows:
        raise ValueError("a paired comparison needs the same pictures and the same labels for both models")
    a, targets = check_scores(challenger.probs, challenger.targets, challenger.labels)
    b, _ = check_scores(champion.probs, champion.targets, champion.labels)
    clusters = cluster_ids([row.subject for row in challenger.rows])
    rows_a, rows_b = rows_of(a, targets), rows_of(b, targets)
    width = rows_a.shape[1]
    # One set of resamples for both models: that is what pairs them.
    sums = replicate_sums(np.concatenate([rows_a, rows_b], axis=1), targets, clusters, replicates, seed)
    drawn_a, drawn_b = headline(sums[:, :width]), headline(sums[:, width:])
    exact_a, exact_b = headline(rows_a.sum(0)), headline(rows_b.sum(0))
    differences = {}
    for name in DIFFERENCES:
        low, high = percentiles(drawn_a[name] - drawn_b[name])
        differences[name] = {"difference": float(exact_a[name] - exact_b[name]), "interval": [float(low), float(high)]}
    right_a, right_b = a.argmax(1) == targets, b.argmax(1) == targets
    wins, losses = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    low, high = percentiles(drawn_a["top1"] - drawn_b["top1"])
    decision = decision_interval(wins, losses, len(targets), (float(low), float(high)))
    differences["top1"]["interval"] = decision["d_interval"]
    method = "over subjects" if clusters is not None else "stratified by label"
    return {
        "n": len(targets),
        "wins": wins,
        "losses": losses,
        "mcnemar_p": mcnemar(wins, losses),
        "differences": differences,
        **decision,
        "classes": class_table(right_a, right_b, targets, challenger.labels),
        "interval_method": f"{CONFIDENCE:.0%}, paired bootstrap {method}, {replicates} replicates",
    }


def decision_interval(wins: int, losses: int, n: int, bootstrap: Sequence[float]) -> dict[str, Any]:
    """What the gate decides by: top-1 difference `d` with its interval, the wider of the bootstrap and of a normal one.

    The normal one takes the discordance (the share of pictures on which one model alone is right) at its 95 % upper bound
    (Clopper-Pearson) and at MIN_DISCORDANCE at least: variance of d is (discordance - d²) / n. Without it two equal models would have an
    interval of no width on any test set. `resolution` is that half-width: smaller differences cannot be told from none here.
    """
    d = (wins - losses) / n
    discordance = max(upper_bound(wins + losses, n), MIN_DISCORDANCE)
    resolution = Z95 * float(np.sqrt(max(discordance - d * d, 0.0) / n))
    interval = [min(float(bootstrap[0]), d - resolution), max(float(bootstrap[1]), d + resolution)]
    return {"d": d, "d_interval": interval, "discordance": (wins + losses) / n, "discordance_upper": discordance, "resolution": resolution}


def upper_bound(k: int, n: int) -> float:
    """The one-sided 95 % upper bound of a proportion (Clopper & Pearson 1934)."""
    return float(_binomtest(k, n, alternative="less").proportion_ci(CONFIDENCE, method="exact").high)


def mcnemar(wins: int, losses: int) -> float:
    """The exact two-sided p of McNemar's test: a binomial test on the pictures where one model alone is right."""
    return 1.0 if wins + losses == 0 else float(_binomtest(wins, wins + losses).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) of p values, in their own order."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, np.float64)[order] * (len(p_values) - np.arange(len(p_values)))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return [float(p) for p in corrected]


def class_table(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], targets: Ints, labels: Sequence[str]) -> list[dict[str, Any]]:
    """One entry a class that occurs: recall of both, wins and losses, exact McNemar p and Holm's correction over the classes."""
    table: list[dict[str, Any]] = []
    for c, label in enumerate(labels):
        of_class = targets == c
        n = int(of_class.sum())
        if n == 0:
            continue
        a, b = right_a[of_class], right_b[of_class]
        wins, losses = int((a & ~b).sum()), int((b & ~a).sum())
        recalls = {"challenger": float(a.mean()), "champion": float(b.mean()), "difference": (wins - losses) / n}
        table.append({"label": label, "n": n, **recalls, "wins": wins, "losses": losses, "p": mcnemar(wins, losses)})
    for row, corrected in zip(table, holm([row["p"] for row in table]), strict=True):
        row["p_holm"] = corrected
    return table


def _binomtest(k: int, n: int, alternative: str = "two-sided") -> Any:
    try:
        from scipy.stats import binomtest
    except ModuleNotFoundError:
        raise MissingDependencyError.for_extra("eval", "scipy") from None
    return binomtest(k, n, alternative=alternative)
