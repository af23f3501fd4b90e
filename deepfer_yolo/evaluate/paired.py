"""Two models on the same pictures: the difference, how sure it is, and what this test set could have shown at all."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import CompareConfig, GateConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.errors import ConfigError, DatasetError, explained_imports
from deepfer_yolo.evaluate.evaluation import importing, measure_scores
from deepfer_yolo.evaluate.intervals import (
    CONFIDENCE,
    REPLICATES,
    cluster_ids,
    headline,
    percentiles,
    replicate_sums,
    rows_of,
)
from deepfer_yolo.evaluate.metrics import check_scores
from deepfer_yolo.evaluate.predictions import OnProgress, Scores, common_labels, score_dataset
from deepfer_yolo.records import Crops, plain
from deepfer_yolo.report.tables import interval, percent
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest, n_bytes
from deepfer_yolo.runtime.preprocess import to_inputs

LATENCY_ROUNDS, LATENCY_CALLS = 9, 20
OnRound = Callable[[str], OnProgress]
"""Called with the name of a model that is scored next; gives its progress callback."""


def hold_contest(
    challenger: Classifier,
    champion: Classifier | None,
    dataset: Dataset,
    config: GateConfig,
    on_model: OnRound | None = None,
) -> dict[str, Any]:
    """Everything that the rules look at, JSON-ready but for numpy scalars. Without a champion there is no `pair`.

    Raises DatasetError for other labels, missing files or an unknown protected picture, and ModelError for values that
    are no probabilities.
    """
    models = [model for model in (challenger, champion) if model is not None]
    labels = common_labels([model.labels for model in models], dataset.labels, config.labels)
    check_floors(config, labels)
    protected = None if config.must_not_break is None else read_protected(Path(config.must_not_break))
    scores = []
    with importing("scipy.stats"):
        for role, model in zip(("challenger", "champion"), models, strict=False):
            on_progress = on_model(role) if on_model is not None else None
            scores.append(
                score_dataset(
                    model, dataset, config.split, config.batch, on_progress, labels=labels, workers=config.workers
                )
            )
    measured: dict[str, Any] = {
        "dataset": {
            "name": dataset.name,
            "path": str(dataset.root),
            "fingerprint": dataset.fingerprint,
            "split": config.split,
            "n": len(scores[0].rows),
        },
        "labels": labels,
    }
    for role, model, score in zip(("challenger", "champion"), models, scores, strict=False):
        measured[role] = describe(model) | measure_scores(score, config.replicates, config.seed)
    if champion is not None:
        measured["pair"] = compare_pair(scores[0], scores[1], config.replicates, config.seed)
    measured["latency"] = latency(challenger, champion, dataset, scores[0])
    if protected is not None:
        measured["must_not_break"] = check_protected(protected, scores)
    return measured


def describe(model: Classifier) -> dict[str, Any]:
    """Which file a model is."""
    size_mb = n_bytes(model.path) / 1e6
    return {
        "name": model.card.name,
        "path": str(model.path),
        "sha256": digest(model.path),
        "size_mb": size_mb,
        "provider": model.provider,
    }


def check_floors(config: GateConfig, labels: Sequence[str]) -> None:
    """Raise ConfigError for a recall floor of a label that is not scored."""
    for label in config.floors.recall:
        if label not in labels:
            near = difflib.get_close_matches(label, labels, n=1)
            raise ConfigError(
                f"floors.recall: unknown label '{label}'" + (f" (did you mean '{near[0]}'?)" if near else ""),
                f"labels: {', '.join(labels)}",
            )


def read_protected(path: Path) -> list[str]:
    """The picture paths of a must-not-break file: one a line, relative to the data set; blank lines and `#` lines are
    skipped.
    """
    if not path.is_file():
        raise ConfigError(
            f"no such must-not-break file: {path}", "it holds one picture path a line, relative to the data set"
        )
    # Names of files need not be text: they are read as the manifest is.
    lines = (line.strip() for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(
            f"the must-not-break file names no picture: {path}",
            "write one picture path a line, relative to the data set",
        )
    return found


def check_protected(paths: Sequence[str], scores: Sequence[Scores]) -> dict[str, Any]:
    """Which protected pictures the challenger gets wrong, and of them those that the champion had right (all, without a
    champion).
    """
    place = {row.path: i for i, row in enumerate(scores[0].rows)}
    unknown = [path for path in paths if path not in place]
    if unknown:
        raise DatasetError(
            f"{len(unknown)} must-not-break pictures are not in the split, such as {unknown[0]}",
            "paths are relative to the data set",
        )
    right = [score.probs.argmax(1) == score.targets for score in scores]
    wrong = [path for path in paths if not right[0][place[path]]]
    broken = [path for path in wrong if len(right) == 1 or right[1][place[path]]]
    return {"n": len(paths), "wrong": wrong, "broken": broken}


def latency(challenger: Classifier, champion: Classifier | None, dataset: Dataset, scores: Scores) -> dict[str, Any]:
    """Milliseconds a single crop, and the ratio challenger : champion, as the median over alternating rounds of
    medians.

    Alternation matters: on shared machines timings drift by a factor of two within minutes.
    """
    images = list(load_images(dataset, list(scores.rows[:1])))
    sides = [(model, to_inputs(images, model.card.input)) for model in (challenger, champion) if model is not None]
    for model, crops in sides:
        _median_ms(model, crops)
    rounds = np.array([[_median_ms(model, crops) for model, crops in sides] for _ in range(LATENCY_ROUNDS)])
    median = [float(ms) for ms in np.median(rounds, axis=0)]
    if champion is None:
        return {"challenger_ms": median[0]}
    ratios: NDArray[np.float64] = rounds[:, 0] / rounds[:, 1]
    spread = [float(ratios.min()), float(ratios.max())]
    return {
        "challenger_ms": median[0],
        "champion_ms": median[1],
        "ratio": float(np.median(ratios)),
        "ratio_range": spread,
    }


def _median_ms(model: Classifier, crops: Crops) -> float:
    times = []
    for _ in range(LATENCY_CALLS):
        start = time.perf_counter()
        model.predict(crops)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Z95 = 1.959964
"""The 97.5 % point of the normal distribution."""
MIN_DISCORDANCE = 0.02
"""Two models are never taken to disagree on fewer pictures than this share, whatever a small test set shows."""
DIFFERENCES = ("top1", "macro_f1", "balanced_accuracy", "nll", "brier")


def compare_pair(challenger: Scores, champion: Scores, replicates: int = REPLICATES, seed: int = 0) -> dict[str, Any]:
    """The paired comparison of two models' `Scores` on the same rows and labels; every difference is challenger minus
    champion.

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

    The normal one takes the discordance (the share of pictures on which one model alone is right) at its 95 % upper
    bound (Clopper-Pearson) and at MIN_DISCORDANCE at least: variance of d is (discordance - d²) / n. Without it two
    equal models would have an interval of no width on any test set. `resolution` is that half-width: smaller
    differences cannot be told from none here.
    """
    d = (wins - losses) / n
    discordance = max(upper_bound(wins + losses, n), MIN_DISCORDANCE)
    resolution = Z95 * float(np.sqrt(max(discordance - d * d, 0.0) / n))
    interval = [min(float(bootstrap[0]), d - resolution), max(float(bootstrap[1]), d + resolution)]
    return {
        "d": d,
        "d_interval": interval,
        "discordance": (wins + losses) / n,
        "discordance_upper": discordance,
        "resolution": resolution,
    }


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


def class_table(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], targets: Ints, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """One entry a class that occurs: recall of both, wins and losses, exact McNemar p and Holm's correction over the
    classes.
    """
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
    with explained_imports():
        from scipy.stats import binomtest
    return binomtest(k, n, alternative=alternative)


HEADER = ("model", "top-1 %", "95 % interval", "macro F1 %", "NLL", "ECE %", "ms", "MB")
PAIR_HEADER = ("against the first", "top-1", "95 % interval", "macro F1", "95 % interval", "p", "time")


def compare_models(
    models: Sequence[Classifier],
    dataset: Dataset,
    config: CompareConfig,
    on_model: Callable[[str], OnProgress] | None = None,
) -> dict[str, Any]:
    """Every model's metrics with intervals, and the paired difference of each to the first; JSON-ready."""
    labels = common_labels([model.labels for model in models], dataset.labels, config.labels)
    measured: list[dict[str, Any]] = []
    first: Scores | None = None
    for model in models:
        on_progress = on_model(model.path.name) if on_model is not None else None
        scores = score_dataset(
            model, dataset, config.split, config.batch, on_progress, labels=labels, workers=config.workers
        )
        entry = describe(model) | measure_scores(scores, config.replicates, config.seed)
        if first is None:
            first = scores
        else:
            entry["against_first"] = compare_pair(scores, first, config.replicates, config.seed)
        entry["latency"] = latency(model, models[0], dataset, scores)
        measured.append(entry)
    return {
        "dataset": {
            "name": dataset.name,
            "path": str(dataset.root),
            "fingerprint": dataset.fingerprint,
            "split": config.split,
        },
        "labels": labels,
        "models": plain(measured),
    }


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """One row a model; shares in per cent, latency of a single crop."""
    return [
        [
            entry["name"],
            percent(entry["top1"]),
            interval(*entry["intervals"]["top1"]),
            percent(entry["macro_f1"]),
            f"{entry['nll']:.3f}",
            percent(entry["ece"]),
            f"{entry['latency']['challenger_ms']:.2f}",
            f"{entry['size_mb']:.1f}",
        ]
        for entry in result["models"]
    ]


def pair_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """One row a model after the first: differences in points with intervals, McNemar's exact p, and the latency ratio."""
    table = []
    for entry in result["models"][1:]:
        pair = entry["against_first"]
        row = [entry["name"]]
        for key in ("top1", "macro_f1"):
            found = pair["differences"][key]
            low, high = (100 * value for value in found["interval"])
            row += [f"{100 * found['difference']:+.1f}", f"{low:+.1f} to {high:+.1f}"]
        table.append([*row, f"{pair['mcnemar_p']:.2g}", f"× {entry['latency']['ratio']:.2f}"])
    return table
