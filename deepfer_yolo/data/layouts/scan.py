"""Looks at a folder that readers share."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from deepfer_yolo.data.images import SUFFIXES
from deepfer_yolo.data.lines import MAX_LINE, csv_rows
from deepfer_yolo.data.problems import Problems
from deepfer_yolo.data.walk import walk_files

ENOUGH = 60


def pictures(folder: Path, problems: Problems | None = None) -> Iterator[Path]:
    """Picture files under `folder`, by suffix, sorted; links that lead nowhere, pipes and the like become problems."""
    return (path for path in walk_files(folder, problems or Problems()) if path.suffix.lower() in SUFFIXES)


def first_pictures(folder: Path) -> list[Path]:
    """A few pictures, to recognise a layout by their names."""
    return list(islice(pictures(folder), ENOUGH))


def read_table(file: Path, problems: Problems) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, values by column) of each row of a csv with a header; blanks around names and values are cut; bad rows become problems."""
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
