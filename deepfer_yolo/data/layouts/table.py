"""A csv or jsonl that names images: `path` and `label`, and where wanted `split`, `subject`, `box`.

    path,label,split,subject,box
    faces/a.jpg,happy,train,anna,10 20 90 100
    {"path": "faces/a.jpg", "label": "happy", "split": "train", "subject": "anna", "box": [10, 20, 90, 100]}

Paths are relative to the file's folder, or to `--root`. A box is x1 y1 x2 y2 in pixels. The columns may also be called
image, file, filename; emotion, expression.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, items_of, read_lines, read_table, table_columns
from deepfer_yolo.data.untrusted import MAX_LINE, leaves_folder, listing, open_list
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import STAGING_MARK
from deepfer_yolo.records import JsonValue

PATH_NAMES = ("path", "image", "file", "filename", "image_path", "img", "pth")
LABEL_NAMES = ("label", "emotion", "expression", "class")
SUFFIXES = (".csv", ".jsonl", ".ndjson")


def matches(source: Path) -> bool:
    """True for a csv or jsonl with a path and a label, or for a folder with one such file at its top."""
    return _table(source) is not None


def read(reading: Reading) -> Iterator[Item]:
    """The rows in order; `source_id` is the path as listed."""
    file = _table(reading.source) or reading.source
    if not file.is_file():
        reason = "holds no csv or jsonl with a path and a label"
        raise DatasetError(reason, "columns: path,label[,split,subject,box]", path=reading.source)
    return read_list(reading, file, reading.options.root or file.parent)


def read_list(reading: Reading, file: Path, folder: Path) -> Iterator[Item]:
    """The rows of a csv or jsonl, whose paths are relative to `folder`."""
    if not folder.is_dir():
        raise DatasetError("no such folder of images", "--root names where the images of a list lie", path=folder)
    if file.suffix.lower() == ".csv":
        return items_of(reading, read_table(file, reading), partial(_item, folder))
    return items_of(reading, read_lines(file, reading), lambda place, line: _item(folder, place, _parsed(line)))


def _item(folder: Path, place: str, row: Mapping[str, JsonValue]) -> Item:
    row = {key.lower(): value for key, value in row.items()}
    path, label, split, subject = (
        str(next((row[name] for name in names if row.get(name) not in (None, "")), ""))
        for names in (PATH_NAMES, LABEL_NAMES, ("split",), ("subject",))
    )
    if not path or not label:
        raise ValueError("no path or no label")
    inside = PurePosixPath(path.replace("\\", "/"))
    if leaves_folder(str(inside)) and any(STAGING_MARK in part for part in folder.parts):
        raise ValueError(f"the path '{path[:80]}' leaves the archive")
    if split and split.lower() not in SPLIT_NAMES:
        raise ValueError(f"split is '{split[:40]}', not train, val or test")
    split, box = SPLIT_NAMES.get(split.lower(), ""), _box(row.get("box"))
    return Item(label, split, inside.stem, place, file=folder / inside, source_id=path, subject=subject, box=box)


def _box(value: JsonValue) -> tuple[float, float, float, float] | None:
    if value in (None, ""):
        return None
    words = value.strip("[]() ").replace(",", " ").split() if isinstance(value, str) else value
    try:
        x1, y1, x2, y2 = (float(word) for word in words)  # type: ignore[arg-type, union-attr]
    except (TypeError, ValueError):
        raise ValueError(f"box is '{str(value)[:60]}', not x1 y1 x2 y2") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise ValueError("box is not finite")
    return x1, y1, x2, y2


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


def is_table(file: Path) -> bool:
    """Whether a file is a csv or jsonl whose columns name a path and a label."""
    if file.suffix.lower() not in SUFFIXES:
        return False
    if file.suffix.lower() == ".csv":
        names = table_columns(file)
    else:
        with open_list(file) as text:
            try:
                names = list(_parsed(text.readline(MAX_LINE)))
            except ValueError:
                return False
    columns = {name.lower() for name in names}
    return not columns.isdisjoint(PATH_NAMES) and not columns.isdisjoint(LABEL_NAMES)


LAYOUT = Layout("table", title="", source="", licence="unknown", matches=matches, read=read)
