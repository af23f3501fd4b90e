"""AffectNet with its lists.

    training.csv  validation.csv
    subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal
    Manually_Annotated_Images/689/737db2483489148d783ef278f43f486c0a97e140fc4b6b61b84363ca.jpg

The lists may also stand in a folder of their own, Manually_Annotated_file_lists. Boxes are pixels. Codes: 0 neutral 1
happy 2 sad 3 surprise 4 fear 5 disgust 6 angry 7 contempt; 8 none, 9 uncertain and 10 no-face are left out and counted.
training is train, validation is val.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, read_table, table_columns
from deepfer_yolo.emotions import AFFECTNET_CODES, AFFECTNET_NO_EXPRESSION
from deepfer_yolo.errors import SENTENCE, DatasetError

PATH = "subDirectory_filePath"
LISTS = {"training.csv": "train", "validation.csv": "val"}
LIST_FOLDERS = (".", "Manually_Annotated_file_lists")
PICTURES = (
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_Images",
    "Manually_Annotated",
    "images",
    ".",
)
BOX = ("face_x", "face_y", "face_width", "face_height")


def matches(source: Path) -> bool:
    """True for a folder with a training.csv or validation.csv of AffectNet's columns."""
    return source.is_dir() and any(PATH in table_columns(file) for file, _ in _lists(source))


def read(reading: Reading) -> Iterator[Item]:
    """The listed pictures, to be cut to their boxes; `source_id` is the listed path."""
    root = reading.source
    lists = _lists(root)
    if not lists:
        raise DatasetError(
            "has neither training.csv nor validation.csv", "name the folder that holds them", path=root, form=SENTENCE
        )
    folder = next((root / name for name in PICTURES if (root / name).is_dir()), root)
    for position, (file, split) in enumerate(lists):
        for column in (PATH, "expression"):
            if column not in table_columns(file):
                raise DatasetError(f"no column '{column}'", "is this AffectNet's list?", path=file, line=1)
        for place, row in read_table(file, reading.problems):
            item = _item(row, split, folder, place, reading)
            if item is not None:
                yield item
        reading.fraction = (position + 1) / len(lists)


def _lists(root: Path) -> list[tuple[Path, str]]:
    return [
        (root / folder / name, split)
        for folder in LIST_FOLDERS
        for name, split in LISTS.items()
        if (root / folder / name).is_file()
    ]


def _item(row: dict[str, str], split: str, folder: Path, place: str, reading: Reading) -> Item | None:
    path, code = PurePosixPath(row[PATH]), row["expression"]
    number = int(code) if code.isascii() and code.isdigit() and len(code) < 4 else -1
    if number in AFFECTNET_NO_EXPRESSION:
        reading.left_out[AFFECTNET_NO_EXPRESSION[number]] += 1
        return None
    if number not in AFFECTNET_CODES:
        reading.problems.add(place, f"expression is '{code[:20]}', not a code from 0 to 10")
        return None
    if path.is_absolute() or ".." in path.parts:
        reading.problems.add(place, f"the path '{row[PATH][:80]}' leaves the folder")
        return None
    box = None
    if all(column in row for column in BOX):
        try:
            x, y, width, height = (float(row[column]) for column in BOX)
        except ValueError:
            reading.problems.add(place, "the box is not four numbers")
            return None
        box = (x, y, x + width, y + height)
    return Item(AFFECTNET_CODES[number], split, path.stem, place, file=folder / path, source_id=row[PATH], box=box)


ORIGIN = "AffectNet (Mollahosseini et al., IEEE TAC 2017)"
LICENCE = "research only, on request"
LAYOUT = Layout("affectnet-csv", "AffectNet", ORIGIN, LICENCE, matches, read)
