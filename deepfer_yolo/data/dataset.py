"""A data set folder as every other package reads it: manifest, description, quarantine lists, images."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, Field, JsonValue, ValidationError, field_validator

from deepfer_yolo.data.images import load_image, map_in_order, read_image_file
from deepfer_yolo.data.untrusted import csv_rows, leaves_folder, open_list, printable
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import restore_replaced, write_atomic
from deepfer_yolo.records import Image, Json, parse_json
from deepfer_yolo.runtime.card import AppliedCorrections

SPLITS = ("train", "val", "test")
COLUMNS = ("path", "split", "label", "source_id", "subject", "sha256", "votes")
QUARANTINE_COLUMNS = ("picture", "finding", "why")
MANIFEST = "manifest.csv"
DATASET = "dataset.json"
MAX_JSON_BYTES = 10_000_000
AGAIN = "convert the source again"
LIST_HINT = "deepfer audit DATASET --quarantine FILE writes such a list"
SMALL_BYTES = 16_384
TOGETHER = 8
"""Images that a thread decodes in one go: handing over each small one costs as much as decoding it."""

FACE_NUMBER = re.compile(r"#\d+$")
"""What tells faces of one image apart, at the end of their `source_id`."""

Counts = dict[str, dict[str, int]]
"""Images by split and label; every label is named in every split."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image. `path` is relative to the data set, with forward slashes; `sha256` is of the file's bytes; `votes` are
    counts by label joined as ``label:count`` with blanks, or empty; `source_id` names the origin (FER2013: the row
    index).
    """

    path: str
    split: str
    label: str
    source_id: str = ""
    subject: str = ""
    sha256: str = ""
    votes: str = ""

    @property
    def image(self) -> str:
        """The image of the source that this one is, or was cut from: `source_id` without the number of the face."""
        return FACE_NUMBER.sub("", self.source_id)


class Description(BaseModel, frozen=True):
    """What `dataset.json` says of a data set folder: `clipped_boxes` had passed the edge of their images, `notes` are
    what a reader should know of how it was made, `corrections` what people corrected of its labels;
    `labels_before` is the SHA-256 of the file that says what those were.
    """

    schema_version: int = Field(1, ge=1, le=1)
    name: str
    source: str = ""
    licence: str = "unknown"
    labels: tuple[str, ...]
    counts: Counts = {}
    left_out: dict[str, int] = {}
    clipped_boxes: int = 0
    options: dict[str, JsonValue] = {}
    notes: tuple[str, ...] = ()
    corrections: tuple[AppliedCorrections, ...] = ()
    labels_before: str = ""
    fingerprint: str

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels) or not all(labels):
            raise ValueError(f"they must be distinct and not empty, not {', '.join(labels)[:200]}")
        return labels

    @property
    def absent_labels(self) -> list[str]:
        """`split/label` for each label that a split lacks; learning and measuring need all of them."""
        return [f"{split}/{label}" for split, counts in self.counts.items() for label, n in counts.items() if not n]

    def to_json(self) -> Json:
        """The content of `dataset.json`."""
        return self.model_dump(mode="json", exclude=None if self.corrections else {"corrections", "labels_before"})


def counts_of(images: Iterable[tuple[str, str]]) -> Counts:
    """Images by split and label, from the (split, label) of each; an empty split stands last."""
    found = Counter(images)
    labels, present = sorted({label for _, label in found}), {split for split, _ in found}
    return {split: {label: found[split, label] for label in labels} for split in (*SPLITS, "") if split in present}


def count_rows(counts: Counts) -> list[list[str]]:
    """`counts` as the rows of a table: each label with its number in each split, then the sums."""
    labels = sorted({label for by_label in counts.values() for label in by_label})
    rows = [[label, *(f"{by_label[label]:,}" for by_label in counts.values())] for label in labels]
    return [*rows, ["all", *(f"{sum(by_label.values()):,}" for by_label in counts.values())]]


def fingerprint(rows: Iterable[Row]) -> str:
    """SHA-256, as hex, of the sorted (sha256, split, label) rows: equal for equal content whatever the file names."""
    lines = sorted(f"{row.sha256} {row.split} {row.label}\n" for row in rows)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A csv that holds any file name: UTF-8, with the bytes of names that are not."""
    text = io.StringIO(newline="")
    plain, quoted = csv.writer(text, lineterminator="\n"), csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(header)
    for row in rows:
        # Python 3.11 quotes a carriage return only in a line's end, and its reader then breaks the row there.
        (quoted if any("\r" in value for value in row) else plain).writerow(row)
    return text.getvalue().encode("utf-8", "surrogateescape")


def write_manifest(rows: Sequence[Row], folder: Path) -> None:
    """Write `manifest.csv` into `folder`, rows in the order given."""
    lines = ((r.path, r.split, r.label, r.source_id, r.subject, r.sha256, r.votes) for r in rows)
    write_atomic(folder / MANIFEST, csv_bytes(COLUMNS, lines))


def read_manifest(folder: Path) -> list[Row]:
    """The rows of `folder`'s manifest. Raises DatasetError with the line where it cannot be used."""
    path, rows, lines = _part(folder, MANIFEST), [], dict[str, int]()
    with open_list(path) as text:
        read = csv_rows(text, path)
        header = tuple(next(read, (0, []))[1])
        if header != COLUMNS:
            reason = f"the columns must be {','.join(COLUMNS)}, not {','.join(header)[:200]}"
            raise DatasetError(reason, AGAIN, path=path, line=1)
        for number, values in read:
            fault = _fault(values)
            if not fault and lines.setdefault(values[0], number) != number:
                fault = f"'{printable(values[0])}' stands here a second time, first in line {lines[values[0]]}"
            if fault:
                raise DatasetError(fault, AGAIN, path=path, line=number)
            rows.append(Row(*values))
    return rows


def why_changed(description: Description, rows: Sequence[Row]) -> str:
    """The first difference between a manifest and the one that `dataset.json` was written with; empty where there is
    none.
    """
    is_same = fingerprint(rows) == description.fingerprint
    now, then = counts_of((row.split, row.label) for row in rows), description.counts
    if is_same and not then:
        return ""
    for split in dict.fromkeys((*then, *now)):
        for label in sorted({*then.get(split, ()), *now.get(split, ())}):
            n, before = now.get(split, {}).get(label, 0), then.get(split, {}).get(label, 0)
            if n != before:
                return f"{MANIFEST} has {n:,} images in {printable(f'{split}/{label}')} where {DATASET} says {before:,}"
    if is_same:
        return ""
    for row in rows:
        if not row.path.startswith(f"{row.split}/{row.label}/"):
            return f"{MANIFEST} says {row.split}, {printable(row.label)} of '{printable(row.path)}'"
    return f"a SHA-256, split or label in {MANIFEST} is not what it was"


def _fault(values: list[str]) -> str:
    """What is wrong with a row of a manifest; empty where nothing is."""
    if len(values) != len(COLUMNS):
        return f"{len(values)} values where {len(COLUMNS)} belong"
    path, split, *_ = values
    if split not in SPLITS:
        return f"unknown split '{printable(split)}'; known: {', '.join(SPLITS)}"
    return "" if path and not leaves_folder(path) else f"the path '{printable(path)}' leaves the data set folder"


def write_description(description: Description, folder: Path) -> None:
    """Write `dataset.json` into `folder`."""
    write_atomic(folder / DATASET, json.dumps(description.to_json(), indent=1, ensure_ascii=False) + "\n")


def register(rows: Sequence[Row], description: Description, folder: Path) -> Description:
    """Write both files of the data set folder `folder`; counts and fingerprint are those of `rows`."""
    counts = counts_of((row.split, row.label) for row in rows)
    described = description.model_copy(update={"counts": counts, "fingerprint": fingerprint(rows)})
    write_manifest(rows, folder)
    write_description(described, folder)
    return described


def read_description(folder: Path) -> Description:
    """What `dataset.json` says. Raises DatasetError where it is missing or broken."""
    path = _part(folder, DATASET)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DatasetError(f"is larger than {MAX_JSON_BYTES // 1_000_000} MB", AGAIN, path=path)
    try:
        text = path.read_text(encoding="utf-8")
        parse_json(text)  # no key stands twice
        return Description.model_validate_json(text, strict=True)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip() for fault in error.errors()[:5]]
        raise DatasetError("; ".join(faults), AGAIN, path=path) from None
    except ValueError as error:
        raise DatasetError(f"is no JSON that can be used ({error})", AGAIN, path=path) from None


def _part(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        reason = f"is not a data set folder: it has no {name}"
        raise DatasetError(reason, f"deepfer convert {folder} DEST makes one", path=folder)
    return folder / name


def write_quarantine(file: Path, entries: Iterable[tuple[str, str, str]]) -> int:
    """Write (image, finding, why) lines, images named as the manifest or the source does, and return their number."""
    lines = list(entries)
    write_atomic(file, csv_bytes(QUARANTINE_COLUMNS, lines))
    return len(lines)


def read_quarantine(file: Path) -> set[str]:
    """The images that a quarantine list names. Raises DatasetError where it cannot be used."""
    if not file.is_file():
        raise DatasetError("no such quarantine list", LIST_HINT, path=file)
    with open_list(file) as text:
        read = csv_rows(text, file)
        if [column.strip() for column in next(read, (0, []))[1]][:1] != [QUARANTINE_COLUMNS[0]]:
            raise DatasetError(f"the first column must be '{QUARANTINE_COLUMNS[0]}'", LIST_HINT, path=file, line=1)
        return {row[0] for _, row in read}


def refuse_strangers(file: Path, listed: set[str], met: set[str]) -> None:
    """Raise DatasetError where a list names images that the data set does not have: it was written for another one."""
    strangers = listed - met
    if strangers:
        reason = f"names {len(strangers):,} of {len(listed):,} images that are not in this data set, such as "
        hint = "write the list again: deepfer audit DATASET --quarantine FILE"
        raise DatasetError(f"{reason}'{printable(min(strangers))}'", hint, path=file)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set folder that has been opened; `labels` are alphabetical, the class order of folders and models.

    `corrections` are those of its labels; `before` is the same data set without those that were applied just now.
    """

    root: Path
    name: str
    labels: tuple[str, ...]
    fingerprint: str
    all_rows: tuple[Row, ...]
    corrections: tuple[AppliedCorrections, ...] = ()
    before: Dataset | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold an image, in the order train, val, test."""
        present = {row.split for row in self.all_rows}
        return tuple(split for split in SPLITS if split in present)

    def rows(self, split: str) -> list[Row]:
        """The images of one split in the manifest's order. Raises DatasetError where there are none."""
        found = [row for row in self.all_rows if row.split == split]
        if not found:
            reason = f"has no '{split}' split; it has {', '.join(self.splits) or 'no images'}"
            hint = f"convert the source again with a '{split}' part, or name another split"
            raise DatasetError(reason, hint, path=self.root)
        return found

    def counts(self, split: str) -> dict[str, int]:
        """Images by label in one split, 0 for a label that it lacks."""
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
        refuse_strangers(Path(quarantine), listed, {row.path for row in (self.before or self).all_rows})
        return self._left(listed, splits)

    def _left(self, listed: set[str], splits: Sequence[str]) -> Dataset:
        rows = tuple(row for row in self.all_rows if row.split not in splits or row.path not in listed)
        before = self.before and self.before._left(listed, splits)
        is_same = len(rows) == len(self.all_rows) and before is self.before
        return self if is_same else replace(self, all_rows=rows, fingerprint=fingerprint(rows), before=before)

    def path(self, row: Row) -> Path:
        """Where a row's image is."""
        return self.root / row.path


def is_dataset(folder: Path) -> bool:
    """True for a folder with a manifest and a dataset.json."""
    return (folder / MANIFEST).is_file() and (folder / DATASET).is_file()


def open_dataset(folder: Path) -> Dataset:
    """The data set folder at `folder`, its manifest read and checked against the fingerprint.

    Raises DatasetError with the convert command where it is something else, or is not what was converted.
    """
    folder = Path(folder)
    restore_replaced(folder)
    if not folder.exists():
        raise DatasetError("no such data set", "deepfer convert SOURCE DEST makes one", path=folder)
    if not folder.is_dir() or not (folder / MANIFEST).is_file():
        kind = "folder of images without a manifest" if folder.is_dir() else "file"
        hint = f"deepfer convert {folder} datasets/{folder.name.split('.')[0] or 'dataset'}"
        raise DatasetError(f"is a {kind}, not a data set folder", hint, path=folder)
    description, rows = read_description(folder), read_manifest(folder)
    unknown = {row.label for row in rows} - set(description.labels)
    if unknown:
        reason = f"label '{printable(min(unknown))}' is not among those of {DATASET}"
        raise DatasetError(reason, AGAIN, path=folder / MANIFEST)
    changed = why_changed(description, rows)
    if changed:
        raise DatasetError(f"has changed since it was converted: {changed}", _anew(folder), path=folder)
    labels, known = tuple(sorted(description.labels)), description.corrections
    return Dataset(folder, description.name, labels, description.fingerprint, tuple(rows), known)


def load_images(dataset: Dataset, rows: Sequence[Row], workers: int | None = None) -> Iterator[Image]:
    """The images of `rows`, uint8 RGB (H, W, 3), in their order, decoded by `workers` threads.

    Without a number it is one thread where the first file is small, since more would only wait for each other, and two
    otherwise. Raises DatasetError with the path.
    """
    if workers is None:
        first = dataset.path(rows[0]) if rows else None
        workers = 1 if first is not None and first.is_file() and first.stat().st_size <= SMALL_BYTES else 2
    parts = [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
    for images in map_in_order(
        lambda part: [_load(dataset, row) for row in part], parts, workers, waiting_per_worker=2
    ):
        yield from images


def _load(dataset: Dataset, row: Row) -> Image:
    path = dataset.path(row)
    try:
        content = read_image_file(path)
    except FileNotFoundError:
        raise DatasetError(f"named in {MANIFEST}, and not there", AGAIN, path=path) from None
    if row.sha256 and hashlib.sha256(content).hexdigest() != row.sha256:
        reason = f"is not the image that was converted: its SHA-256 is not that of {MANIFEST}"
        raise DatasetError(reason, _anew(dataset.root), path=path)
    try:
        return load_image(content)
    except DatasetError as error:
        raise error.at(path) from None


def _anew(folder: Path) -> str:
    """The command that makes a data set of its own of one that was changed on purpose."""
    return f"if that is wanted: deepfer convert {folder} {folder}-changed; it gets a fingerprint of its own"
