"""What a person reads: one self-contained HTML page, on a phone, in light and in dark, and tables for the terminal."""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text


INK = "#0b0c0d"
"""The colour that figures use for text and axes; in a page it becomes the colour of the text around it."""
STYLE = """\
:root { --ink: #1c2024; --soft: #5b6470; --line: #d9dee4; --ground: #fff; --panel: #f4f6f8; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #a2abb5; --line: #343b43; --ground: #14171a; --panel: #1d2226; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--ink); background: var(--ground);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
pre { background: var(--panel); padding: .7rem; border-radius: .4rem; white-space: pre-wrap; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .85rem; color: var(--soft); }
dd { margin: 0; min-width: 0; }
figure { margin: 1rem 0; }
figcaption, caption { color: var(--soft); font-size: .85rem; text-align: left; padding: .3rem 0; }
svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td:first-child { min-width: 6rem; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
@media (max-width: 30rem) {
  table { font-size: .78rem; }
  th, td { padding: .25rem .3rem; }
  td:first-child { min-width: 4.4rem; }
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .3rem; }
}
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; }
.grid figure { margin: 0; background: var(--panel); border-radius: .4rem; padding: .5rem; font-size: .8rem;
  line-height: 1.35; }
.grid img { width: 100%; image-rendering: pixelated; border-radius: .2rem; display: block; margin-bottom: .3rem; }
.grid div:nth-of-type(n+3) { font-size: .68rem; color: var(--soft); overflow-wrap: anywhere; }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Page:
    """A report under construction; parts appear in the order in which they are added.

    >>> page = Page("Evaluation of deepfer-n", command="deepfer evaluate faces -m deepfer-n.onnx")
    >>> page.add_table(["class", "F1"], [["happy", 0.86]], caption="Per class")
    >>> page.write(Path("report.html"))

    `facts` are the conditions of the numbers (n, versions, hardware), shown in the header. Every text is escaped.
    """

    def __init__(self, title: str, command: str, facts: Iterable[tuple[str, object]] = ()) -> None:
        self._title = escape(title)
        shown = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>\n" for key, value in facts)
        self._header = f"<h1>{self._title}</h1>\n<pre>{escape(command)}</pre>\n" + (
            f"<dl>\n{shown}</dl>\n" if shown else ""
        )
        self._parts: list[str] = []

    def add_heading(self, text: str) -> None:
        """Begin a new section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def add_text(self, text: str) -> None:
        """A paragraph; blank lines part paragraphs."""
        self._parts += [f"<p>{escape(' '.join(part.split()))}</p>" for part in text.split("\n\n") if part.strip()]

    def add_table(self, header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> None:
        """A table; columns that are mostly numbers are aligned to the right. Floats appear as they are."""
        cells = [list(row) for row in rows]
        numeric = [2 * sum(map(_is_number, column)) > len(cells) for column in zip(*cells, strict=True)]
        numeric = numeric or [False] * len(header)
        title = f"<caption>{escape(caption)}</caption>\n" if caption else ""
        body = "".join(f"{_row('td', row, numeric)}\n" for row in cells)
        head = f"<thead>{_row('th', header, numeric)}</thead>"
        self._parts.append(f'<div class="scroll"><table>\n{title}{head}\n<tbody>\n{body}</tbody>\n</table></div>')

    def add_figure(self, figure: Figure, caption: str, alt: str) -> None:
        """A matplotlib figure as vector graphics; `alt` says in words what it shows."""
        drawing = f'<div class="scroll" role="img" aria-label="{escape(alt)}">{figure_svg(figure)}</div>'
        self._parts.append(f'<figure role="group">{drawing}\n<figcaption>{escape(caption)}</figcaption></figure>')

    def add_images(self, images: Iterable[tuple[NDArray[np.uint8], Sequence[str]]], caption: str = "") -> None:
        """A grid of images, uint8 grey or RGB, each with its caption lines."""
        if caption:
            self.add_text(caption)
        shown = []
        for image, lines in images:
            below = "".join(f"<div>{escape(line)}</div>\n" for line in lines)
            source = f"data:image/png;base64,{_png(image)}"
            shown.append(f'<figure><img alt="{escape(", ".join(lines))}" src="{source}">\n{below}</figure>\n')
        self._parts.append(f'<div class="grid">\n{"".join(shown)}</div>')

    def html(self) -> str:
        """The whole page as text."""
        parts = "\n".join(self._parts)
        return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{self._title}</title>
<style>
{STYLE}</style>
</head>
<body>
<header>
{self._header}</header>
<main>
{parts}
</main>
</body>
</html>
"""

    def write(self, path: Path) -> Path:
        """Write the page and return its path."""
        # A file name that is no text becomes question marks; refusing the whole report for it would help nobody.
        write_atomic(path, self.html().encode("utf-8", "replace"))
        return path


def _row(tag: str, values: Iterable[object], numeric: Sequence[bool]) -> str:
    opening = [f'<{tag} class="number">' if is_number else f"<{tag}>" for is_number in numeric]
    cells = (f"{start}{escape(str(value))}</{tag}>" for start, value in zip(opening, values, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def figure_svg(figure: Figure) -> str:
    """A figure as an `<svg>` element; the same bytes for the same figure, and no date inside.

    Its letters are shapes, so that it looks the same everywhere; where no font here has all of them they are left to
    the fonts of whoever reads it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svg = _saved_svg(figure, "path")
    if any("missing from font" in str(warning.message) for warning in caught):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            svg = _saved_svg(figure, "none")
    # The element alone: an XML prologue is an error inside HTML.
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _saved_svg(figure: Figure, fonttype: str) -> str:
    import matplotlib as mpl

    text, plain = io.StringIO(), {"Date": None, "Creator": None}
    with mpl.rc_context({"svg.hashsalt": "deepfer", "svg.fonttype": fonttype}):
        figure.savefig(text, format="svg", transparent=True, metadata=plain, bbox_inches="tight")
    return text.getvalue()


def _png(image: NDArray[np.uint8]) -> str:
    from PIL import Image as PillowImage

    data = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(image)).save(data, format="PNG", optimize=False)
    return base64.b64encode(data.getvalue()).decode()


def _is_number(value: object) -> bool:
    """Numbers, and texts of numbers alone: ``66.6–69.7``, ``+0.4 to +1.2``, ``12 %``, ``3/4`` or a dash for none."""
    return (
        isinstance(value, int | float | np.number)
        or re.fullmatch(r"(?:[\d.,:/%×<+\-–−±\s]|to)*", str(value)) is not None
    )


LEAST = 8
"""Columns that a text keeps in a table, and a name beside an ellipsis."""


@dataclass(frozen=True, slots=True)
class TerminalTable:
    """A plain table, fitted to the width on which it is printed: numbers stay whole, sentences wrap between words, and
    names and paths that do not fit lose their middle. The title stands on a line of its own, however narrow the table.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        if self.title:
            yield Text(fitted(self.title, options.max_width), style="bold")
        numeric = [i > 0 and bool(self.rows) and all(_numeric(row[i]) for row in self.rows) for i in self._places]
        widths, is_tight = self._widths(numeric, options.max_width)
        new = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=is_tight)
        for name, is_number, width in zip(self.header, numeric, widths, strict=True):
            new.add_column(Text(name), justify="right" if is_number else "left", width=width, overflow="fold")
        for row in self.rows:
            new.add_row(*(Text(fitted(value, width)) for value, width in zip(row, widths, strict=True)))
        yield new

    @property
    def _places(self) -> range:
        return range(len(self.header))

    def _widths(self, numeric: Sequence[bool], room: int) -> tuple[list[int], bool]:
        """The width of each column, and whether they stand closer; where there is no room, headers wrap, and then the
        widest texts give way.
        """
        from rich.cells import cell_len

        cells = [max((cell_len(row[i]) for row in self.rows), default=0) for i in self._places]
        widths = [max(cell_len(name), width) for name, width in zip(self.header, cells, strict=True)]
        if sum(widths) + 3 * (len(widths) - 1) <= room:
            return widths, False
        words = [max(map(cell_len, name.split() or [""])) for name in self.header]
        widths = [max(word, width) for word, width in zip(words, cells, strict=True)]
        texts = [i for i in self._places if not numeric[i]]
        while sum(widths) + 2 * (len(widths) - 1) > room and (wide := [i for i in texts if widths[i] > LEAST]):
            widths[max(wide, key=lambda i: widths[i])] -= 1
        return widths, True


@dataclass(frozen=True, slots=True)
class Name:
    """A cell of a table that Rich lays out by itself: a name that loses its middle where there is no room."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.cells import cell_len
        from rich.measure import Measurement

        width = min(cell_len(self.text), options.max_width)
        return Measurement(min(LEAST, width), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        yield Text(fitted(self.text, options.max_width))


def fitted(text: str, width: int) -> str:
    """`text` whose words have at most `width` columns: of longer ones, which are names and paths, the middle is left
    out.
    """
    from rich.cells import cell_len

    return " ".join(_elided(word, width) if cell_len(word) > width else word for word in text.split(" "))


def _elided(word: str, width: int) -> str:
    from rich.cells import cell_len

    kept = max(width - 1, 1)
    while kept > 1 and cell_len(word[: kept - kept // 2] + word[len(word) - kept // 2 :]) >= width:
        kept -= 1
    return word[: kept - kept // 2] + "…" + word[len(word) - kept // 2 :]


def table(header: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> TerminalTable:
    """A table for the terminal; the first column is text, the others are aligned to the right where they hold
    numbers.
    """
    return TerminalTable(tuple(header), tuple(tuple(str(value) for value in row) for row in rows), title)


def percent(share: float | None, digits: int = 1) -> str:
    """``68.2`` for 0.682; a dash where there is no number. The column's name says that it is per cent."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f}"


def interval(low: float, high: float, digits: int = 1) -> str:
    """``66.6–69.7`` for (0.666, 0.697); empty where there are no numbers."""
    return "" if math.isnan(low) or math.isnan(high) else f"{percent(low, digits)}–{percent(high, digits)}"


def _numeric(text: str) -> bool:
    return not text.strip() or text.strip()[0] in "0123456789-–−+.±" or text.strip() == "n/a"
