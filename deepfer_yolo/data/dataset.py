"""How the other rooms read a data set folder."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepfer_yolo.data.images import load_image, map_in_order
from deepfer_yolo.data.untrusted import csv_rows, printable
from deepfer_yolo.errors import REASON_FIRST, SENTENCE, DatasetError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Image

QUARANTINE_COLUMNS = ("picture", "finding", "why")


def write_quarantine(file: Path, entries: Iterable[tuple[str, str, str]]) -> int:
    """Write (picture, finding, why) lines to a csv; pictures are named as the manifest or the source names them.

    Returns their number.
    """
    lines = list(entries)
    write_atomic(file, csv_bytes(QUARANTINE_COLUMNS, lines))
    return len(lines)


def read_quarantine(file: Path) -> set[str]:
    """The pictures that a quarantine list names. Raises DatasetError where it cannot be used."""
    if not file.is_file():
        raise DatasetError(
            "no such quarantine list",
            "deepfer audit DATASET --quarantine FILE writes one",
            path=file,
            form=REASON_FIRST,
        )
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        read = csv_rows(lines, file)
        header = tuple(column.strip() for column in next(read, (0, []))[1])
        if not header or header[0] != QUARANTINE_COLUMNS[0]:
            raise DatasetError(
                f"the first column must be '{QUARANTINE_COLUMNS[0]}'",
                "deepfer audit DATASET --quarantine FILE writes such a list",
                path=file,
                line=1,
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


SPLITS = ("train", "val", "test")
COLUMNS = ("path", "split", "label", "source_id", "subject", "sha256", "votes")
MANIFEST = "manifest.csv"
DATASET = "dataset.json"
MAX_JSON_BYTES = 10_000_000
AGAIN = "convert the source again"


@dataclass(frozen=True, slots=True)
class Row:
    """One picture. `path` is relative to the data set, with forward slashes; `sha256` is of the file's bytes; `votes`
    are counts by label joined as ``label:count`` with blanks, or empty; `source_id` names the origin (FER2013: the row
    index).
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
        # Python 3.11 quotes a carriage return only where it is part of the line's end, and its reader then breaks the
        # row there.
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
            raise DatasetError(
                f"the columns must be {','.join(COLUMNS)}, not {','.join(header)[:200]}", AGAIN, path=path, line=1
            )
        rows = []
        for number, values in read:
            if len(values) != len(COLUMNS):
                raise DatasetError(f"{len(values)} values where {len(COLUMNS)} belong", AGAIN, path=path, line=number)
            row = Row(*values)
            if row.split not in SPLITS:
                raise DatasetError(
                    f"unknown split '{row.split}'", f"known: {', '.join(SPLITS)}", path=path, line=number
                )
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
    return DatasetError(
        f"is not a data set folder: it has no {absent}",
        f"deepfer convert {folder} DEST makes one",
        path=folder,
        form=SENTENCE,
    )


SMALL_BYTES = 16_384
TOGETHER = 8
"""Pictures that a thread decodes in one go: handing over each small one costs as much as decoding it."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set folder that has been opened.

    `labels` are alphabetical: the class index order of folders and models.
    """

    root: Path
    name: str
    labels: tuple[str, ...]
    fingerprint: str
    all_rows: tuple[Row, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold a picture, in the order train, val, test."""
        present = {row.split for row in self.all_rows}
        return tuple(split for split in SPLITS if split in present)

    def rows(self, split: str) -> list[Row]:
        """The pictures of one split in the manifest's order. Raises DatasetError where there are none."""
        found = [row for row in self.all_rows if row.split == split]
        if not found:
            raise DatasetError(
                f"has no '{split}' split; it has {', '.join(self.splits) or 'no pictures'}",
                f"convert the source again with a '{split}' part, or name another split",
                path=self.root,
                form=SENTENCE,
            )
        return found

    def counts(self, split: str) -> dict[str, int]:
        """Pictures by label in one split, 0 for a label that it lacks."""
        found = Counter(row.label for row in self.all_rows if row.split == split)
        return {label: found[label] for label in self.labels}

    def without(self, quarantine: str | Path | None, splits: Sequence[str] = SPLITS) -> Dataset:
        """The same data set without the images of `splits` that a quarantine list names, its fingerprint taken again
        where any was left out.

        Raises DatasetError where the list cannot be used, or names images that are not here.
        """
        if quarantine is None:
            return self
        listed = read_quarantine(Path(quarantine))
        refuse_strangers(Path(quarantine), listed, {row.path for row in self.all_rows})
        rows = tuple(row for row in self.all_rows if row.split not in splits or row.path not in listed)
        return self if len(rows) == len(self.all_rows) else replace(self, all_rows=rows, fingerprint=fingerprint(rows))

    def path(self, row: Row) -> Path:
        """Where a row's picture is."""
        return self.root / row.path


def open_dataset(folder: Path) -> Dataset:
    """The data set folder at `folder`, its manifest read and checked.

    Raises DatasetError with the convert command where it is something else.
    """
    folder = Path(folder)
    if not folder.exists():
        raise DatasetError("no such data set", "deepfer convert SOURCE DEST makes one", path=folder, form=REASON_FIRST)
    if not folder.is_dir() or not (folder / MANIFEST).is_file():
        kind = "folder of pictures without a manifest" if folder.is_dir() else "file"
        target = folder.name.split(".")[0] or "dataset"
        raise DatasetError(
            f"is a {kind}, not a data set folder",
            f"deepfer convert {folder} datasets/{target}",
            path=folder,
            form=SENTENCE,
        )
    content = read_dataset_json(folder)
    rows = read_manifest(folder)
    for key in ("name", "labels", "fingerprint"):
        if key not in content:
            raise DatasetError(f"has no '{key}'", AGAIN, path=folder / DATASET, form=SENTENCE)
    if not isinstance(content["labels"], list) or not all(isinstance(label, str) for label in content["labels"]):
        raise DatasetError("'labels' must be a list of names", AGAIN, path=folder / DATASET)
    outside = next(
        (row.path for row in rows if not row.path or row.path[0] == "/" or ".." in row.path.split("/")), None
    )
    if outside is not None:
        raise DatasetError(f"the path '{printable(outside)}' leaves the data set folder", AGAIN, path=folder / MANIFEST)
    labels = tuple(sorted(content["labels"]))
    unknown = {row.label for row in rows} - set(labels)
    if unknown:
        raise DatasetError(f"label '{min(unknown)}' is not among those of dataset.json", AGAIN, path=folder / MANIFEST)
    return Dataset(folder, str(content["name"]), labels, str(content["fingerprint"]), tuple(rows))


def load_images(dataset: Dataset, rows: Sequence[Row], workers: int | None = None) -> Iterator[Image]:
    """The pictures of `rows`, uint8 RGB (H, W, 3), in their order, decoded by `workers` threads. Raises DatasetError
    with the path.

    Without a number it is one thread where the first file is small, since more would only wait for each other, and two
    otherwise.
    """

    def load(part: Sequence[Row]) -> list[Image | DatasetError]:
        loaded: list[Image | DatasetError] = []
        for row in part:
            try:
                loaded.append(load_image(dataset.path(row)))
            except FileNotFoundError:
                loaded.append(DatasetError(f"named in {MANIFEST}, and not there", AGAIN, path=dataset.path(row)))
            except DatasetError as error:
                loaded.append(error)
        return loaded

    if workers is None:
        first = dataset.path(rows[0]) if rows else None
        workers = 1 if first is not None and first.is_file() and first.stat().st_size <= SMALL_BYTES else 2
    parts = [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
    for loaded in map_in_order(load, parts, workers, waiting_per_worker=2):
        for image in loaded:
            if isinstance(image, DatasetError):
                raise image
            yield image
