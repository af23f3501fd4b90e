"""Boxes of faces in images: what one is, and the columns of a table that name it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from deepfer_yolo.errors import DatasetError
from deepfer_yolo.records import JsonValue

ROUNDING_PX = 1.0
"""By how much a box may pass its image through the rounding of whoever wrote it: such a one is not counted."""
Corners = tuple[float, float, float, float]
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("left", "top", "right", "bottom"),
    ("xtl", "ytl", "xbr", "ybr"),
)
_SIZES = tuple(
    (*start, *size)
    for start in (("x", "y"), ("xmin", "ymin"), ("x1", "y1"), ("left", "top"))
    for size in (("w", "h"), ("width", "height"))
)
_CENTRES = frozenset(
    {"xcenter", "xcentre", "centerx", "centrex", "xc", "cx", "ycenter", "ycentre", "centery", "centrey", "yc", "cy"}
)
_PREFIX = "(boundingbox|facebbox|facebox|bbox|box|face|rect|roi|bb)"
_WORDS = sorted({word for words in (*_CORNERS, *_SIZES) for word in words} | _CENTRES, key=len, reverse=True)
_PART = re.compile(f"{_PREFIX}?({'|'.join(_WORDS)})")
_WHOLE = re.compile(rf"{_PREFIX}(e?s|angle)?(xyxy|ltrb|xywh|ltwh)?")
_FORMS = {"xyxy": "xyxy", "ltrb": "xyxy", "xywh": "xywh", "ltwh": "xywh"}
_PLAIN = frozenset({"x", "y", "w", "h", "width", "height", "left", "top", "right", "bottom", "x0", "y0"})
"""Words that alone, without a word such as bbox before them, may name other things than a box."""


@dataclass(frozen=True, slots=True)
class Box:
    """A face in an image, in pixels or, where `is_share`, in shares of the image's sides; it may pass the image's edge.

    `size` is the width and height that the source states for the image, where it does. Raises ValueError for one that
    has no area.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    is_share: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x1, self.y1, self.x2, self.y2))):
            raise ValueError("box is not finite")
        if self.x1 >= self.x2 or self.y1 >= self.y2:
            raise ValueError(f"the box {self} has no area")

    def __str__(self) -> str:
        return f"{self.x1:g},{self.y1:g},{self.x2:g},{self.y2:g}"

    @classmethod
    def of(cls, values: Iterable[float | str], form: str = "xyxy", size: tuple[int, int] | None = None) -> Box:
        """A box of four numbers or texts: x1 y1 x2 y2, or for `xywh` x y width height. Raises ValueError."""
        try:
            x, y, a, b = map(float, values)
        except OverflowError:
            raise ValueError("box is not finite") from None
        return cls(x, y, a, b, size=size) if form == "xyxy" else cls(x, y, x + a, y + b, size=size)

    def on(self, width: int, height: int) -> tuple[Corners, bool]:
        """The part of the box on an image of this size, xyxy in pixels, and whether it had passed the edge.

        Raises ValueError where nothing of it is on the image, or the source speaks of an image of another size.
        """
        if self.size is not None and self.size != (width, height):
            of = "×".join(map(str, self.size))
            raise ValueError(f"the box is of an image of {of}, and the image has {width}×{height}")
        x, y = (width, height) if self.is_share else (1, 1)
        whole = (self.x1 * x, self.y1 * y, self.x2 * x, self.y2 * y)
        part = (max(0.0, whole[0]), max(0.0, whole[1]), min(float(width), whole[2]), min(float(height), whole[3]))
        if part[2] - part[0] <= 0 or part[3] - part[1] <= 0:
            raise ValueError(f"the box {self} is not inside the image of {width}×{height}")
        if min(part[2] - part[0], part[3] - part[1]) < 1:
            is_like_share = not self.is_share and max(map(abs, whole)) <= 1
            why = "shares of the image, where pixels belong?" if is_like_share else "under one pixel"
            raise ValueError(f"the box {self} of the image of {width}×{height}: {why}")
        return part, max(abs(a - b) for a, b in zip(whole, part, strict=True)) > ROUNDING_PX


@dataclass(frozen=True, slots=True)
class BoxColumns:
    """The columns of a table that name a box: four, or one that holds all four numbers; and those that name the width
    and height of its image, where there are any.
    """

    names: tuple[str, ...]
    form: str
    sides: tuple[str, ...] = ()

    @property
    def may_be_empty(self) -> bool:
        """Whether a row without a box is an image of nothing but a face: so it is with our own column."""
        return self.names == ("box",)

    def box(self, row: Mapping[str, JsonValue]) -> Box | None:
        """The box of a row; None where the row names none. Raises ValueError."""
        values = [row[name] for name in self.names]
        if self.may_be_empty and values[0] in (None, ""):
            return None
        given = values[0] if len(values) == 1 else values
        words = re.sub(r"[\[\](),;]", " ", given).split() if isinstance(given, str) else given
        try:
            if not isinstance(words, list) or len(words) != 4 or any(isinstance(word, bool) for word in words):
                raise ValueError
            numbers = [float(word) for word in words]
        except (TypeError, ValueError, OverflowError):
            shape = "x1 y1 x2 y2" if self.form == "xyxy" else "x y width height"
            name, shown = (self.names[0], given) if len(values) == 1 else ("box", " ".join(map(str, values)))
            raise ValueError(f"{name} is '{str(shown)[:60]}', not {shape}") from None
        return Box.of(numbers, self.form, self._size(row))

    def _size(self, row: Mapping[str, JsonValue]) -> tuple[int, int] | None:
        """The size that a row states for its image; None where it states none."""
        stated = [str(row[name]).strip() for name in self.sides]
        if not all(side.isascii() and side.isdigit() and len(side) < 7 and int(side) for side in stated) or not stated:
            return None
        width, height = map(int, stated)
        return width, height


@lru_cache(64)
def box_columns(columns: tuple[str, ...], form: str | None = None) -> BoxColumns | None:
    """The columns, of those of a table, that name a box; `form` is what the user says of one column for all four.

    None where there are none. Raises ValueError where they name one in a way that is not understood, or two of them.
    """
    compact = {re.sub(r"[\W_]", "", column.lower()): column for column in columns}
    whole = [
        (column, match)
        for word, column in compact.items()
        if (match := _WHOLE.fullmatch(word)) and word not in ("face", "faces")
    ]
    four = _four(compact)
    if four is not None:
        if whole:
            raise ValueError(f"the columns name a box twice: {whole[0][0]} and {', '.join(four.names)}")
        if form not in (None, four.form):
            raise ValueError(f"--box-format {form}, and the columns {', '.join(four.names)} say otherwise")
        return four
    partly = [column for word, column in compact.items() if _is_part(word, compact)]
    if partly:
        raise ValueError(f"the columns {', '.join(partly)[:200]} name a part of a box: rename them, or add the rest")
    if not whole:
        return None
    if len(whole) > 1:
        raise ValueError(f"the columns name a box twice: {', '.join(column for column, _ in whole)[:200]}")
    column, match = whole[0]
    stated = _FORMS[match[3]] if match[3] else None
    if form is not None and stated not in (None, form):
        raise ValueError(f"--box-format {form}, and the column {column} says otherwise")
    known = stated or form or ("xyxy" if column == "box" else None)
    if known is None:
        ask = "say which: --box-format xyxy, or --box-format xywh"
        raise ValueError(f"the column {column} may hold x1 y1 x2 y2 or x y width height; {ask}")
    return BoxColumns((column,), known)


def table_box(file: Path, columns: Sequence[str], form: str | None = None) -> BoxColumns | None:
    """As `box_columns`, of a file's first line. Raises DatasetError."""
    try:
        return box_columns(tuple(columns), form)
    except ValueError as error:
        raise DatasetError(str(error), "a box is used or refused, never passed over", path=file, line=1) from None


def _four(compact: Mapping[str, str]) -> BoxColumns | None:
    """Four columns that name a box together, after the same word where they bear one."""
    prefixes = dict.fromkeys(match[1] or "" for word in compact if (match := _PART.fullmatch(word)))
    for prefix in prefixes:
        for kind, sets in (("xyxy", _CORNERS), ("xywh", _SIZES)):
            for words in sets:
                is_there = all(prefix + word in compact for word in words)
                if is_there and not (prefix + "x3" in compact and words[0] in ("x0", "x1")):  # then they are landmarks
                    return BoxColumns(tuple(compact[prefix + word] for word in words), kind, _sides(compact, words))
    return None


def _sides(compact: Mapping[str, str], words: Sequence[str]) -> tuple[str, ...]:
    """The columns of the image's width and height, beside a box that is not named by such."""
    for before in ("image", "img", ""):
        sides = (f"{before}width", f"{before}height")
        if all(side in compact and side not in words for side in sides):
            return tuple(compact[side] for side in sides)
    return ()


def _is_part(word: str, compact: Mapping[str, str]) -> bool:
    match = _PART.fullmatch(word)
    if match is None:
        return False
    prefix, part = match[1] or "", match[2]
    if prefix + "x3" in compact and re.fullmatch(r"[xy]\d", part):
        return False
    return bool(prefix) or part not in _PLAIN
