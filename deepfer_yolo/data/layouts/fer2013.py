"""FER2013, as one csv or as images in class folders.

    emotion,pixels,Usage
    0,70 80 82 … 2304 numbers …,Training

The csv may be plain, ``.gz`` or inside a ``.zip``; also ``icml_face_data.csv`` (columns in another order, blanks before
their names), ``train.csv`` (no Usage: split anew) and ``ckextended.csv`` (code 7 is contempt: ``--map 7=contempt``, or
``--drop 7``). Relatives are read too: other cases, ``3.0`` or a name for the code, ``[70, 80, …]``, ``;`` or a tab
between the columns, and a column for each pixel (``pixel0`` to ``pixel2303``, bare numbers, or no names). The row
index, counted from 0 after the header, is the image's `source_id`: FER+ and the folder copies refer to it.

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
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.ferplus import USAGES
from deepfer_yolo.data.layouts import ckplus, class_tree
from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, first_images, images_in, items_of, share_named
from deepfer_yolo.data.layouts.table import PATH_NAMES
from deepfer_yolo.data.untrusted import MAX_LINE, csv_rows, delimiter_of, small_number
from deepfer_yolo.emotions import FER2013_CODES
from deepfer_yolo.errors import DatasetError

SIDE = 48
MAX_LABEL = 80
KNOWN_NAMES = ("fer2013.csv", "icml_face_data.csv", "ckextended.csv")
EMOTION_NAMES = ("emotion", "emotions", "label", "labels", "expression", "class", "target")
PIXEL_NAMES = ("pixels", "pixel")
PIXEL_COLUMN = re.compile(r"(?:pixel|px|p)[ _]?(\d{1,4})")
BARE_COLUMN = re.compile(r"(?:unnamed: )?(\d{0,4})")
CODE = re.compile(r"([0-9]{1,3})(?:\.0+)?")
NUMBER = re.compile(r"[\d.,+-]+|nan", re.IGNORECASE)
PREFIXED = re.compile(r"(Training|PublicTest|PrivateTest)_\d+")
ROW = re.compile(r"0|[1-9]\d{0,4}")
N_TRAIN, N_VAL, N_ALL = 28709, 32298, 35887
"""Rows up to which an image is Training, PublicTest, and any at all."""


class Header(NamedTuple):
    """Where the values of a row stand. `pixels` is one column, or one a pixel; `usage` is None where there is none."""

    delimiter: str
    n_columns: int
    emotion: int
    usage: int | None
    pixels: tuple[int, ...]


def locate(source: Path) -> Path:
    """`source`, or the csv in it where it is a folder that holds one of a known name."""
    return next((source / name for name in KNOWN_NAMES if (source / name).is_file()), source)


def matches_csv(source: Path) -> bool:
    """True for a csv, plain or packed, or a folder with a known one, whose first line names `pixels`, a column a pixel,
    or `emotion` and `Usage` and no path.
    """
    source = locate(source)
    if not source.is_file() or not source.name.lower().endswith((".csv", ".csv.gz", ".zip")):
        return False
    try:
        with _open_csv(source) as (text, _):
            columns = _columns(text.readline(MAX_LINE))[1]
    except (DatasetError, zipfile.BadZipFile, OSError, EOFError, zlib.error):
        return False
    has_pixels = len(columns) >= SIDE * SIDE or any(len(name) > SIDE * SIDE for name in columns)  # without a header too
    if has_pixels or not set(PIXEL_NAMES).isdisjoint(columns):
        return True
    return {"emotion", "usage"} <= set(columns) and set(PATH_NAMES).isdisjoint(columns)


def read_csv(reading: Reading) -> Iterator[Item]:
    """The rows in file order; bad rows become problems with their line number."""
    source = locate(reading.source)
    if source.name.lower().startswith("ckextended"):
        reading.title, reading.origin, reading.licence = "CK+", ckplus.ORIGIN, ckplus.LAYOUT.licence
    try:
        with _open_csv(source) as (text, raw):
            header = _header(text.readline(MAX_LINE), source)
            yield from items_of(reading, _rows(reading, source, header, text, raw), partial(_item, header))
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        reason, hint = f"the compressed file is broken ({error})", "fetch it again and compare its checksum"
        raise DatasetError(reason, hint, path=source) from None


def _rows(
    reading: Reading, source: Path, header: Header, text: IO[str], raw: IO[bytes]
) -> Iterator[tuple[str, tuple[int, list[str]]]]:
    """(place, (index, values)) of each row."""
    size, index = max(1, source.stat().st_size), -1
    for index, (number, values) in enumerate(csv_rows(text, source, first=2, delimiter=header.delimiter)):
        place = f"{source.name}, line {number}"
        if index % 100 == 0:
            reading.fraction = min(1.0, raw.tell() / size)
        if len(values) == header.n_columns:
            yield place, (index, values)
        else:
            reading.problems.add(place, f"{len(values)} values where {header.n_columns} belong")
    if index < 0:
        raise DatasetError("has a header and no rows", "check the file", path=source)


def _item(header: Header, place: str, row: tuple[int, list[str]]) -> Item:
    index, values = row
    label, usage = _label(values[header.emotion].strip()), ""
    if header.usage is not None:
        usage = values[header.usage].strip()
        if usage.lower() not in SPLIT_NAMES:
            raise ValueError(f"Usage is '{usage[:40]}', not one of {', '.join(USAGES)}")
    if len(header.pixels) == 1:
        pixels = parse_pixels(values[header.pixels[0]])
    else:
        pixels = parse_pixels(" ".join([values[column] or "''" for column in header.pixels]))
    return Item(label, SPLIT_NAMES.get(usage.lower(), ""), f"{index:05d}", place, pixels=pixels, source_id=str(index))


def _label(text: str) -> str:
    """The label of a code; a name, or a code that FER2013 does not have, as it is: --map and --drop speak of it."""
    code = CODE.fullmatch(text)
    if code is not None:
        return FER2013_CODES.get(int(code[1]), str(int(code[1])))
    if not text or NUMBER.fullmatch(text):
        raise ValueError(f"emotion is '{text[:20]}', neither a code nor a name")
    return text[:MAX_LABEL]


def parse_pixels(text: str) -> NDArray[np.uint8]:
    """2304 numbers from 0 to 255, separated by blanks or as a list ``[70, 80, …]``, as uint8 (48, 48).

    Raises ValueError that says what is wrong.
    """
    if "," in text or "[" in text:
        text = text.strip("[]() \r\n").replace(",", " ")
    if text.isascii() and text.replace(" ", "").isdigit():
        values = np.fromstring(text, np.int64, sep=" ")  # three times as fast as int() of each word
        if values.size == SIDE * SIDE and values.max() <= 255:
            return values.astype(np.uint8).reshape(SIDE, SIDE)
    words = text.split()
    if len(words) != SIDE * SIDE:
        raise ValueError(f"{len(words)} pixels where {SIDE * SIDE} belong")
    numbers = [small_number(word.removesuffix(".0")) for word in words]
    for position, number in enumerate(numbers):
        if not 0 <= number <= 255:
            raise ValueError(f"pixel {position} is '{words[position][:20]}', not a whole number from 0 to 255")
    return np.array(numbers, np.uint8).reshape(SIDE, SIDE)


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


def _header(line: str, source: Path) -> Header:
    delimiter, columns = _columns(line)
    hint = "the columns are emotion,pixels,Usage, or emotion,pixel0,…,pixel2303,Usage"
    if not columns:
        raise DatasetError("is empty", "a FER2013 csv begins with the line emotion,pixels,Usage", path=source)
    emotion = next((columns.index(name) for name in EMOTION_NAMES if name in columns), None)
    usage = columns.index("usage") if "usage" in columns else None
    pixels = _pixel_columns([name if at not in (emotion, usage) else "-" for at, name in enumerate(columns)])
    for column, found in (("emotion", emotion), ("pixels", pixels or None)):
        if found is None:
            reason = f"no column '{column}'; it has {', '.join(columns)[:80]}"
            raise DatasetError(reason, hint, path=source, line=1)
    return Header(delimiter, len(columns), emotion or 0, usage, pixels)


def _pixel_columns(columns: list[str]) -> tuple[int, ...]:
    """The column of all pixels, or the columns of one pixel each, in their order; none where neither is there."""
    whole = next((columns.index(name) for name in PIXEL_NAMES if name in columns), None)
    if whole is not None:
        return (whole,)
    for pattern in (PIXEL_COLUMN, BARE_COLUMN):
        found = [(int(name[1] or at), at) for at, text in enumerate(columns) if (name := pattern.fullmatch(text))]
        if len(found) == SIDE * SIDE:
            return tuple(at for _, at in sorted(found))
    return ()


def _columns(line: str) -> tuple[str, list[str]]:
    """What separates the columns, and their names in lower case."""
    line = line.strip("\ufeff\r\n")
    delimiter = delimiter_of(line)
    names = next(csv.reader([line], delimiter=delimiter), [])
    return delimiter, [name.strip().lower() for name in names] if line.strip() else []


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
