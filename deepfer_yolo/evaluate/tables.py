"""An evaluation's figures as the rows of tables, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from deepfer_yolo.evaluate.evaluation import Evaluation, Metrics
from deepfer_yolo.evaluate.metrics import NOT_SHARES
from deepfer_yolo.evaluate.robustness import CLEAN, Condition, Robustness
from deepfer_yolo.evaluate.subsets import Group
from deepfer_yolo.report.page import interval, percent

SHARES = {
    "top1": "top-1 accuracy", "top2": "top-2 accuracy", "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision", "macro_recall": "macro recall", "macro_f1": "macro F1",
    "weighted_precision": "weighted precision", "weighted_recall": "weighted recall", "weighted_f1": "weighted F1",
}  # fmt: skip
"""Headline figures that are shown in per cent, as the tables call them."""
TOP = {"top2": 2, "top5": 5}
"""Figures that say nothing of so few labels."""
GROUP_HEADER = ("value", "images", "top-1 %", "95 % interval", "macro F1 %")
VOTES_HEADER = ("", "votes %", "95 %", "label %", "95 %", "F1 %", "ECE %")
LABEL_HEADER = ("", "label %", "95 %", "F1 %", "ECE %")
SEVERITY_HEADER = ("kind", "levels", "votes % at severity 1 to 5", "label % at severity 1 to 5")
CONFUSION_HEADER = ("label", "answer", "images", "% of the label")
CLASS_HEADER = ("class", "precision %", "recall %", "F1 %", "95 % of F1", "images")


def summary_table(result: Evaluation) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of the headline figures with their intervals, in columns of their own for `clean`, and for the
    labels of before where people corrected them.
    """
    sides = {"all" if result.corrections is None else "corrected": result.metrics}
    sides |= {} if result.corrections is None else {"original": result.corrections.metrics}
    sides |= {} if result.clean is None else {"clean": result.clean}
    if len(sides) == 1:
        return ("figure", "value", "95 % interval"), summary_rows(result.metrics)
    header = ["figure"]
    for name, one in sides.items():
        header += [f"{name} {one.n:,}", "95 % interval"]
    first, *others = (summary_rows(one) for one in sides.values())
    rows = zip_longest(first, *others, fillvalue=["", "–", ""])
    return tuple(header), [[*row, *(cell for other in rest for cell in other[1:])] for row, *rest in rows]


def summary_rows(metrics: Metrics) -> list[list[str]]:
    """Name, value and 95 % interval of each headline figure; shares in per cent."""
    spans = metrics.intervals
    telling = {name: title for name, title in SHARES.items() if len(metrics.labels) > TOP.get(name, 0)}
    rows = [
        [title, percent(getattr(metrics, name)), interval(*getattr(spans, name))] for name, title in telling.items()
    ]
    for name, title in NOT_SHARES.items():
        value, low, high = (one / 100 for one in (getattr(metrics, name), *getattr(spans, name)))  # no per cent
        rows.append([title, percent(value, 3), interval(low, high, 3)])
    floor = "" if "ece" in metrics.not_measured else f"floor {percent(metrics.ece_noise_floor)}"
    rows.append(["ECE, 15 bins", percent(metrics.ece), floor])
    rows += [
        [f"top-1, surest {share}", percent(value), interval(*spans.selective_accuracy[share])]
        for share, value in metrics.selective_accuracy.items()
    ]
    if (votes := metrics.votes) is not None:
        rows += [
            ["agrees with most votes", percent(votes.majority_top1), interval(*votes.majority_interval)],
            ["  the set's label does", percent(votes.label_majority_top1), f"n {votes.n_clear:,}"],
            ["votes for its answer", percent(votes.vote_share), f"n {votes.n:,}"],
            ["  for the set's label", percent(votes.label_vote_share), ""],
        ]
    return rows


def class_rows(metrics: Metrics) -> list[list[str]]:
    """Label, precision, recall, F1 in per cent, the interval of F1, and how many images."""
    return [
        [
            label,
            percent(row.precision),
            percent(row.recall),
            percent(row.f1),
            interval(*row.f1_interval),
            str(row.support),
        ]
        for label, row in metrics.per_class.items()
    ]


def group_rows(groups: Sequence[Group]) -> list[list[str]]:
    """Value, images, top-1 with its exact interval and macro F1 of each group."""
    return [
        [
            group.value or "(empty)",
            str(group.n),
            percent(group.top1),
            interval(*group.interval),
            percent(group.macro_f1),
        ]
        for group in groups
    ]


def robustness_table(found: Robustness) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of clean images, each kind's mean and each group's; F1 and ECE against the votes, if any."""
    rows = {CLEAN: found.clean}
    for group in found.means:
        rows |= {name: curve.mean for name, curve in found.kinds.items() if curve.group == group}
        rows[f"mean of {group}"] = found.means[group]
    header = VOTES_HEADER if found.clean.votes else LABEL_HEADER
    return header, [[name, *condition_cells(one)] for name, one in rows.items()]


def condition_cells(one: Condition) -> list[str]:
    """Top-1 with its interval against each opinion, votes first; macro F1 and ECE against the first of them."""
    opinions = [opinion for opinion in (one.votes, one.label) if opinion is not None]
    shares = [
        cell for each in opinions for cell in (percent(each.top1), interval(*(each.interval or (np.nan, np.nan))))
    ]
    return [*shares, percent(opinions[0].macro_f1), percent(opinions[0].ece)]


def robustness_title(found: Robustness) -> str:
    """What the table is about, and on how many images."""
    votes = f", {found.clean.votes.n:,} of them with a clear majority of votes" if found.clean.votes else ""
    return f"corrupted images, n = {found.n:,}{votes}"


def severity_rows(found: Robustness) -> list[list[str]]:
    """Each kind with its levels and the accuracy at each severity."""
    rows = []
    for name, curve in found.kinds.items():
        votes = [percent(one.votes.top1) for one in curve.severities if one.votes]
        label = [percent(one.label.top1) for one in curve.severities]
        levels = ", ".join(f"{level:g}" for level in curve.levels)
        rows.append([name, f"{curve.meaning}: {levels}", " · ".join(votes) or "–", " · ".join(label)])
    return rows
