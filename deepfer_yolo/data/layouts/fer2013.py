"""FER2013, as one csv or as images in class folders.

    emotion,pixels,Usage
    0,70 80 82 … 2304 numbers …,Training

The csv may be plain, ``.gz`` or inside a ``.zip``; also ``icml_face_data.csv`` (columns in another order, blanks before
their names) and ``train.csv`` (no Usage: split anew). The row index, counted from 0 after the header, is the image's
`source_id`: FER+ and the folder copies refer to it.

    train/angry/Training_3908.jpg    test/angry/PublicTest_1054527.jpg     named by the official part
    train/angry/0.jpg                validation/angry/10052.jpg            named by the row of the csv

The second copy (28,821 train, 7,066 validation) is split at random: 79 % of the official test rows stand in its train
folder. Both are put back into the official split, which the rows say: the first 28,709 are Training, the next 3,589
PublicTest, the last 3,589 PrivateTest. `--split as-is` keeps the folders' split.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.ferplus import USAGES
from deepfer_yolo.data.layouts import class_tree
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, first_images, images_in, items_of, share_named
from deepfer_yolo.data.untrusted import MAX_LINE, csv_rows, small_number
from deepfer_yolo.emotions import FER2013_CODES
from deepfer_yolo.errors import DatasetError

SIDE = 48
KNOWN_NAMES = ("fer2013.csv", "icml_face_data.csv")
PREFIXED = re.compile(r"(Training|PublicTest|PrivateTest)_\d+")
ROW = re.compile(r"0|[1-9]\d{0,4}")
N_TRAIN, N_VAL, N_ALL = 28709, 32298, 35887
"""Rows up to which an image is Training, PublicTest, and any at all."""


def locate(source: Path) -> Path:
    """`source`, or the csv in it where it is a folder that holds fer2013.csv or icml_face_data.csv."""
    return next((source / name for name in KNOWN_NAMES if (source / name).is_file()), source)


def matches_csv(source: Path) -> bool:
    """True for a csv, plain or packed, or a folder with a known one, whose first line names `pixels` or `emotion`."""
    source = locate(source)
    if not source.is_file() or not source.name.lower().endswith((".csv", ".csv.gz", ".zip")):
        return False
    try:
        with _open_csv(source) as (text, _):
            columns = _columns(text.readline(MAX_LINE))
    except (DatasetError, zipfile.BadZipFile, OSError, EOFError):
        return False
    return "pixels" in columns or ("emotion" in columns and "Usage" in columns)


def read_csv(reading: Reading) -> Iterator[Item]:
    """The rows in file order; bad rows become problems with their line number."""
    source = locate(reading.source)
    try:
        with _open_csv(source) as (text, raw):
            columns = _checked_columns(text.readline(MAX_LINE), source)
            yield from items_of(reading, _rows(reading, source, columns, text, raw), _item)
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        reason, hint = f"the compressed file is broken ({error})", "fetch it again and compare its checksum"
        raise DatasetError(reason, hint, path=source) from None


def _rows(
    reading: Reading, source: Path, columns: list[str], text: IO[str], raw: IO[bytes]
) -> Iterator[tuple[str, tuple[int, dict[str, str]]]]:
    """(place, (index, values by column)) of each row."""
    size, index = max(1, source.stat().st_size), -1
    for index, (number, values) in enumerate(csv_rows(text, source, first=2)):
        place = f"{source.name}, line {number}"
        if index % 100 == 0:
            reading.fraction = min(1.0, raw.tell() / size)
        if len(values) == len(columns):
            yield place, (index, dict(zip(columns, values, strict=True)))
        else:
            reading.problems.add(place, f"{len(values)} values where {len(columns)} belong")
    if index < 0:
        raise DatasetError("has a header and no rows", "check the file", path=source)


def _item(place: str, row: tuple[int, dict[str, str]]) -> Item:
    index, values = row
    label, usage = FER2013_CODES.get(small_number(values["emotion"].strip())), values.get("Usage", "").strip()
    if label is None:
        raise ValueError(f"emotion is '{values['emotion'].strip()[:20]}', not a code from 0 to 6")
    if "Usage" in values and usage not in USAGES:
        raise ValueError(f"Usage is '{usage[:40]}', not one of {', '.join(USAGES)}")
    pixels = parse_pixels(values["pixels"])
    return Item(label, USAGES.get(usage, ""), f"{index:05d}", place, pixels=pixels, source_id=str(index))


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
        if not 0 <= small_number(word) <= 255:
            raise ValueError(f"pixel {position} is '{word[:20]}', not a whole number from 0 to 255")
    return np.array([int(word) for word in words], np.uint8).reshape(SIDE, SIDE)


@contextmanager
def _open_csv(source: Path) -> Iterator[tuple[IO[str], IO[bytes]]]:
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


def _text(raw: IO[bytes]) -> IO[str]:
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")


def _member(archive: zipfile.ZipFile, source: Path) -> zipfile.ZipInfo:
    """The csv inside a zip: fer2013.csv or icml_face_data.csv before any other, which then must be the only one."""
    found = [info for info in archive.infolist() if info.filename.lower().endswith(".csv") and not info.is_dir()]
    chosen = [info for info in found if Path(info.filename).name.lower() in KNOWN_NAMES] or found
    if len(chosen) != 1:
        names = ", ".join(info.filename for info in chosen) or "none"
        reason = f"must hold one csv; it holds {names[:200]}"
        raise DatasetError(reason, "unpack it and name the csv", path=source)
    if chosen[0].flag_bits & 1:
        raise DatasetError("is encrypted", "unpack it first", path=source)
    return chosen[0]


def _checked_columns(line: str, source: Path) -> list[str]:
    columns, hint = _columns(line), "the columns are emotion,pixels,Usage"
    if not columns:
        raise DatasetError("is empty", "a FER2013 csv begins with the line emotion,pixels,Usage", path=source)
    for column in ("emotion", "pixels"):
        if column not in columns:
            reason = f"no column '{column}'; it has {', '.join(columns)[:200]}"
            raise DatasetError(reason, hint, path=source, line=1)
    misspelt = [column for column in columns if column.lower() == "usage" and column != "Usage"]
    if misspelt:
        raise DatasetError(f"no column 'Usage', but '{misspelt[0]}'", hint, path=source, line=1)
    return columns


def _columns(line: str) -> list[str]:
    return [column.strip() for column in next(csv.reader([line.lstrip("\ufeff")]), [])] if line.strip() else []


def matches_folder(source: Path) -> bool:
    """True for a class tree whose first images bear an official prefix, or whose images are all named by unique rows
    up to the last part.
    """
    if not class_tree.matches(source):
        return False
    if share_named(source, PREFIXED) == 1:
        return True
    if share_named(source, ROW) < 1 or any(path.suffix.lower() == ".png" for path in first_images(source)):
        return False
    names = [path.stem for path in images_in(source)]
    rows = {int(name) for name in names if ROW.fullmatch(name)}
    # A tree that merely numbers its images would have to be of FER2013's size to be taken for it.
    return len(rows) == len(names) and N_VAL <= max(rows) < N_ALL


def read_folder(reading: Reading) -> Iterator[Item]:
    """The images of the tree with their official split; `source_id` is the row where the name is one, else the name."""
    for item in class_tree.read(reading):
        split = split_of(item.name)
        if split is None:
            reading.problems.add(item.place, f"'{item.name}' is neither a row of FER2013 nor a name like Training_3908")
        else:
            split = item.split if reading.options.split == "as-is" else split
            yield replace(item, split=split, source_id=item.name, listed_as=item.source_id)


def split_of(stem: str) -> str | None:
    """The official split of an image by its name; None where the name is in neither form."""
    prefixed = PREFIXED.fullmatch(stem)
    if prefixed:
        return USAGES[prefixed[1]]
    if not ROW.fullmatch(stem) or int(stem) >= N_ALL:
        return None
    return "train" if int(stem) < N_TRAIN else "val" if int(stem) < N_VAL else "test"


ORIGIN = (
    "Challenges in Representation Learning: Facial Expression Recognition Challenge, Kaggle 2013 "
    "(Goodfellow et al., arXiv:1307.0414)"
)
TERMS = "none stated; the images may not be redistributed"
CSV = Layout("fer2013-csv", "FER2013", ORIGIN, TERMS, matches_csv, read_csv)
FOLDER = Layout("fer2013-folder", "FER2013", ORIGIN, TERMS, matches_folder, read_folder)
