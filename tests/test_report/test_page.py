"""The HTML page."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from deepfer_yolo.report import plots
from deepfer_yolo.report.page import INK, Page


class Outline(HTMLParser):
    """Checks that tags nest, and collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [
            value
            for key, value in attrs
            if key in {"src", "href", "xlink:href"} and value and not value.startswith(("data:", "#"))
        ]
        if tag not in {"meta", "img", "br", "path", "use", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def sample() -> Page:
    page = Page("A <title>", "deepfer evaluate 'x' && y", [("n", 3)])
    page.add_heading("Heading")
    page.add_text("one <script>alert(1)</script>\n\ntwo")
    page.add_table(["class", "F1"], [["<b>", 0.5], ["c", 0.25]], "caption")
    page.add_figure(plots.confusion_matrix([[3, 1], [0, 2]], ["a", "b"]), "figure caption", 'alt "text"')
    page.add_images([(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), ["line & one", "two"])])
    return page


def test_everything_is_escaped_and_nothing_is_fetched() -> None:
    html = sample().html()
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert outline.fetched == []
    assert "<script" not in html
    assert "A &lt;title&gt;" in html
    assert "x&#x27; &amp;&amp; y" in html
    assert "line &amp; one" in html
    assert "<p>two</p>" in html
    assert '<td class="number">0.25</td>' in html


def test_images_survive_bit_for_bit() -> None:
    encoded = re.findall(r"data:image/png;base64,([^\"]+)", sample().html())
    assert len(encoded) == 1
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[0])))), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    )


def test_same_content_same_bytes(tmp_path: Path) -> None:
    assert sample().write(tmp_path / "a.html").read_bytes() == sample().write(tmp_path / "b.html").read_bytes()


def test_figures_take_the_ink_of_the_page() -> None:
    html = sample().html()
    assert INK not in html
    assert html.count("currentColor") > 5
    assert "<?xml" not in html
