"""Cross-validation, the protocol of the small laboratory sets: one run a fold, every picture tested once, mean and
spread.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.data.dataset import csv_bytes, open_dataset
from deepfer_yolo.errors import DeepferError, TrainingError
from deepfer_yolo.evaluate.metrics import macro_f1
from deepfer_yolo.files import write_atomic
from deepfer_yolo.presets import read_yaml
from deepfer_yolo.report.tables import percent
from deepfer_yolo.runs import CONFIG, METRICS, create_run, write_metrics
from deepfer_yolo.train import run
from deepfer_yolo.train.device import check_device
from deepfer_yolo.train.splits import deal, open_for_training
from deepfer_yolo.train.start import starting_model

FOLDS = "folds.csv"
Show = Callable[[str], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """A finished cross-validation: its folder and the figures of its metrics.json."""

    folder: Path
    metrics: dict[str, Any]


Result = run.Outcome | run.Stopped | CrossValidated


def train(
    config: TrainConfig,
    *,
    name: str | None = None,
    show: Show = print,
    should_stop: ShouldStop = lambda: False,
    root: Path = Path("runs"),
) -> Result:
    """One run, or where the recipe names `folds` and no single `fold` one run a fold, in
    `root/train/<name>/fold-<number>`; see `run.train`.
    """
    folds = config.folds
    if folds is None or config.fold is not None:
        return run.train(config, name=name, show=show, should_stop=should_stop, root=root)
    config = run.absolute(config)
    check_device(config.device)
    # What is wrong with the input is found here, for every fold, before a folder is made.
    opened = [open_for_training(config.model_copy(update={"fold": number})) for number in range(1, folds + 1)]
    starting_model(config, opened[0].labels, lambda _: None)
    folder = create_run("train", name, config, root).resolve()
    try:
        return _each_fold(config, folder, show, should_stop)
    except DeepferError:
        if not any(folder.glob("fold-*")):
            shutil.rmtree(folder)  # the input was refused: nothing has begun
        raise


def resume(folder: Path, *, show: Show = print, should_stop: ShouldStop = lambda: False) -> Result:
    """Continue the run in `folder`, or the cross-validation there: folds that have finished are passed over.

    See `run.resume`.
    """
    path = folder / CONFIG
    config = TrainConfig.model_validate(read_yaml(path)) if path.is_file() else None
    if config is None or config.folds is None or config.fold is not None or (folder / METRICS).is_file():
        return run.resume(folder, show=show, should_stop=should_stop)
    return _each_fold(config, folder.resolve(), show, should_stop)


def _each_fold(config: TrainConfig, folder: Path, show: Show, should_stop: ShouldStop) -> run.Stopped | CrossValidated:
    with run.lock(folder):
        _write_folds(config, folder)
        figures = []
        for number in range(1, (config.folds or 0) + 1):
            fold = folder / f"fold-{number}"
            if not (fold / METRICS).is_file():
                show(f"fold {number} of {config.folds}")
                done = _one_fold(config.model_copy(update={"fold": number}), fold, show, should_stop)
                if isinstance(done, run.Stopped):
                    return run.Stopped(folder)
            figures.append(json.loads((fold / METRICS).read_text(encoding="utf-8")))
        metrics = summary([part["test"] for part in figures]) | {"group_by": config.group_by, "seed": config.seed}
        write_metrics(folder, metrics)
    return CrossValidated(folder, metrics)


def _one_fold(config: TrainConfig, fold: Path, show: Show, should_stop: ShouldStop) -> run.Outcome | run.Stopped:
    if (fold / CONFIG).is_file():
        return run.resume(fold, show=show, should_stop=should_stop)
    if fold.is_dir():
        shutil.rmtree(fold)  # killed before it was a run
    above = fold.parent.parent
    command = f"{above.name}/{fold.parent.name}"
    return run.train(config, name=fold.name, show=show, should_stop=should_stop, root=above.parent, command=command)


def _write_folds(config: TrainConfig, folder: Path) -> None:
    """`folds.csv`, which picture is in which fold.

    Raises TrainingError where the one that is there was written for other data.
    """
    dataset = open_dataset(Path(str(config.data)))
    rows = zip(dataset.all_rows, deal(dataset, config), strict=True)
    content = csv_bytes(
        ("path", "label", "subject", "sha256", "fold"),
        ((r.path, r.label, r.subject, r.sha256, str(fold)) for r, fold in rows),
    )
    path = folder / FOLDS
    if path.is_file() and path.read_bytes() != content:
        raise TrainingError(
            f"the data set {dataset.root} has changed since the cross-validation began", "start a new one"
        )
    write_atomic(path, content)


def summary(tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation (n − 1) and every fold of the test figures, and the same over all pictures at once, each
    tested once.

    `confusion` counts rows of truth and columns of answers, (C, C).
    """
    total = np.sum([test["confusion"] for test in tests], axis=0)
    spread = {
        key: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "folds": values}
        for key in ("top1", "macro_f1")
        for values in [[test[key] for test in tests]]
    }
    pooled = {"n": int(total.sum()), "top1": float(total.trace() / total.sum()), "macro_f1": macro_f1(total)}
    return {**pooled, "over_folds": spread, "n_folds": len(tests), "confusion": total.tolist()}


def lines_of(metrics: dict[str, Any]) -> list[str]:
    """What a person reads: each fold, mean and spread, and all pictures at once."""
    spread = metrics["over_folds"]
    lines = [
        f"fold {number}: top-1 {percent(top1)} %, macro-F1 {percent(f1)} %"
        for number, (top1, f1) in enumerate(zip(spread["top1"]["folds"], spread["macro_f1"]["folds"], strict=True), 1)
    ]
    both = [
        f"{title} {percent(spread[key]['mean'])} ± {percent(spread[key]['sd'])} %"
        for key, title in (("top1", "top-1"), ("macro_f1", "macro-F1"))
    ]
    lines.append(
        f"{metrics['n_folds']} folds by {metrics['group_by']}: {', '.join(both)} (mean ± standard deviation over folds)"
    )
    lines.append(
        f"all {metrics['n']:,} pictures, each tested once: top-1 {percent(metrics['top1'])} %, macro-F1 {percent(metrics['macro_f1'])} %"
    )
    return lines
