"""A data set folder's own record of itself: `manifest.csv`, one row a picture, and `dataset.json`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfer_yolo.data.lines import csv_rows
from deepfer_yolo.errors import SENTENCE, DatasetError
from deepfer_yolo.files import write_atomic

SPLITS = ("train", "val", "test")
COLUMNS = ("path", "split", "label", "source_id", "subject", "sha256", "votes")
MANIFEST = "manifest.csv"
DATASET = "dataset.json"
MAX_JSON_BYTES = 10_000_000
AGAIN = "convert the source again"


@dataclass(frozen=True, slots=True)
class Row:
    """One picture. `path` is relative to the data set, with forward slashes; `sha256` is of the file's bytes;
    `votes` are counts by label joined as ``label:count`` with blanks, or empty; `source_id` names the origin (FER2013: the row index).
    """

    path: str
    split: str
    label: str
    source_id: str = ""
    subject: str = ""
    sha256: str = ""
    votes: str = ""


def fingerprint(rows: Iterable[Row]) -> str:
    """SHA-256, as hex, of the sorted (sha256, split, label) rows: equal for equal content whatever the file names."""
    lines = sorted(f"{row.sha256} {row.split} {row.label}\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(rows: Sequence[Row], folder: Path) -> None:
    """Write `manifest.csv` into `folder`, rows in the order given."""
    lines = ((r.path, r.split, r.label, r.source_id, r.subject, r.sha256, r.votes) for r in rows)
    write_atomic(folder / MANIFEST, csv_bytes(COLUMNS, lines))


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A csv that holds any file name: UTF-8, with the bytes of names that are not."""
    text = io.StringIO(newline="")
    plain, quoted = csv.writer(text, lineterminator="\n"), csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(header)
    for row in rows:
        # Python 3.11 quotes a carriage return only where it is part of the line's end, and its reader then breaks the row there.
        (quoted if any("\r" in value for value in row) else plain).writerow(row)
    return text.getvalue().encode("utf-8", "surrogateescape")


def read_manifest(folder: Path) -> list[Row]:
    """The rows of `folder`'s manifest. Raises DatasetError with the line where it cannot be used."""
    path = folder / MANIFEST
    if not path.is_file():
        raise _no_data_set(folder, MANIFEST)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        read = csv_rows(file, path)
        header = tuple(next(read, (0, []))[1])
        if header != COLUMNS:
            raise DatasetError(f"the columns must be {','.join(COLUMNS)}, not {','.join(header)[:200]}", AGAIN, path=path, line=1)
        rows = []
        for number, values in read:
            if len(values) != len(COLUMNS):
                raise DatasetError(f"{len(values)} values where {len(COLUMNS)} belong", AGAIN, path=path, line=number)
            row = Row(*values)
            if row.split not in SPLITS:
                raise DatasetError(f"unknown split '{row.split}'", f"known: {', '.join(SPLITS)}", path=path, line=number)
            rows.append(row)
    return rows


def write_dataset_json(content: dict[str, Any], folder: Path) -> None:
    """Write `dataset.json`: name, source, licence, labels, counts, options, fingerprint."""
    write_atomic(folder / DATASET, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_dataset_json(folder: Path) -> dict[str, Any]:
    """The content of `dataset.json`. Raises DatasetError where it is missing or broken."""
    path = folder / DATASET
    if not path.is_file():
        raise _no_data_set(folder, DATASET)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DatasetError(f"is larger than {MAX_JSON_BYTES // 1_000_000} MB", AGAIN, path=path, form=SENTENCE)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"is not valid JSON: {error}", AGAIN, path=path, form=SENTENCE) from None
    if not isinstance(content, dict):
        raise DatasetError("must hold one JSON object", AGAIN, path=path, form=SENTENCE)
    return content


def _no_data_set(folder: Path, absent: str) -> DatasetError:
    return DatasetError(f"is not a data set folder: it has no {absent}", f"deepfer convert {folder} DEST makes one", path=folder, form=SENTENCE)
