"""Figures of the reports, without pyplot's global state, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepfer_yolo.errors import explained_imports
from deepfer_yolo.files import atomic_path
from deepfer_yolo.report.fonts import font_for
from deepfer_yolo.report.page import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#777777")
"""Okabe and Ito's palette, without the yellow that vanishes on white."""
MARKERS = "osD^vPX*"
MAX_WRITTEN, MAX_TICKS = 20, 100
"""Labels up to which the cells of a confusion matrix bear figures, and up to which all of them are named."""


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure of `width` × `height` inches with `rows` × `columns` axes, drawn in the page's ink."""
    with explained_imports():
        from matplotlib.figure import Figure as NewFigure
    new = NewFigure(figsize=(width, height), layout="constrained")
    grid = new.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for axes in grid:
        axes.tick_params(colors=INK)
        axes.spines[:].set_color(INK)
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            text.set_color(INK)
        axes.spines[["top", "right"]].set_visible(False)
    return new, grid


def line(axes: Axes, i: int, x: Sequence[Any], y: Sequence[float], **options: Any) -> None:
    """The `i`-th line of a diagram: colour and marker both tell it from the others."""
    look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
    axes.plot(x, y, **look | options)


def legend(axes: Axes, **options: Any) -> None:
    """The legend of `axes`, in the page's ink."""
    axes.legend(frameon=False, labelcolor=INK, **options)


def confusion_matrix(counts: ArrayLike, labels: Sequence[str]) -> Figure:
    """Counts (C, C), rows true, coloured by the share of each row; a cell shows the share in per cent and the count,
    where there are so few labels that both can be read.
    """
    matrix = np.asarray(counts)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if len(labels) > MAX_WRITTEN:
        return _large_matrix(shares, labels)
    n = len(labels)
    with _fonts_of(labels):
        # Small, so that its text is large enough on a phone; with two labels not narrower than what stands below it.
        new, (axes,) = figure(max(3.2, 1.5 + 0.56 * n), max(2.6, 1.1 + 0.52 * n))
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
        axes.set_xticks(np.arange(n) + 0.5, labels, rotation=30, ha="right")
        axes.set_yticks(np.arange(n) + 0.5, labels)
        axes.invert_yaxis()
        axes.set_xlabel("predicted")
        axes.set_ylabel("label in the data set")
        size = 9 if n <= 10 else 5
        for (row, column), share in np.ndenumerate(shares):
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": "white" if share > 0.55 else "#222222"}
            axes.text(column + 0.5, row + 0.42, f"{share:.0%}", fontsize=size, **look)
            axes.text(column + 0.5, row + 0.76, f"{matrix[row, column]}", fontsize=size - 2, **look)
    return new


def _large_matrix(shares: NDArray[np.float64], labels: Sequence[str]) -> Figure:
    """Shares (C, C) as colours alone, in a figure of one size, with as many labels as can be read."""
    n = len(labels)
    with _fonts_of(labels):
        new, (axes,) = figure(8.4, 8)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        places = range(0, n, -(-n // MAX_TICKS))
        size = 8 if n <= 40 else 5
        named = [labels[place] for place in places]
        axes.set_xticks(places, named, rotation=90, fontsize=size)
        axes.set_yticks(places, named, fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("label in the data set")
    return new


def _fonts_of(labels: Sequence[str]) -> AbstractContextManager[None]:
    """Draw with fonts that have the labels' characters besides matplotlib's own, as far as this system has any."""
    import matplotlib as mpl
    from matplotlib import font_manager

    own, families = mpl.rcParams["font.family"], []
    for path in sorted({font for label in labels if not label.isascii() and (font := font_for(label)) is not None}):
        font_manager.fontManager.addfont(path)
        families.append(font_manager.FontProperties(fname=path).get_name())
    return mpl.rc_context({"font.family": [*own, *families]})


def reliability(count: ArrayLike, confidence: ArrayLike, accuracy: ArrayLike) -> Figure:
    """Accuracy against confidence by bin; the area of a dot is the number of images, the diagonal is perfect."""
    n = np.asarray(count)
    some = n > 0
    new, (axes,) = figure(4.8, 4.4)
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="--", label="perfect")
    x, y = np.asarray(confidence)[some], np.asarray(accuracy)[some]
    axes.plot(x, y, color=COLOURS[0], linewidth=1.5)
    areas = 12 + 260 * n[some] / max(1, n.max())
    axes.scatter(x, y, s=areas, color=COLOURS[0], alpha=0.85, label="bin (area: images)")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right", aspect="equal")
    legend(axes, loc="upper left")
    return new


def curves(x: Sequence[Any], series: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> Figure:
    """One line a series over common `x`."""
    new, (axes,) = figure(6, 4)
    for i, (name, values) in enumerate(series.items()):
        line(axes, i, x, values, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if len(series) > 1:
        legend(axes)
    return new


def learning(
    epochs: Sequence[int], losses: Mapping[str, Sequence[float]], shares: Mapping[str, Sequence[float]]
) -> Figure:
    """Losses on the left, shares in per cent on the right, over whole epochs: one scale for both would flatten each."""
    new, both = figure(9, 3.6, columns=2)
    percents = {name: [100 * value for value in values] for name, values in shares.items()}
    for axes, series, ylabel in zip(both, (losses, percents), ("loss", "per cent"), strict=True):
        for i, (name, values) in enumerate(series.items()):
            marker = {} if len(epochs) <= 20 else {"marker": ""}
            line(axes, i, epochs, values, linestyle="-" if i == 0 else "--", label=name, **marker)
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.locator_params("x", integer=True)
        legend(axes)
    return new


def panels(
    levels: Sequence[Any],
    series: Mapping[str, Mapping[str, Sequence[float]]],
    references: Mapping[str, float],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """One small diagram a name, three a row: lines over common levels, each with its reference dashed."""
    n_rows = -(-len(series) // 3)
    new, grid = figure(7.2, 0.6 + 1.75 * n_rows, n_rows, 3, sharey=True)
    for number, (axes, (name, lines)) in enumerate(zip(grid, series.items(), strict=False)):
        for i, (title, values) in enumerate(lines.items()):
            line(axes, i, levels, values, label=title)
            axes.axhline(references[title], color=COLOURS[i], linewidth=1, linestyle="--")
        axes.set(title=name, ylabel=ylabel if number % 3 == 0 else "", ylim=(0, 1), xticks=list(levels))
        axes.set(xlabel=xlabel if number + 3 >= len(series) else "")
    legend(grid[0], loc="lower left", fontsize="small")
    for axes in grid[len(series) :]:
        axes.remove()
    return new


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG on white, the same bytes for the same figure; what no font here has becomes boxes."""
    with atomic_path(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(part, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def bars(names: Sequence[str], values: Sequence[float], xlabel: str, spans: Sequence[tuple[float, float]]) -> Figure:
    """Horizontal bars, one a name, each with its interval."""
    new, (axes,) = figure(6, 0.8 + 0.38 * len(names))
    places = np.arange(len(names))
    axes.barh(places, values, color=COLOURS[0], height=0.6)
    low, high = np.transpose(spans)
    errors = np.clip([np.subtract(values, low), np.subtract(high, values)], 0, None)
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, capsize=3)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    return new
