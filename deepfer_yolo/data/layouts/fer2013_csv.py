"""FER2013 as one csv: plain, ``.gz``, or inside a ``.zip``.

    emotion,pixels,Usage
    0,70 80 82 … 2304 numbers …,Training

Also ``icml_face_data.csv`` (columns in another order, blanks before their names) and ``train.csv`` (no Usage: split
anew). The row index, counted from 0 after the header, is the picture's `source_id`: FER+ and the folder copies refer to
it.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.ferplus import USAGES
from deepfer_yolo.data.layouts.item import Item, Layout, Reading
from deepfer_yolo.data.untrusted import MAX_LINE, csv_rows
from deepfer_yolo.emotions import FER2013_CODES
from deepfer_yolo.errors import SENTENCE, DatasetError

SIDE = 48
KNOWN_NAMES = ("fer2013.csv", "icml_face_data.csv")


def locate(source: Path) -> Path:
    """`source`, or the csv in it where it is a folder that holds fer2013.csv or icml_face_data.csv."""
    return (
        next((source / name for name in KNOWN_NAMES if (source / name).is_file()), source)
        if source.is_dir()
        else source
    )


def matches(source: Path) -> bool:
    """True for a csv (plain, gz or zipped) whose first line names the columns `pixels` or `emotion`, or a folder with a
    known one.
    """
    source = locate(source)
    if not source.is_file() or not source.name.lower().endswith((".csv", ".csv.gz", ".zip")):
        return False
    try:
        with open_csv(source) as (text, _):
            columns = _columns(text.readline(MAX_LINE))
    except (DatasetError, zipfile.BadZipFile, OSError, EOFError):
        return False
    return "pixels" in columns or ("emotion" in columns and "Usage" in columns)


def read(reading: Reading) -> Iterator[Item]:
    """The rows in file order; bad rows become problems with their line number."""
    source, problems = locate(reading.source), reading.problems
    size = max(1, source.stat().st_size)
    with _readable(source), open_csv(source) as (text, raw):
        columns = _columns(text.readline(MAX_LINE))
        if not columns:
            raise DatasetError(
                "is empty", "a FER2013 csv begins with the line emotion,pixels,Usage", path=source, form=SENTENCE
            )
        hint = "the columns are emotion,pixels,Usage"
        missing = [column for column in ("emotion", "pixels") if column not in columns]
        if missing:
            raise DatasetError(
                f"no column '{missing[0]}'; it has {', '.join(columns)[:200]}", hint, path=source, line=1
            )
        misspelt = [column for column in columns if column.lower() == "usage" and column != "Usage"]
        if misspelt:
            raise DatasetError(f"no column 'Usage', but '{misspelt[0]}'", hint, path=source, line=1)
        index = -1
        for number, values in csv_rows(text, source, first=2):
            index += 1
            place = f"{source.name}, line {number}"
            if index % 100 == 0:
                reading.fraction = min(1.0, raw.tell() / size)
            if len(values) != len(columns):
                problems.add(place, f"{len(values)} values where {len(columns)} belong")
                continue
            row = dict(zip(columns, values, strict=True))
            try:
                yield _item(row, index, place)
            except ValueError as error:
                problems.add(place, str(error))
        if index < 0:
            raise DatasetError("has a header and no rows", "check the file", path=source, form=SENTENCE)


def parse_pixels(text: str) -> NDArray[np.uint8]:
    """2304 numbers from 0 to 255, separated by blanks, as uint8 (48, 48). Raises ValueError that says what is wrong."""
    if text.isascii() and text.replace(" ", "").isdigit():
        values = np.fromstring(text, np.int64, sep=" ")  # three times as fast as int() of each word
        if values.size == SIDE * SIDE and values.max() <= 255:
            return values.astype(np.uint8).reshape(SIDE, SIDE)
    words = text.split()
    if len(words) != SIDE * SIDE:
        raise ValueError(f"{len(words)} pixels where {SIDE * SIDE} belong")
    for position, word in enumerate(words):
        if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) <= 255):
            raise ValueError(f"pixel {position} is '{word[:20]}', not a whole number from 0 to 255")
    return np.array([int(word) for word in words], np.uint8).reshape(SIDE, SIDE)


def _item(row: dict[str, str], index: int, place: str) -> Item:
    code, usage = row["emotion"].strip(), row.get("Usage")
    if not (code.isascii() and code.isdigit() and len(code) < 4 and int(code) in FER2013_CODES):
        raise ValueError(f"emotion is '{code[:20]}', not a code from 0 to 6")
    if usage is not None and usage.strip() not in USAGES:
        raise ValueError(f"Usage is '{usage.strip()[:40]}', not one of {', '.join(USAGES)}")
    label, pixels = FER2013_CODES[int(code)], parse_pixels(row["pixels"])
    return Item(
        label,
        USAGES[usage.strip()] if usage is not None else "",
        f"{index:05d}",
        place,
        pixels=pixels,
        source_id=str(index),
    )


@contextmanager
def open_csv(source: Path) -> Iterator[tuple[IO[str], IO[bytes]]]:
    """The csv as text, and the raw file under it (whose position tells how far the reading is)."""
    with source.open("rb") as raw:
        lower = source.name.lower()
        if lower.endswith(".gz"):
            with gzip.open(raw, "rb") as unpacked:
                yield _text(unpacked), raw  # type: ignore[arg-type]
        elif lower.endswith(".zip"):
            with zipfile.ZipFile(raw) as archive, archive.open(_member(archive, source)) as member:
                yield _text(member), raw
        else:
            yield _text(raw), raw


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    """Turn what zlib and zipfile say about a broken file into the one clear error."""
    import zlib

    try:
        yield
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DatasetError(
            f"the compressed file is broken ({error})", "fetch it again and compare its checksum", path=source
        ) from None


def _text(raw: IO[bytes]) -> IO[str]:
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")


def _member(archive: zipfile.ZipFile, source: Path) -> zipfile.ZipInfo:
    """The csv inside a zip: fer2013.csv or icml_face_data.csv before any other, which then must be the only one."""
    found = [info for info in archive.infolist() if info.filename.lower().endswith(".csv") and not info.is_dir()]
    known = [info for info in found if Path(info.filename).name.lower() in KNOWN_NAMES]
    chosen = known or found
    if len(chosen) != 1:
        names = ", ".join(info.filename for info in chosen) or "none"
        raise DatasetError(
            f"must hold one csv; it holds {names[:200]}", "unpack it and name the csv", path=source, form=SENTENCE
        )
    if chosen[0].flag_bits & 1:
        raise DatasetError("is encrypted", "unpack it first", path=source, form=SENTENCE)
    return chosen[0]


def _columns(line: str) -> list[str]:
    return [column.strip() for column in next(csv.reader([line.lstrip("\ufeff")]), [])] if line.strip() else []


LAYOUT = Layout(
    name="fer2013-csv",
    title="FER2013",
    source="Challenges in Representation Learning: Facial Expression Recognition Challenge, Kaggle 2013 (Goodfellow et al., arXiv:1307.0414)",
    licence="none stated; the pictures may not be redistributed",
    matches=matches,
    read=read,
)
