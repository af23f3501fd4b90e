"""Figures show the numbers they were given."""

from __future__ import annotations

import numpy as np
import pytest

from deepfer_yolo.report import plots
from deepfer_yolo.report.fonts import font_for
from deepfer_yolo.report.page import figure_svg


def test_confusion_matrix_shows_share_and_count() -> None:
    texts = [text.get_text() for text in plots.confusion_matrix([[3, 1], [0, 0]], ["a", "b"]).axes[0].texts]
    assert texts == ["75%", "3", "25%", "1", "0%", "0", "0%", "0"]


def test_the_matrix_of_many_labels_has_one_size_and_no_figures() -> None:
    names = [f"person {i:03d}" for i in range(100)]
    figure = plots.confusion_matrix(np.eye(100, dtype=int), names)
    axes = figure.axes[0]
    assert not axes.texts
    assert figure.get_size_inches().max() < 10
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    assert len(figure_svg(figure)) < 1_000_000
    assert len(plots.confusion_matrix(np.eye(300, dtype=int), [*names, *names, *names]).axes[0].get_yticks()) <= 100


@pytest.mark.filterwarnings("error")
def test_labels_that_no_font_here_has_are_left_to_the_readers_fonts() -> None:
    svg = figure_svg(plots.confusion_matrix([[3, 1], [0, 2]], ["ကောင်း", "müde"]))
    has_font = font_for("ကောင်း") is not None
    assert ("ကောင်း" in svg.replace("&#", "")) != has_font
    assert "<text" not in figure_svg(plots.confusion_matrix([[3, 1], [0, 2]], ["müde", "wach"]))


def test_reliability_leaves_empty_bins_out() -> None:
    axes = plots.reliability([0, 4, 6], [0.0, 0.5, 0.9], [0.0, 0.25, 1.0]).axes[0]
    assert np.allclose(axes.lines[1].get_xydata(), [[0.5, 0.25], [0.9, 1.0]])


def test_learning_curves_have_a_scale_of_their_own_for_losses_and_for_shares_and_whole_epochs() -> None:
    left, right = plots.learning([1, 2], {"train": [2.0, 1.0], "val": [1.5, 1.2]}, {"val top-1": [0.5, 0.6]}).axes
    assert left.get_ylim()[0] > 0.5
    assert [list(line.get_ydata()) for line in right.lines] == [[50, 60]]
    assert all(tick == round(tick) for tick in left.get_xticks())


def test_curves_and_bars() -> None:
    axes = plots.curves([0, 1], {"top-1": [0.5, 0.25], "F1": [0.4, 0.2]}, "level", "share").axes[0]
    assert np.allclose(axes.lines[1].get_ydata(), [0.4, 0.2])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["top-1", "F1"]
    axes = plots.bars(["x", "y"], [0.5, 0.7], "recall", [(0.4, 0.6), (0.6, 0.75)]).axes[0]
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([0.5, 0.7])
    ends = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()]
    assert ends == [pytest.approx([0.4, 0.6]), pytest.approx([0.6, 0.75])]


def test_panels_share_an_axis_and_leave_no_empty_one() -> None:
    one = {"label": [0.5, 0.4], "votes": [0.6, 0.5]}
    axes = plots.panels([1, 2], dict.fromkeys(["a", "b", "c", "d"], one), {"label": 0.7, "votes": 0.8}, "x", "y").axes
    assert [axis.get_title() for axis in axes] == ["a", "b", "c", "d"]
    assert {axis.get_ylim() for axis in axes} == {(0, 1)}
    assert [list(np.ravel(line.get_ydata())) for line in axes[3].lines] == [
        [0.5, 0.4],
        [0.7, 0.7],
        [0.6, 0.5],
        [0.8, 0.8],
    ]


def test_colours_are_told_apart_without_colour_vision() -> None:
    # Luma of neighbouring colours differs, so that lines differ in grey print too.
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in plots.COLOURS])
    luma = rgb @ [0.299, 0.587, 0.114]
    assert (np.abs(np.diff(luma[:4])) > 10).all()
