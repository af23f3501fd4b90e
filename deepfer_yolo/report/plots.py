"""Figures of the reports: matplotlib objects without pyplot's global state, in colours that colour-blind readers can
tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from deepfer_yolo.errors import explained_imports
from deepfer_yolo.files import atomic_path
from deepfer_yolo.report.page import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#777777")
"""Okabe and Ito's palette, without the yellow that vanishes on white."""
MARKERS = "osD^vPX*"


def figure(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """An empty figure of `width` × `height` inches with one pair of axes, drawn in the page's ink."""
    with explained_imports():
        from matplotlib.figure import Figure as NewFigure
    new = NewFigure(figsize=(width, height), layout="constrained")
    axes = new.add_subplot()
    ink(axes)
    return new, axes


def ink(axes: Axes) -> None:
    """Draw frame, ticks and labels of `axes` in the page's ink."""
    axes.tick_params(colors=INK)
    for spine in axes.spines.values():
        spine.set_color(INK)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)
    axes.spines[["top", "right"]].set_visible(False)


def legend(axes: Axes, **options: Any) -> None:
    """The legend of `axes`, in the page's ink."""
    axes.legend(frameon=False, labelcolor=INK, **options)


def confusion_matrix(counts: ArrayLike, labels: Sequence[str]) -> Figure:
    """Counts (C, C), rows true, coloured by the share of each row; each cell shows the share in per cent and the count."""
    matrix = np.asarray(counts)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    n = len(labels)
    new, axes = figure(1.5 + 0.56 * n, 1.1 + 0.52 * n)  # small, so that its text is large enough on a phone
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
    axes.set_xticks(np.arange(n) + 0.5, labels, rotation=30, ha="right")
    axes.set_yticks(np.arange(n) + 0.5, labels)
    axes.invert_yaxis()
    axes.set_xlabel("predicted")
    axes.set_ylabel("label in the data set")
    size = 9 if n <= 10 else 5
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else "#222222"
        axes.text(column + 0.5, row + 0.42, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=size)
        axes.text(
            column + 0.5,
            row + 0.76,
            f"{matrix[row, column]}",
            ha="center",
            va="center",
            color=colour,
            fontsize=size - 2,
        )
    return new


def reliability(count: ArrayLike, confidence: ArrayLike, accuracy: ArrayLike) -> Figure:
    """Accuracy against confidence by bin; the area of a dot is the number of pictures in its bin, the diagonal is
    perfect.
    """
    n = np.asarray(count)
    some = n > 0
    new, axes = figure(4.8, 4.4)
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="--", label="perfect")
    x, y = np.asarray(confidence)[some], np.asarray(accuracy)[some]
    axes.plot(x, y, color=COLOURS[0], linewidth=1.5)
    axes.scatter(
        x, y, s=12 + 260 * n[some] / max(1, n.max()), color=COLOURS[0], alpha=0.85, label="bin (area: pictures)"
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right", aspect="equal")
    legend(axes, loc="upper left")
    return new


def curves(
    x: Sequence[Any],
    series: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """One line a series over common `x`; colour and marker both tell them apart."""
    new, axes = figure()
    for i, (name, values) in enumerate(series.items()):
        axes.plot(
            x, values, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=4, label=name
        )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if ylim is not None:
        axes.set_ylim(*ylim)
    if len(series) > 1:
        legend(axes)
    return new


def learning(
    epochs: Sequence[int], losses: Mapping[str, Sequence[float]], shares: Mapping[str, Sequence[float]]
) -> Figure:
    """Losses on the left and shares in per cent on the right, over whole epochs: one scale for both would flatten each."""
    from matplotlib.figure import Figure as NewFigure
    from matplotlib.ticker import MaxNLocator

    new = NewFigure(figsize=(9.0, 3.6), layout="constrained")
    percents = {name: [100 * value for value in values] for name, values in shares.items()}
    for axes, series, ylabel in zip(new.subplots(1, 2), (losses, percents), ("loss", "per cent"), strict=True):
        for i, (name, values) in enumerate(series.items()):
            dots = MARKERS[i] if len(epochs) <= 20 else ""
            axes.plot(
                epochs,
                values,
                color=COLOURS[i],
                linestyle="-" if i == 0 else "--",
                marker=dots,
                markersize=4,
                label=name,
            )
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        ink(axes)
        legend(axes)
    return new


def panels(series: Mapping[str, tuple[Sequence[str], Sequence[float], str]], reference: float, ylabel: str) -> Figure:
    """One small diagram a name, two a row: values over named levels, with a dashed line at `reference`; all share the y
    axis.
    """
    n_rows = -(-len(series) // 2)
    new, first = figure(6.2, 2.3 * n_rows)
    first.remove()
    new.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    grid = new.subplots(n_rows, 2, sharey=True, squeeze=False).ravel()
    for i, (axes, (name, (levels, values, xlabel))) in enumerate(zip(grid, series.items(), strict=False)):
        axes.plot(levels, values, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], markersize=4)
        axes.axhline(reference, color="#777777", linewidth=1, linestyle="--")
        axes.set(title=name, xlabel=xlabel, ylabel=ylabel if i % 2 == 0 else "", ylim=(0, 1))
        ink(axes)
    for axes in grid[len(series) :]:
        axes.remove()
    return new


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG on white; the same bytes for the same figure."""
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def bars(
    names: Sequence[str],
    values: Sequence[float],
    xlabel: str,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
) -> Figure:
    """Horizontal bars, one a name, with an interval each where `low` and `high` are given."""
    new, axes = figure(6, 0.8 + 0.38 * len(names))
    places = np.arange(len(names))
    axes.barh(places, values, color=COLOURS[0], height=0.6)
    if low is not None and high is not None:
        spans = np.clip([np.subtract(values, low), np.subtract(high, values)], 0, None)
        axes.errorbar(values, places, xerr=spans, fmt="none", ecolor=INK, capsize=3)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    return new
