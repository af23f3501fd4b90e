"""What a layout is, what its reader is given and yields, and what readers share: images by name, tables, lists."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.image_formats import is_image, why_left_out
from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.layouts.boxes import Box
from deepfer_yolo.data.untrusted import (
    MAX_LINE,
    Problems,
    bounded_lines,
    csv_rows,
    delimiter_of,
    open_list,
    printable,
    walk_files,
)
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import os_reason
from deepfer_yolo.runtime.card import AppliedCorrections

R = TypeVar("R")

REPEATED = "rows that say what another row says"

N_FIRST = 60
"""Images whose names are looked at to recognise a layout."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One labelled image of a source.

    `label` is as the source spells it, or canonical where it had a code. `split` is the official one, or empty. The
    image is `pixels`, uint8 (H, W) or (H, W, 3), or `content`, the bytes of an image file, or else the file `file`.
    `place` says where it stands, for error messages; `name` is a wish for the file name. `box` is the face, where the
    image is more than a face. `listed_as` names the image in quarantine lists where `source_id` does not.
    `sha256` is of the source's file, where a list says it, and `label_before` the label that people corrected.
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
    sha256: str = ""
    label_before: str = ""

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

    A reader may set `title`, `origin`, `licence`, `labels` (known besides the emotions) and `corrections` where the
    source states its own.
    """

    source: Path
    options: ConvertConfig = field(default_factory=ConvertConfig)
    problems: Problems = field(default_factory=Problems)
    fraction: float = 0.0
    title: str = ""
    origin: str = ""
    licence: str = ""
    labels: frozenset[str] = frozenset()
    corrections: tuple[AppliedCorrections, ...] = ()
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
        raise DatasetError(f"the file is not there: {'/'.join((item.file or Path()).parts[-2:])}") from None
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


@dataclass(slots=True)
class Listed:
    """The images that the lists of a source name, whatever their form: tells the faces of one image apart, passes over
    what is said twice, and knows which images no list names. It keeps two numbers an image and two a face.
    """

    reading: Reading
    _n_faces: Counter[int] = field(default_factory=Counter)
    """By the hash of the image's path."""
    _said: dict[int, str] = field(default_factory=dict)
    """Label and split, by the hash of image and box."""

    def item(
        self, place: str, file: Path, label: str, split: str, source_id: str, box: Box | None = None, subject: str = ""
    ) -> Item | None:
        """One face, or one image where there is no `box`; None where a row before says the same, which is counted.

        Raises ValueError where a row before says otherwise.
        """
        image, said = hash(str(file)), sys.intern(f"{label} {split}".strip())
        before = self._said.get(face := hash((image, box)))
        if before is not None and before != said:
            what = file.name if box is None else f"the box {box} of {file.name}"
            raise ValueError(f"{what} is '{said[:80]}' here and '{before[:80]}' before: which of them holds?")
        if before is not None:
            self.reading.left_out[REPEATED] += 1
            return None
        self._said[face] = said
        self._n_faces[image] += 1
        number = self._n_faces[image]
        mark, ending = (f"#{number}", f"_{number}") if number > 1 else ("", "")
        return Item(
            label, split, file.stem + ending, place, file=file, source_id=source_id + mark, subject=subject, box=box
        )

    def note(self, file: Path) -> None:
        """Remember that a list names an image, whatever becomes of its row."""
        self._n_faces[hash(str(file))] += 0

    def count_others(self, folder: Path, what: str) -> None:
        """Count the images under `folder` that no list names as left out, for the reason `what`."""
        others = sum(hash(str(image)) not in self._n_faces for image in images_in(folder))
        if others:
            self.reading.left_out[what] += others


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
    """(place, values by column) of each row of a csv with a header, blanks cut off; a bad row becomes a problem.

    Raises DatasetError where two columns bear one name.
    """
    with open_list(file) as text:
        columns, delimiter = _header(text)
        twice = next((name for name, n in Counter(map(str.lower, columns)).items() if name and n > 1), None)
        if twice is not None:
            reason = f"has two columns called '{printable(twice[:80])}'"
            raise DatasetError(reason, "rename or remove one: which of them holds?", path=file, line=1)
        for number, values in csv_rows(text, file, first=2, delimiter=delimiter):
            place = f"{file.name}, line {number}"
            if len(values) == len(columns):
                yield place, {column: value.strip() for column, value in zip(columns, values, strict=True)}
            else:
                reading.problems.add(place, f"{len(values)} values where {len(columns)} belong")


def table_columns(file: Path) -> list[str]:
    """The column names of a csv; none where it cannot be read as one."""
    try:
        with open_list(file) as text:
            return _header(text)[0]
    except (OSError, csv.Error):
        return []


def _header(text: IO[str]) -> tuple[list[str], str]:
    """The column names in the first line of a csv, and what parts them."""
    line = text.readline(MAX_LINE)
    delimiter = delimiter_of(line)
    return [column.strip() for column in next(csv.reader([line], delimiter=delimiter), [])], delimiter
