"""Images beside a table that says their labels, as Hugging Face's `imagefolder` has them.

    train/metadata.csv    train/0001.png    validation/metadata.csv    validation/0001.png
    file_name,label
    0001.png,happy

The table is metadata.csv or metadata.jsonl, at the top or in each split folder (also in `data`), and paths are relative
to its folder. The split is that of the folder, at the top that of a column `split` or of the path's first folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from deepfer_yolo.data.layouts.boxes import table_box
from deepfer_yolo.data.layouts.item import Item, Layout, Listed, Reading, items_of
from deepfer_yolo.data.layouts.shards import (
    LABEL_COLUMNS,
    SPLITS,
    ShardLabels,
    choose,
    find_shards,
    is_number,
)
from deepfer_yolo.data.layouts.table import TableRows, columns_of, read_rows
from deepfer_yolo.data.untrusted import leaves_folder
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.records import JsonValue

TABLES = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"


def matches(source: Path) -> bool:
    """True for a folder whose metadata.csv or .jsonl has `file_name` and a label."""
    return any(FILE_NAME in columns and bool(_labels(columns)) for _, columns in _tables(source))


def read(reading: Reading) -> Iterator[Item]:
    """The rows in order; `source_id` is the path inside the folder."""
    tables, labels, listed = _tables(reading.source), ShardLabels(reading), Listed(reading)
    if not tables:
        reason = "holds no metadata.csv or metadata.jsonl"
        raise DatasetError(reason, "with the columns file_name,label", path=reading.source)
    folders = [file.parent for file, _ in tables]
    if len(set(folders)) < len(folders):
        raise DatasetError("holds both metadata.csv and metadata.jsonl", "keep one", path=folders[0])
    for position, (file, columns) in enumerate(tables):
        if FILE_NAME not in columns:
            raise DatasetError(f"no column '{FILE_NAME}'", "it names the images", path=file, line=1)
        table_box(file, [column.lower() for column in columns], reading.options.box_format)
        inside = file.parent.relative_to(reading.source).as_posix()
        part = "" if inside == "." else f"{inside}/"
        first = [row for _, row in islice(read_rows(file, Reading(reading.source)), 20)]
        words = [name for name in _labels(columns) if not all(is_number(row.get(name, "")) for row in first)]
        label = choose(f"{part}{file.name}", "label", columns, words, _labels(columns))
        maker = TableRows(listed, file.parent, reading.options.box_format)
        table = _Table(maker, part, SPLITS.get(file.parent.name.lower(), "") if part else "", label, labels)
        rows = ((f"{part}{place}", row) for place, row in read_rows(file, reading))
        yield from items_of(reading, rows, partial(_item, table))
        reading.fraction = (position + 1) / len(tables)
    labels.finish()


@dataclass(frozen=True, slots=True)
class _Table:
    """One metadata file: its rows, its folder inside the source with a slash, its split, and its label column."""

    rows: TableRows
    inside: str
    split: str
    label: str
    labels: ShardLabels


def _item(table: _Table, place: str, row: Mapping[str, JsonValue]) -> Item | None:
    path = str(row.get(FILE_NAME) or "").replace("\\", "/").removeprefix("./")
    if not path:
        raise ValueError(f"no {FILE_NAME}")
    if leaves_folder(path) or ":" in path.partition("/")[0]:
        raise ValueError(f"the path '{path[:80]}' leaves the folder")
    label = table.labels.text(row.get(table.label))
    if label is None:
        return None
    others = {name: value for name, value in row.items() if name.lower() not in LABEL_COLUMNS and name != FILE_NAME}
    item = table.rows.item(place, {**others, "path": path, "label": label})
    if item is None:
        return None
    first, slash, _ = path.partition("/")
    split = table.split or (SPLITS.get(first.lower(), "") if slash else "")
    if item.split and split and item.split != split:
        raise ValueError(f"split is '{item.split}', and its folder's name says {split}")
    return replace(item, split=item.split or split, source_id=f"{table.inside}{item.source_id}")


def _tables(source: Path) -> list[tuple[Path, list[str]]]:
    """Each metadata file of a folder, with its columns."""
    files = find_shards(source, TABLES) if source.is_dir() else []
    return [(file, columns_of(file)) for file in files if file.name.lower() in TABLES]


def _labels(columns: list[str]) -> list[str]:
    return [name for name in columns if name.lower() in LABEL_COLUMNS]


LAYOUT = Layout("imagefolder", title="", source="", licence="unknown", matches=matches, read=read)
