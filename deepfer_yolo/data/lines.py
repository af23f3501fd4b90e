"""Lines and csv rows of files from strangers, bounded, so that a file without line breaks cannot fill the memory."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deepfer_yolo.errors import DatasetError

MAX_LINE = 100_000
"""Characters; the longest row of FER2013 has about 9,300."""


def bounded_lines(text: IO[str], file: Path, first: int = 1) -> Iterator[str]:
    """Lines of at most MAX_LINE characters; `first` is the number of the next one. Raises DatasetError at a longer one."""
    number = first - 1
    while line := text.readline(MAX_LINE):
        number += 1
        if len(line) >= MAX_LINE:
            raise DatasetError(f"longer than {MAX_LINE:,} characters", "is this the right file?", path=file, line=number)
        yield line


def csv_rows(text: IO[str], file: Path, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, values) of each row that is not empty; `text` opened with newline=''. Raises DatasetError where it is no csv."""
    reader = csv.reader(bounded_lines(text, file, first))
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise DatasetError(str(error), "is a quotation mark left open?", path=file, line=reader.line_num + first - 1) from None
        if values is None:
            return
        if values:
            yield reader.line_num + first - 1, values
