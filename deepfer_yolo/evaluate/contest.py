"""A challenger against a champion: both scored now, on the same pictures, in the same job."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import GateConfig
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.evaluate.evaluation import measure_scores
from deepfer_yolo.evaluate.imports import importing
from deepfer_yolo.evaluate.paired import compare_pair
from deepfer_yolo.evaluate.score import OnProgress, Scores, common_labels, score_dataset
from deepfer_yolo.records import Crops
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.modelfile import digest, n_bytes
from deepfer_yolo.runtime.preprocess import to_inputs

LATENCY_ROUNDS, LATENCY_CALLS = 9, 20
OnRound = Callable[[str], OnProgress]
"""Called with the name of a model that is scored next; gives its progress callback."""


def hold_contest(
    challenger: Classifier, champion: Classifier | None, dataset: Dataset, config: GateConfig, on_model: OnRound | None = None
) -> dict[str, Any]:
    """Everything that the rules look at, JSON-ready but for numpy scalars. Without a champion there is no `pair`.

    Raises DatasetError for other labels, missing files or an unknown protected picture, and ModelError for values that are no probabilities.
    """
    models = [model for model in (challenger, champion) if model is not None]
    labels = common_labels([model.labels for model in models], dataset.labels, config.labels)
    check_floors(config, labels)
    protected = None if config.must_not_break is None else read_protected(Path(config.must_not_break))
    scores = []
    with importing("sklearn.metrics"):
        for role, model in zip(("challenger", "champion"), models, strict=False):
            on_progress = on_model(role) if on_model is not None else None
            scores.append(score_dataset(model, dataset, config.split, config.batch, on_progress, labels=labels, workers=config.workers))
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
    return {"name": model.card.name, "path": str(model.path), "sha256": digest(model.path), "size_mb": size_mb, "provider": model.provider}


def check_floors(config: GateConfig, labels: Sequence[str]) -> None:
    """Raise ConfigError for a recall floor of a label that is not scored."""
    for label in config.floors.recall:
        if label not in labels:
            near = difflib.get_close_matches(label, labels, n=1)
            raise ConfigError(
                f"floors.recall: unknown label '{label}'" + (f" (did you mean '{near[0]}'?)" if near else ""), f"labels: {', '.join(labels)}"
            )


def read_protected(path: Path) -> list[str]:
    """The picture paths of a must-not-break file: one a line, relative to the data set; blank lines and `#` lines are skipped."""
    if not path.is_file():
        raise ConfigError(f"no such must-not-break file: {path}", "it holds one picture path a line, relative to the data set")
    # Names of files need not be text: they are read as the manifest is.
    lines = (line.strip() for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"the must-not-break file names no picture: {path}", "write one picture path a line, relative to the data set")
    return found


def check_protected(paths: Sequence[str], scores: Sequence[Scores]) -> dict[str, Any]:
    """Which protected pictures the challenger gets wrong, and of them those that the champion had right (all, without a champion)."""
    place = {row.path: i for i, row in enumerate(scores[0].rows)}
    unknown = [path for path in paths if path not in place]
    if unknown:
        raise DatasetError(f"{len(unknown)} must-not-break pictures are not in the split, such as {unknown[0]}", "paths are relative to the data set")
    right = [score.probs.argmax(1) == score.targets for score in scores]
    wrong = [path for path in paths if not right[0][place[path]]]
    broken = [path for path in wrong if len(right) == 1 or right[1][place[path]]]
    return {"n": len(paths), "wrong": wrong, "broken": broken}


def latency(challenger: Classifier, champion: Classifier | None, dataset: Dataset, scores: Scores) -> dict[str, Any]:
    """Milliseconds a single crop, and the ratio challenger : champion, as the median over alternating rounds of medians.

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
    return {"challenger_ms": median[0], "champion_ms": median[1], "ratio": float(np.median(ratios)), "ratio_range": spread}


def _median_ms(model: Classifier, crops: Crops) -> float:
    times = []
    for _ in range(LATENCY_CALLS):
        start = time.perf_counter()
        model.predict(crops)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))
