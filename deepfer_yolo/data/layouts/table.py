"""A csv or jsonl that names images: `path` and `label`, and where wanted `split`, `subject`, `box`.

    path,label,split,subject,box
    faces/a.jpg,happy,train,anna,10 20 90 100
    {"path": "faces/a.jpg", "label": "happy", "split": "train", "subject": "anna", "box": [10, 20, 90, 100]}

Paths are relative to the file's folder, or to `--root`. A box is x1 y1 x2 y2 in pixels, and becomes one image. The
columns may also be called image, file, filename; emotion, expression, and be parted by ; or tabs. Boxes may also stand
in four columns (xmin ymin xmax ymax, x1 y1 x2 y2, left top width height, x y w h and the like), or in a column such as
bbox, of which --box-format says whether it holds x1 y1 x2 y2 or x y width height. Columns that name a box in another
way are refused. Rows without a label, as a test may have, are left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deepfer_yolo.data.layouts.boxes import box_columns, table_box
from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import (
    Item,
    Layout,
    Listed,
    Reading,
    items_of,
    read_lines,
    read_table,
    table_columns,
)
from deepfer_yolo.data.untrusted import MAX_LINE, leaves_folder, listing, open_list, printable
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import STAGING_MARK
from deepfer_yolo.records import JsonValue

PATH_NAMES = ("path", "image", "file", "filename", "file_name", "image_path", "img", "pth")
LABEL_NAMES = ("label", "emotion", "expression", "class")
SUFFIXES = (".csv", ".jsonl", ".ndjson")
NO_LABEL = "images without a label"


def matches(source: Path) -> bool:
    """True for a csv or jsonl with a path and a label, or for a folder with one such file at its top."""
    return _table(source) is not None


def read(reading: Reading, *, with_boxes: bool = True) -> Iterator[Item]:
    """The rows in order; `source_id` is the path as listed, and the face's number from its second one on.

    Raises DatasetError where columns name a box in a way that is not understood, unless boxes are not wanted.
    """
    file = _table(reading.source) or reading.source
    if not file.is_file():
        reason = "holds no csv or jsonl with a path and a label"
        raise DatasetError(reason, "columns: path,label[,split,subject,box]", path=reading.source)
    return read_list(reading, file, reading.options.root or file.parent, with_boxes=with_boxes)


def read_list(reading: Reading, file: Path, folder: Path, *, with_boxes: bool = True) -> Iterator[Item]:
    """The rows of a csv or jsonl, whose paths are relative to `folder`."""
    if not folder.is_dir():
        raise DatasetError("no such folder of images", "--root names where the images of a list lie", path=folder)
    rows = TableRows(Listed(reading), folder, reading.options.box_format, with_boxes)
    if file.suffix.lower() == ".csv" and with_boxes:
        table_box(file, [column.lower() for column in table_columns(file)], rows.box_format)
    yield from items_of(reading, read_rows(file, reading), rows.item)
    if reading.source.is_dir() or reading.options.root is not None:  # else the folder may hold anything
        rows.listed.count_others(folder, f"images that {printable(file.name)} does not name")


def read_rows(file: Path, reading: Reading) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    """(place, values by column) of each row of a csv or jsonl; a bad row becomes a problem."""
    if file.suffix.lower() == ".csv":
        yield from read_table(file, reading)
        return
    for place, line in read_lines(file, reading):
        try:
            yield place, _parsed(line)
        except ValueError as error:
            reading.problems.add(place, str(error))


@dataclass(slots=True)
class TableRows:
    """Makes items of the rows of a table in `folder`."""

    listed: Listed
    folder: Path
    box_format: str | None
    with_boxes: bool = True

    def item(self, place: str, row: Mapping[str, JsonValue]) -> Item | None:
        """The item of one row; None where it has no label, or another row says the same. Raises ValueError."""
        row = {key.lower(): value for key, value in row.items()}
        path, split, subject = (
            str(next((row[name] for name in names if row.get(name) not in (None, "")), ""))
            for names in (PATH_NAMES, ("split",), ("subject",))
        )
        if not path:
            raise ValueError("no path")
        inside = PurePosixPath(path.replace("\\", "/"))
        self.listed.note(self.folder / inside)
        if not (label := _label(row)):
            self.listed.reading.left_out[NO_LABEL] += 1
            return None
        if leaves_folder(str(inside)) and any(STAGING_MARK in part for part in self.folder.parts):
            raise ValueError(f"the path '{path[:80]}' leaves the archive")
        if split and split.lower() not in SPLIT_NAMES:
            raise ValueError(f"split is '{split[:40]}', not train, val or test")
        columns = box_columns(tuple(row), self.box_format) if self.with_boxes else None
        box = None if columns is None else columns.box(row)
        split = SPLIT_NAMES.get(split.lower(), "")
        return self.listed.item(place, self.folder / inside, label, split, str(inside), box, subject)


def _label(row: Mapping[str, JsonValue]) -> str:
    """The label of a row, a word before a number; empty where there is none. Raises ValueError where two differ."""
    given = {name: str(row[name]) for name in LABEL_NAMES if row.get(name) not in (None, "")}
    told = {name: label for name, label in given.items() if not label.isdecimal()} or given
    if len({canonical_label(label) or label.casefold() for label in told.values()}) > 1:
        said = " and ".join(f"{name} is '{label[:80]}'" for name, label in told.items())
        raise ValueError(f"{said}: keep one of these columns, or rename the other")
    return next(iter(told.values()), "")


def _parsed(line: str) -> Mapping[str, JsonValue]:
    """One line of a jsonl. Raises ValueError where it is no JSON object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def _table(source: Path) -> Path | None:
    if source.is_file():
        return source if is_table(source) else None
    found = [path for path in listing(source) if path.is_file() and is_table(path)] if source.is_dir() else []
    return found[0] if len(found) == 1 else None


def columns_of(file: Path) -> list[str]:
    """The columns of a csv, or the keys of a jsonl's first line; none where it cannot be read as one."""
    if file.suffix.lower() == ".csv":
        return table_columns(file)
    with open_list(file) as text:
        try:
            return list(_parsed(text.readline(MAX_LINE)))
        except ValueError:
            return []


def is_table(file: Path) -> bool:
    """Whether a file is a csv or jsonl whose columns name a path and a label."""
    columns = {name.lower() for name in columns_of(file)} if file.suffix.lower() in SUFFIXES else set()
    return not columns.isdisjoint(PATH_NAMES) and not columns.isdisjoint(LABEL_NAMES)


LAYOUT = Layout("table", title="", source="", licence="unknown", matches=matches, read=read)
