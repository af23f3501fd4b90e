"""What a layout is, what its reader is given and yields, and what readers share: images by name, tables, lists."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.image_formats import is_image, why_left_out
from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.layouts.boxes import Box
from deepfer_yolo.data.untrusted import MAX_LINE, Problems, bounded_lines, csv_rows, open_list, walk_files
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import os_reason

R = TypeVar("R")

N_FIRST = 60
"""Images whose names are looked at to recognise a layout."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One labelled image of a source.

    `label` is as the source spells it, or canonical where it had a code. `split` is the official one, or empty. The
    image is `pixels`, uint8 (H, W) or (H, W, 3), or `content`, the bytes of an image file, or else the file `file`.
    `place` says where it stands, for error messages; `name` is a wish for the file name. `box` is the face, where the
    image is more than a face. `listed_as` names the image in quarantine lists where `source_id` does not.
    """

    label: str
    split: str
    name: str
    place: str
    pixels: NDArray[np.uint8] | None = None
    content: bytes | None = None
    file: Path | None = None
    source_id: str = ""
    subject: str = ""
    votes: str = ""
    box: Box | None = None
    listed_as: str = ""

    @property
    def key(self) -> str:
        """What quarantine lists call the image."""
        return self.listed_as or self.source_id

    @classmethod
    def of_file(cls, root: Path, file: Path, label: str, split: str = "", subject: str = "") -> Item:
        """The image `file` of the folder `root`, known by its path in there."""
        inside = file.relative_to(root).as_posix()
        return cls(label, split, file.stem, inside, file=file, source_id=inside, subject=subject)


@dataclass(slots=True)
class Reading:
    """One pass over a source: what was found wrong, how far it is (`fraction`, 0 to 1), what was left out and why.

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
    """One known layout: its name for `--layout`, what it is, and its reader.

    One that is for `--layout` alone is never taken for what a source is, since its shape says too little.
    """

    name: str
    title: str
    source: str
    licence: str
    matches: Callable[[Path], bool]
    read: Callable[[Reading], Iterator[Item]]
    is_on_request: bool = False


def item_pixels(item: Item, margin: float = 0.0) -> tuple[NDArray[np.uint8], bool]:
    """uint8 grey (H, W) or RGB (H, W, 3), cut to the box with `margin` around it; and whether the box was clipped.

    Raises DatasetError where the file is broken or gone, or the box lies outside the image.
    """
    if item.pixels is not None:
        return item.pixels, False
    try:
        image = load_image(item.file or Path() if item.content is None else item.content)
    except FileNotFoundError:
        raise DatasetError("the file is not there") from None
    except OSError as error:
        raise DatasetError(f"cannot be read ({os_reason(error)})") from None
    if item.box is None:
        return image, False
    from deepfer_yolo.faces.align import cut
    from deepfer_yolo.records import Face
    from deepfer_yolo.runtime.card import CropSpec

    try:
        box, is_clipped = item.box.on(image.shape[1], image.shape[0])
    except ValueError as error:
        raise DatasetError(str(error)) from None
    return cut(image, Face(np.array(box, np.float32), 1.0), CropSpec(margin=margin)), is_clipped


def images_in(folder: Path, reading: Reading | None = None) -> Iterator[Path]:
    """Image files under `folder`, by suffix, sorted.

    What else lies there is counted in `reading`, with the reason; links that lead nowhere, pipes and the like are
    problems.
    """
    for path in walk_files(folder, reading.problems if reading else Problems()):
        if is_image(path):
            yield path
        elif reading is not None:
            reading.left_out[why_left_out(path)] += 1


def first_images(source: Path) -> list[Path]:
    """A few images of a folder, to recognise a layout by their names; none where it is a file."""
    return list(islice(images_in(source), N_FIRST)) if source.is_dir() else []


def share_named(source: Path, pattern: re.Pattern[str]) -> float:
    """The share of a folder's first images whose names `pattern` describes."""
    first = first_images(source)
    return sum(bool(pattern.fullmatch(path.stem)) for path in first) / max(1, len(first))


def items_of(reading: Reading, rows: Iterable[tuple[str, R]], item: Callable[[str, R], Item | None]) -> Iterator[Item]:
    """What `item` makes of each (place, row); a ValueError that it raises becomes a problem, None is passed over."""
    for place, row in rows:
        try:
            made = item(place, row)
        except ValueError as error:
            reading.problems.add(place, str(error))
        else:
            if made is not None:
                yield made


def read_named(
    reading: Reading, pattern: re.Pattern[str], codes: Mapping[str, str] | None, example: str | None
) -> Iterator[Item]:
    """All images of a folder whose names hold a `subject` and, where there are `codes`, a `code`; else the folder above
    is the label. One that is named otherwise is a problem, or without an `example` to name in it left out and counted.
    """
    paths = list(images_in(reading.source, reading))
    for done, path in enumerate(paths):
        reading.fraction = done / len(paths)
        name = pattern.fullmatch(path.stem)
        if name is not None:
            label = path.parent.name if codes is None else codes[name["code"].upper()]
            yield Item.of_file(reading.source, path, label, subject=name["subject"].upper())
        elif example is None:
            reading.left_out["no expression code in the name"] += 1
        else:
            inside = path.relative_to(reading.source).as_posix()
            reading.problems.add(inside, f"the name is not like {example}")


def read_lines(file: Path, reading: Reading) -> Iterator[tuple[str, str]]:
    """(place, line) of each line of a list that is not blank."""
    size, done = max(1, file.stat().st_size), 0
    with open_list(file) as text:
        for number, line in enumerate(bounded_lines(text, file), 1):
            done += len(line)
            reading.fraction = done / size
            if line.strip():
                yield f"{file.name}, line {number}", line


def read_table(file: Path, reading: Reading) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, values by column) of each row of a csv with a header, blanks cut off; a bad row becomes a problem."""
    with open_list(file) as text:
        rows = csv_rows(text, file)
        columns = [column.strip() for column in next(rows, (0, []))[1]]
        for number, values in rows:
            place = f"{file.name}, line {number}"
            if len(values) == len(columns):
                yield place, {column: value.strip() for column, value in zip(columns, values, strict=True)}
            else:
                reading.problems.add(place, f"{len(values)} values where {len(columns)} belong")


def table_columns(file: Path) -> list[str]:
    """The column names of a csv; none where it cannot be read as one."""
    try:
        with open_list(file) as text:
            return [column.strip() for column in next(csv.reader([text.readline(MAX_LINE)]), [])]
    except (OSError, csv.Error):
        return []
