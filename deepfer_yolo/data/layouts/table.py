"""A csv or jsonl that names pictures: `path` and `label`, and where wanted `split`, `subject`, `box`.

    path,label,split,subject,box
    faces/a.jpg,happy,train,anna,10 20 90 100
    {"path": "faces/a.jpg", "label": "happy", "split": "train", "subject": "anna", "box": [10, 20, 90, 100]}

Paths are relative to the file's folder. A box is x1 y1 x2 y2 in pixels. The columns may also be called image, file,
filename; emotion, expression.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, read_table, table_columns
from deepfer_yolo.data.untrusted import MAX_LINE, bounded_lines
from deepfer_yolo.errors import SENTENCE, DatasetError
from deepfer_yolo.files import STAGING_MARK

PATH_NAMES = ("path", "image", "file", "filename", "image_path", "img")
LABEL_NAMES = ("label", "emotion", "expression", "class")
SUFFIXES = (".csv", ".jsonl", ".ndjson")


def matches(source: Path) -> bool:
    """True for a csv or jsonl with a path and a label, or for a folder with one such file at its top."""
    return _table(source) is not None


def read(reading: Reading) -> Iterator[Item]:
    """The rows in order; `source_id` is the path as listed."""
    file = _table(reading.source) or reading.source
    if not file.is_file():
        what = "holds no csv or jsonl with a path and a label"
        raise DatasetError(what, "columns: path,label[,split,subject,box]", path=reading.source, form=SENTENCE)
    rows = read_table(file, reading.problems) if file.suffix.lower() == ".csv" else _json_rows(file, reading)
    for place, row in rows:
        try:
            yield _item({key.lower(): value for key, value in row.items()}, file.parent, place)
        except ValueError as error:
            reading.problems.add(place, str(error))


def _item(row: dict[str, Any], folder: Path, place: str) -> Item:
    path, label = (
        str(next((row[name] for name in names if row.get(name) not in (None, "")), ""))
        for names in (PATH_NAMES, LABEL_NAMES)
    )
    if not path or not label:
        raise ValueError("no path or no label")
    inside = PurePosixPath(path.replace("\\", "/"))
    if (inside.is_absolute() or ".." in inside.parts) and any(STAGING_MARK in part for part in folder.parts):
        raise ValueError(f"the path '{path[:80]}' leaves the archive")
    split = str(row.get("split") or "").lower()
    if split and split not in SPLIT_NAMES:
        raise ValueError(f"split is '{split[:40]}', not train, val or test")
    subject = str(row.get("subject") or "")
    return Item(
        label,
        SPLIT_NAMES.get(split, ""),
        inside.stem,
        place,
        file=folder / inside,
        source_id=path,
        subject=subject,
        box=_box(row.get("box")),
    )


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if value in (None, ""):
        return None
    words = value.strip("[]() ").replace(",", " ").split() if isinstance(value, str) else value
    try:
        x1, y1, x2, y2 = (float(word) for word in words)
    except (TypeError, ValueError):
        raise ValueError(f"box is '{str(value)[:60]}', not x1 y1 x2 y2") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise ValueError("box is not finite")
    return x1, y1, x2, y2


def _json_rows(file: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as text:
        for number, line in enumerate(bounded_lines(text, file), 1):
            if not line.strip():
                continue
            place = f"{file.name}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield place, row
            else:
                reading.problems.add(place, "not a JSON object")


def _table(source: Path) -> Path | None:
    if source.is_file():
        return source if _is_table(source) else None
    found = [path for path in sorted(source.iterdir()) if path.is_file() and _is_table(path)] if source.is_dir() else []
    return found[0] if len(found) == 1 else None


def _is_table(file: Path) -> bool:
    if file.suffix.lower() not in SUFFIXES:
        return False
    if file.suffix.lower() == ".csv":
        columns = [column.lower() for column in table_columns(file)]
    else:
        with file.open(encoding="utf-8-sig", errors="replace") as text:
            try:
                first = json.loads(text.readline(MAX_LINE))
            except (ValueError, RecursionError):
                return False
        columns = [key.lower() for key in first] if isinstance(first, dict) else []
    return any(name in columns for name in PATH_NAMES) and any(name in columns for name in LABEL_NAMES)


LAYOUT = Layout("table", "", "", "unknown", matches, read)
