"""Looks at a folder that readers share."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from deepfer_yolo.data.images import SUFFIXES
from deepfer_yolo.data.problems import Problems
from deepfer_yolo.data.walk import walk_files
from deepfer_yolo.errors import DatasetError

ENOUGH = 60
MAX_FIELD = 100_000


def pictures(folder: Path, problems: Problems | None = None) -> Iterator[Path]:
    """Picture files under `folder`, by suffix, sorted; links that lead nowhere, pipes and the like become problems."""
    return (path for path in walk_files(folder, problems or Problems()) if path.suffix.lower() in SUFFIXES)


def first_pictures(folder: Path) -> list[Path]:
    """A few pictures, to recognise a layout by their names."""
    return list(islice(pictures(folder), ENOUGH))


def read_table(file: Path, problems: Problems) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, values by column) of each row of a csv with a header; blanks around names and values are cut; bad rows become problems."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(bounded_lines(text, file))
        columns = [column.strip() for column in next(reader, [])]
        while True:
            try:
                values = next(reader, None)
            except csv.Error as error:
                raise DatasetError(f"{file}, line {reader.line_num}: {error}", "is a quotation mark left open?") from None
            if values is None:
                return
            if not values:
                continue
            place = f"{file.name}, line {reader.line_num}"
            if len(values) == len(columns):
                yield place, {column: value.strip() for column, value in zip(columns, values, strict=True)}
            else:
                problems.add(place, f"{len(values)} values where {len(columns)} belong")


def table_columns(file: Path) -> list[str]:
    """The column names of a csv; none where it cannot be read as one."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            return [column.strip() for column in next(csv.reader([text.readline(MAX_FIELD)]), [])]
    except (OSError, csv.Error):
        return []


def bounded_lines(text: object, file: Path) -> Iterator[str]:
    """Lines of at most MAX_FIELD characters, so that a file without line breaks cannot fill the memory."""
    number = 0
    while line := text.readline(MAX_FIELD):  # type: ignore[attr-defined]
        number += 1
        if len(line) >= MAX_FIELD:
            raise DatasetError(f"{file}, line {number}: longer than {MAX_FIELD:,} characters", "is this the right file?")
        yield line
