"""Tables for the terminal, readable at 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def table(header: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """A plain table; the first column is text, the others are aligned to the right where they hold numbers.

    The last column wraps when it is text, so that a sentence may stand there.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[str(value) for value in row] for row in rows]
    new = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
    for i, name in enumerate(header):
        numeric = i > 0 and bool(cells) and all(_numeric(row[i]) for row in cells)
        new.add_column(Text(name), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in cells:
        new.add_row(*(Text(value) for value in row))
    return new


def percent(share: float | None, digits: int = 1) -> str:
    """``68.2`` for 0.682; a dash where there is no number. The column's name says that it is per cent."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f}"


def interval(low: float, high: float, digits: int = 1) -> str:
    """``66.6–69.7`` for (0.666, 0.697); empty where there are no numbers."""
    return "" if math.isnan(low) or math.isnan(high) else f"{percent(low, digits)}–{percent(high, digits)}"


def _numeric(text: str) -> bool:
    return not text.strip() or text.strip()[0] in "0123456789-–−+.±" or text.strip() == "n/a"
