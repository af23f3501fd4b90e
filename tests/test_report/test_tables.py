"""Tables for the terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from deepfer_yolo.evaluate import paired, report
from deepfer_yolo.evaluate.gate import gate
from deepfer_yolo.report.page import Name, fitted, interval, percent, table
from deepfer_yolo.runs import LIST_HEADER


def test_numbers_are_aligned_to_the_right_and_markup_is_text() -> None:
    out = io.StringIO()
    Console(file=out, width=60).print(table(("name", "value"), [["[red]a[/red]", "1.5"], ["b", "10.25"]], "title"))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert any("[red]a[/red]" in line and line.endswith(" 1.5") for line in lines)
    assert any(line.endswith("10.25") for line in lines)


def test_a_title_stands_on_one_line_above_a_narrow_table() -> None:
    """As convert's does: a name and a path, wider than three columns of numbers."""
    title = "a set with a name → datasets/roboflow_boxes"
    lines = printed(table(("label", "train"), [["happy", "12"]], title))
    assert lines[0] == title
    assert lines[1].startswith("label   train")
    assert printed(table(("label", "train"), [["happy", "12"]]))[0].startswith("label")
    assert all(cell_len(line) <= 80 for line in printed(table(("label",), [["a"]], f"a → /{'long/' * 30}")))


def test_formats() -> None:
    assert percent(0.6824) == "68.2"
    assert percent(None) == percent(float("nan")) == "–"
    assert interval(0.6658, 0.697) == "66.6–69.7"
    assert interval(float("nan"), float("nan")) == ""


def printed(shown: object, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(shown)
    return [line.rstrip() for line in out.getvalue().splitlines()]


NUMBERS = ("68.4", "66.9–70.0", "65.7", "0.891", "2.4", "0.48", "6.5")
ROWS = {
    "compare": (paired.MODEL_HEADER, ("deepfer-cnn", *NUMBERS)),
    "pair": (paired.PAIR_HEADER, ("deepfer-live", "+0.4", "-0.8 to +1.6", "+0.4", "-0.8 to +1.6", "0.0012", "× 1.02")),
    "figures": (gate.PAIR_HEADER, ("balanced accuracy, %", "68.4", "65.1", "+3.3", "+1.2 to +5.4")),
    "classes": (gate.CLASS_HEADER, ("apprehensive", "68.4", "65.1", "+3.3", "120/98", "0.0012", "1,024")),
    "one model": (report.CLASS_HEADER, ("apprehensive", *NUMBERS[: len(report.CLASS_HEADER) - 1])),
    "runs": (LIST_HEADER, ("evaluate/deepfer-live", "2026-11-27 10:11", "fer2013", "28709", "68.4", "65.7", "2.4")),
}


@pytest.mark.parametrize("name", ROWS)
def test_at_80_columns_names_and_numbers_stay_whole(name: str) -> None:
    header, row = ROWS[name]
    assert len(row) == len(header)
    lines = printed(table(header, [row, row]))
    assert all(len(line) <= 80 for line in lines)
    [shown, again] = [line for line in lines if row[0] in line]
    assert shown == again
    assert all(value in shown for value in row)


def test_what_does_not_fit_loses_its_middle_and_sentences_wrap_between_words() -> None:
    path = "/home/somebody/data/faces/models/deepfer-cnn.onnx"
    rows = [("deepfer-cnn.onnx", "6.47 MB", path), ("b", "1.00 MB", f"no file at {path} was found, so that it is left")]
    first, *rest = printed(table(("name", "size", "where"), rows), 60)[2:]
    assert first.startswith("deepfer-cnn.onnx  6.47 MB  /home/somebody/d…")
    assert first.endswith("deepfer-cnn.onnx")
    words = {*rows[1][2].split(), "b", "1.00", "MB"}
    assert all(word in words or "…" in word for line in rest for word in line.split())
    assert printed(table(("name", "size", "where"), rows), 200)[3].endswith("was found, so that it is left")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z", "M"]), min_size=1), st.integers(2, 30))
def test_a_fitted_word_has_room(word: str, width: int) -> None:
    shown = fitted(word, width)
    assert cell_len(shown) <= max(width, 3)
    assert (shown == word) == (cell_len(word) <= width)
    assert shown[0] == word[0]


def test_a_name_among_columns_that_rich_lays_out() -> None:
    grid = Table(box=None, pad_edge=False)
    grid.add_column("source")
    grid.add_column("frames", no_wrap=True)
    grid.add_row(Name("rtsp://camera.example/hall/entrance/main"), "1,024")
    [line] = printed(grid, 30)[1:]
    assert line.startswith("rtsp://came…")
    assert line.endswith("rance/main  1,024")
