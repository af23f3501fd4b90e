"""Which font of this system has the characters of a label, and what is written where none has."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from deepfer_yolo.errors import listed

FOLDERS = {
    "linux": ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (r"%WINDIR%\Fonts", r"%LOCALAPPDATA%\Microsoft\Windows\Fonts"),
}
SUFFIXES = (".ttf", ".ttc", ".otf", ".otc")
EMPTY = ("lastresort", "adobeblank")
"""Fonts that have a glyph for every character, and the same one for many."""
MAX_FILES = 4000
"""Files that are looked at: no system needs more, and a folder of designs may hold any number."""
PROBE_PX = 24
NO_CHARACTER = "\U0010fffe"
"""What no font has: its glyph is the one that stands for all that are missing."""
PLAIN = ("notosans-regular", "dejavusans", "liberationsans-regular", "arial", "segoeui", "helvetica")
"""Fonts that are tried first; then regular ones, then the others."""
STYLES = ("bold", "italic", "oblique", "black", "light", "thin", "medium", "condensed", "mono", "serif", "narrow")
MAX_DRAWN = 24
"""Characters of a label in an image."""
SPELT = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "þ": "th", "ı": "i", "ẞ": "SS"}


@lru_cache(256)
def font_for(text: str) -> Path | None:
    """The first font file of this system that has every character of `text`, and digits; None where none has."""
    characters = sorted({*text, *"0123456789%"} - {" "})
    return next((path for path in font_files() if _has_all(path, characters)), None)


@lru_cache(1)
def font_files() -> tuple[Path, ...]:
    """The font files of this system, plain ones first; matplotlib's own among them."""
    found: list[Path] = []
    for folder in font_folders():
        for parent, folders, names in os.walk(folder):
            folders.sort()
            found += [Path(parent, name) for name in sorted(names) if _is_font(name.lower())]
            if len(found) >= MAX_FILES:
                break
    return tuple(sorted(found[:MAX_FILES], key=_rank))


def font_folders() -> list[Path]:
    """Where this system keeps fonts, and the folder that matplotlib brings."""
    named = FOLDERS.get(sys.platform, FOLDERS["linux"])
    spec = find_spec("matplotlib")
    own = [Path(spec.origin).parent / "mpl-data/fonts/ttf"] if spec is not None and spec.origin else []
    return [*(Path(os.path.expandvars(folder)).expanduser() for folder in named), *own]


def _is_font(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(EMPTY)


def _rank(path: Path) -> int:
    stem = path.stem.lower()
    if stem in PLAIN:
        return PLAIN.index(stem)
    return len(PLAIN) + any(style in stem for style in STYLES)


def _has_all(path: Path, characters: Iterable[str]) -> bool:
    from PIL import ImageFont

    try:
        font = ImageFont.truetype(str(path), PROBE_PX)
        missing = bytes(font.getmask(NO_CHARACTER))
        return all(bytes(font.getmask(character)) != missing for character in characters)
    except (OSError, ValueError):
        return False  # a broken font file, or one in a format that Pillow does not read


@lru_cache(4096)
def drawn_as(label: str, number: int) -> tuple[str, Path | None]:
    """What stands for a label in an image, `number` being its place in the model's order from 0, and the font for it.

    None is the plain font, which has ASCII alone. Where no font has the label's characters it is spelt without its
    accents, or else is its number.
    """
    short = label if len(label) <= MAX_DRAWN else f"{label[: MAX_DRAWN - 2]}.."
    if short.isascii():
        return short, None
    if (font := font_for(short)) is not None:
        return short, font
    plain = "".join(SPELT.get(c, c) for c in unicodedata.normalize("NFKD", short) if not unicodedata.combining(c))
    return (plain, None) if plain.isascii() and plain.isprintable() else (f"#{number}", None)


def drawing_note(labels: Sequence[str]) -> str:
    """What to say of the labels that no font of this system can write; empty where there are none."""
    drawn = {label: drawn_as(label, number) for number, label in enumerate(labels) if not label.isascii()}
    otherwise = [f"{label} as {text}" for label, (text, font) in drawn.items() if font is None]
    if not otherwise:
        return ""
    shown = f"images show {listed(otherwise)}"
    return f"no font here has every character of the labels, so that {shown}; install a font that has them"
