"""Lists of pictures to leave out: `deepfer audit --quarantine FILE` writes one, `--exclude FILE` obeys it. Nothing is ever deleted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deepfer_yolo.data.lines import csv_rows
from deepfer_yolo.data.manifest import csv_bytes
from deepfer_yolo.data.problems import printable
from deepfer_yolo.errors import REASON_FIRST, SENTENCE, DatasetError
from deepfer_yolo.files import write_atomic

COLUMNS = ("picture", "finding", "why")


def write_quarantine(file: Path, entries: Iterable[tuple[str, str, str]]) -> int:
    """Write (picture, finding, why) lines to a csv; pictures are named as the manifest or the source names them. Returns their number."""
    lines = list(entries)
    write_atomic(file, csv_bytes(COLUMNS, lines))
    return len(lines)


def read_quarantine(file: Path) -> set[str]:
    """The pictures that a quarantine list names. Raises DatasetError where it cannot be used."""
    if not file.is_file():
        raise DatasetError("no such quarantine list", "deepfer audit DATASET --quarantine FILE writes one", path=file, form=REASON_FIRST)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        read = csv_rows(lines, file)
        header = tuple(column.strip() for column in next(read, (0, []))[1])
        if not header or header[0] != COLUMNS[0]:
            raise DatasetError(
                f"the first column must be '{COLUMNS[0]}'", "deepfer audit DATASET --quarantine FILE writes such a list", path=file, line=1
            )
        return {row[0] for _, row in read}


def refuse_strangers(file: Path, listed: set[str], met: set[str]) -> None:
    """Raise DatasetError where a list names pictures that the data set does not have: it was written for another one."""
    strangers = listed - met
    if strangers:
        first = printable(min(strangers))
        raise DatasetError(
            f"names {len(strangers):,} of {len(listed):,} pictures that are not in this data set, such as '{first}'",
            "write the list again: deepfer audit DATASET --quarantine FILE",
            path=file,
            form=SENTENCE,
        )
