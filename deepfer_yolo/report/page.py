"""One self-contained HTML page: text, tables, figures and pictures, readable on a phone, in light and in dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.errors import MissingDependencyError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.report.template import TEMPLATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#0b0c0d"
"""The colour that figures use for text and axes; in a page it becomes the colour of the text around it."""


class Page:
    """A report under construction; parts appear in the order in which they are added.

    >>> page = Page("Evaluation of deepfer-n", command="deepfer evaluate faces -m deepfer-n.onnx")
    >>> page.add_table(["class", "F1"], [["happy", 0.86]], caption="Per class")
    >>> page.write(Path("report.html"))

    `facts` are the conditions of the numbers (n, versions, hardware), shown in the header. Everything is escaped.
    """

    def __init__(self, title: str, command: str, facts: Iterable[tuple[str, object]] = ()) -> None:
        self.title = title
        self.command = command
        self.facts = [(str(key), str(value)) for key, value in facts]
        self._parts: list[dict[str, Any]] = []

    def add_heading(self, text: str) -> None:
        """Begin a new section."""
        self._parts.append({"kind": "heading", "text": text})

    def add_text(self, text: str) -> None:
        """A paragraph; blank lines part paragraphs."""
        self._parts.extend({"kind": "text", "text": " ".join(part.split())} for part in text.split("\n\n") if part.strip())

    def add_table(self, header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> None:
        """A table; columns that are mostly numbers are aligned to the right. Floats appear as they are: round them first."""
        cells = [list(row) for row in rows]
        numeric = [2 * sum(map(_is_number, column)) > len(cells) for column in zip(*cells, strict=True)]
        texts = [[(str(value), number) for value, number in zip(row, numeric, strict=True)] for row in cells]
        self._parts.append({"kind": "table", "header": list(header), "rows": texts, "caption": caption})

    def add_figure(self, figure: Figure, caption: str, alt: str) -> None:
        """A matplotlib figure as vector graphics; `alt` says in words what it shows."""
        self._parts.append({"kind": "figure", "svg": figure_svg(figure), "caption": caption, "alt": alt})

    def add_pictures(self, pictures: Iterable[tuple[NDArray[np.uint8], Sequence[str]]], caption: str = "") -> None:
        """A grid of pictures, uint8 grey or RGB, each with its caption lines."""
        shown = [{"png": _png(image), "lines": [str(line) for line in lines]} for image, lines in pictures]
        self._parts.append({"kind": "pictures", "pictures": shown, "caption": caption})

    def html(self) -> str:
        """The whole page as text."""
        try:
            from jinja2 import Environment
        except ModuleNotFoundError:
            raise MissingDependencyError.for_extra("eval", "jinja2") from None
        template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE)
        return template.render(title=self.title, command=self.command, facts=self.facts, parts=self._parts)

    def write(self, path: Path) -> Path:
        """Write the page and return its path."""
        # A file name that is no text becomes question marks; refusing the whole report for it would help nobody.
        write_atomic(path, self.html().encode("utf-8", "replace"))
        return path


def figure_svg(figure: Figure) -> str:
    """A figure as an `<svg>` element; the same bytes for the same figure, and no date inside."""
    import matplotlib as mpl
    from markupsafe import Markup

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "deepfer", "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    svg = text.getvalue()
    # The element alone: an XML prologue is an error inside HTML, and the drawing is matplotlib's own output.
    return Markup(svg[svg.index("<svg") :].replace(INK, "currentColor"))  # noqa: S704


def _png(image: NDArray[np.uint8]) -> str:
    from PIL import Image as PillowImage

    data = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(image)).save(data, format="PNG", optimize=False)
    return base64.b64encode(data.getvalue()).decode()


def _is_number(value: object) -> bool:
    """Numbers, and texts made of numbers alone such as ``66.6–69.7``, ``+0.4 to +1.2``, ``12 %``, ``3/4`` or a dash for none."""
    return isinstance(value, int | float | np.number) or re.fullmatch(r"(?:[\d.,:/%×<+\-–−±\s]|to)*", str(value)) is not None
