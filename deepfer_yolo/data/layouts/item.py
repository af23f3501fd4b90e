"""What a reader yields, and what it is given."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.images import SUFFIXES, load_image
from deepfer_yolo.data.untrusted import MAX_LINE, Problems, csv_rows, walk_files
from deepfer_yolo.errors import DatasetError

ENOUGH = 60


def pictures(folder: Path, problems: Problems | None = None) -> Iterator[Path]:
    """Picture files under `folder`, by suffix, sorted; links that lead nowhere, pipes and the like become problems."""
    return (path for path in walk_files(folder, problems or Problems()) if path.suffix.lower() in SUFFIXES)


def first_pictures(folder: Path) -> list[Path]:
    """A few pictures, to recognise a layout by their names."""
    return list(islice(pictures(folder), ENOUGH))


def read_table(file: Path, problems: Problems) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, values by column) of each row of a csv with a header; blanks around names and values are cut; bad rows
    become problems.
    """
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        rows = csv_rows(text, file)
        columns = [column.strip() for column in next(rows, (0, []))[1]]
        for number, values in rows:
            place = f"{file.name}, line {number}"
            if len(values) == len(columns):
                yield place, {column: value.strip() for column, value in zip(columns, values, strict=True)}
            else:
                problems.add(place, f"{len(values)} values where {len(columns)} belong")


def table_columns(file: Path) -> list[str]:
    """The column names of a csv; none where it cannot be read as one."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            return [column.strip() for column in next(csv.reader([text.readline(MAX_LINE)]), [])]
    except (OSError, csv.Error):
        return []


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One labelled picture of a source.

    `label` is as the source spells it, or canonical where it had a code. `split` is the official one, or empty. The
    picture is `pixels` (uint8, (H, W) or (H, W, 3)) or else the file `file`. `place` says where it stands, for error
    messages; `name` is a wish for the file name. `box` is the face, xyxy in pixels, where the picture is more than a
    face. `key` names the picture in quarantine lists; where it is empty, `source_id` does.
    """

    label: str
    split: str
    name: str
    place: str
    pixels: NDArray[np.uint8] | None = None
    file: Path | None = None
    source_id: str = ""
    subject: str = ""
    votes: str = ""
    box: tuple[float, float, float, float] | None = None
    key: str = ""


@dataclass(slots=True)
class Reading:
    """One pass over a source: where it is, what was found wrong, and how far it is (`fraction`, 0 to 1), what was left
    out and why.

    A reader may set `title`, `origin`, `licence` and `labels` (known besides the emotions) where the source states its
    own.
    """

    source: Path
    options: ConvertConfig = field(default_factory=ConvertConfig)
    problems: Problems = field(default_factory=Problems)
    fraction: float = 0.0
    title: str = ""
    origin: str = ""
    licence: str = ""
    labels: frozenset[str] = frozenset()
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Layout:
    """One known layout: its name for `--layout`, what it is, and its reader."""

    name: str
    title: str
    source: str
    licence: str
    matches: Callable[[Path], bool]
    read: Callable[[Reading], Iterator[Item]]


def item_pixels(item: Item, margin: float = 0.0) -> NDArray[np.uint8]:
    """uint8 grey (H, W) or RGB (H, W, 3).

    Raises DatasetError where the file is broken or gone, or the box lies outside the picture.
    """
    if item.pixels is not None:
        return item.pixels
    try:
        image = load_image(item.file or Path())
    except FileNotFoundError:
        raise DatasetError("the file is not there") from None
    if item.box is None:
        return image
    from deepfer_yolo.faces.align import cut
    from deepfer_yolo.records import Face
    from deepfer_yolo.runtime.card import CropSpec

    x1, y1, x2, y2 = item.box
    height, width = image.shape[:2]
    if not (x1 < x2 and y1 < y2 and x1 < width and y1 < height and x2 > 0 and y2 > 0):
        raise DatasetError(f"the box {x1:g},{y1:g},{x2:g},{y2:g} is not inside the picture of {width}×{height}")
    return cut(image, Face(np.array(item.box, np.float32), 1.0), CropSpec(margin=margin))
