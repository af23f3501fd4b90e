"""Labels in annotated images: any script, found fonts, and what stands for a label that no font here can write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.records import Face, Frame, Image, Prediction, Track
from deepfer_yolo.report import fonts
from deepfer_yolo.stream.draw import COLOURS, OTHERS, colour_of, draw_faces
from deepfer_yolo.stream.records import Result
from deepfer_yolo.web import bundle

PAGE = Path(bundle.__file__).parent / "page"


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A system without any font, but for matplotlib's."""
    monkeypatch.setattr(fonts, "FOLDERS", {sys.platform: (str(tmp_path),), "linux": (str(tmp_path),)})
    caches = (fonts.font_files, fonts.font_for, fonts.drawn_as)
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def frame_with(label: str, labels: tuple[str, ...], width: int = 320) -> Result:
    """One face on a flat green image, labelled with 90 %."""
    image = np.full((256, width, 3), (20, 120, 20), np.uint8)
    probs = np.full(len(labels), 0.1 / max(1, len(labels) - 1), np.float32)
    probs[labels.index(label)] = 0.9
    seen = Prediction(probs / probs.sum(), labels)
    face = Face(np.array([40, 80, 140, 180], np.float32), 0.9)
    return Result(Frame(0, 0.0, "pts", image, "x"), 0, (Track(1, face, seen, seen, 1.0, label),))


def chip(label: str, labels: tuple[str, ...], width: int = 320) -> Image:
    """The part of the drawn image above the face."""
    return draw_faces(frame_with(label, labels, width))[:79]


def test_accents_are_drawn_and_not_question_marks() -> None:
    umlaut, plain, marks = (chip(name, (name, "wach")) for name in ("müde", "mude", "m??de"))
    assert (umlaut != plain).any()
    assert (umlaut != marks).any()
    # The dots stand above the letter: ü and u differ there alone, in one font.
    font = fonts.font_for("üu")
    assert font is not None
    dotted, bare = (draw_mask(name, font) for name in ("ü", "u"))
    assert dotted.sum() > bare.sum()


def draw_mask(text: str, font: Path) -> Image:
    from deepfer_yolo.stream.draw import _mask

    return _mask(text, font, 40)


@pytest.mark.parametrize("label", ["高兴", "счастье", "嬉しい"])
def test_a_script_is_drawn_where_a_font_has_it(label: str) -> None:
    font = fonts.font_for(label)
    if font is None:
        pytest.skip(f"no font of this system has the characters of {label}")
    assert fonts.drawn_as(label, 0) == (label, font)
    assert fonts.drawing_note((label,)) == ""
    first, second = draw_mask(label[0], font), draw_mask(label[1], font)
    assert first.shape != second.shape or (first != second).any(), "each character is itself, not a box for all"
    assert (chip(label, (label, "x")) != (20, 120, 20)).any()


@pytest.mark.usefixtures("no_fonts")
def test_without_a_font_a_label_is_spelt_plainly_or_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "find_spec", lambda name: None)
    labels = ("müde", "süß", "高兴", "wach")
    assert [fonts.drawn_as(label, i)[0] for i, label in enumerate(labels)] == ["mude", "suss", "#2", "wach"]
    assert fonts.drawing_note(labels) == (
        "no font here has every character of the labels, so that images show müde as mude, süß as suss, 高兴 as #2; "
        "install a font that has them"
    )
    assert fonts.drawing_note(EMOTIONS) == ""
    assert (chip("高兴", labels) == chip("#2", ("a", "b", "#2", "c"))).mean() > 0.9


@pytest.mark.usefixtures("no_fonts")
def test_fonts_that_have_a_glyph_for_everything_are_not_taken() -> None:
    assert fonts.font_for("高兴") is None, "matplotlib brings LastResort, which draws boxes"
    assert fonts.font_for("müde") is not None


def test_broken_font_files_are_passed_over(no_fonts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.ttf").write_bytes(b"no font")
    (tmp_path / "b.ttf").mkdir()
    assert fonts.font_for("ü") is not None


def test_a_long_label_stays_inside_the_image() -> None:
    name = "ein sehr langes Etikett ohne Ende, das niemand lesen wird, müde"
    assert fonts.drawn_as(name, 0)[0] == "ein sehr langes Etiket.."
    for label in (name, name.replace("ü", "u"), "ü" * 60):
        drawn = draw_faces(frame_with(label, (label, "x"), width=256))
        assert drawn.shape == (256, 256, 3)
        assert (drawn[:79] != (20, 120, 20)).any()


def test_labels_without_a_colour_of_their_own_get_different_ones() -> None:
    labels = tuple(f"person {i:03d}" for i in range(100))
    assert len({colour_of(label, labels) for label in labels[:8]}) == 8
    assert set(OTHERS) == {colour_of(label, labels) for label in labels}
    assert colour_of("happy", labels) == COLOURS["happy"]
    # Beside emotions the others begin with colours that none of these has.
    mixed = ("bored", "happy", "sad")
    assert len({colour_of(label, mixed) for label in mixed}) == 3


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the page's script")
def test_the_page_has_the_same_colours() -> None:
    labels = ["awake", "bored", "happy", "müde", "sad", "高兴"]
    script = (
        "globalThis.document = {}; globalThis.window = {}; globalThis.location = {};"
        f"const page = await import({json.dumps((PAGE / 'elements.js').as_uri())});"
        f"const labels = {json.dumps(labels)}; page.knowLabels(labels);"
        "console.log(JSON.stringify(labels.map(page.colourOf)));"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    ours = ["#{:02x}{:02x}{:02x}".format(*colour_of(label, tuple(labels))) for label in labels]
    assert json.loads(done.stdout) == ours


def test_a_font_is_looked_for_and_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    umlaut = frame_with("müde", ("müde", "wach"))
    before = draw_faces(umlaut)
    for owner, name in ((fonts, "font_files"), (fonts, "_has_all"), (ImageFont, "truetype")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("once for all frames is enough"))
    assert np.array_equal(draw_faces(umlaut), before)


def test_ascii_asks_for_no_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "font_for", lambda _: pytest.fail("OpenCV writes this"))
    fonts.drawn_as.cache_clear()
    draw_faces(frame_with("happy", EMOTIONS))


def test_stream_says_what_it_cannot_draw(tmp_path: Path, write_linear_model: Callable[..., Path]) -> None:
    weights = np.zeros((2, 16 * 16 * 3), np.float32)
    model = write_linear_model(tmp_path / "m.onnx", weights, np.array([2, 0], np.float32), labels=("ကောင်း", "müde"))
    words = ["stream", "testsrc", "-m", str(model), "--detector", "whole", "--max-frames", "2"]
    for sink, is_drawn in (("jsonl=a.jsonl", False), ("video=a.mp4", True)):
        done = subprocess.run(
            [sys.executable, "-m", "deepfer_yolo", *words, "--sink", sink],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=120,
            env={**os.environ, "MPLBACKEND": "agg"},
        )
        assert done.returncode == 0, done.stderr
        is_missing = fonts.font_for("ကောင်း") is None
        assert ("note: no font here has every character" in done.stderr) == (is_drawn and is_missing)
