"""Tables for the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from deepfer_yolo.report.page import interval, percent, table


def test_numbers_are_aligned_to_the_right_and_markup_is_text() -> None:
    out = io.StringIO()
    Console(file=out, width=60).print(table(("name", "value"), [["[red]a[/red]", "1.5"], ["b", "10.25"]], "title"))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert any("[red]a[/red]" in line and line.endswith(" 1.5") for line in lines)
    assert any(line.endswith("10.25") for line in lines)


def test_formats() -> None:
    assert percent(0.6824) == "68.2"
    assert percent(None) == percent(float("nan")) == "–"
    assert interval(0.6658, 0.697) == "66.6–69.7"
    assert interval(float("nan"), float("nan")) == ""
