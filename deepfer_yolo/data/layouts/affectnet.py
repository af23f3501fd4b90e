"""AffectNet, with its lists, as face crops with annotation files, or with its codes as folders.

    training.csv  validation.csv
    subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal
    Manually_Annotated_Images/689/737db2483489148d783ef278f43f486c0a97e140fc4b6b61b84363ca.jpg

The lists may also stand in a folder of their own, Manually_Annotated_file_lists. Boxes are pixels. training is train,
validation is val.

    train_set/images/0.jpg    train_set/annotations/0_exp.npy    val_set/images/…    val_set/annotations/…

    train/0/image0000006.jpg    val/7/image0000112.jpg

``_exp.npy`` holds one number, or a string of one. Code folders are read with `--layout affectnet-folders` alone: other
sets number theirs otherwise. Copies with class folders by name and a labels.csv (pth, label, relFCs), which corrects
some, are the layouts class-tree and table, as `--layout` says. Codes: 0 neutral 1 happy 2 sad 3 surprise 4 fear 5
disgust 6 angry 7 contempt; 8 none, 9 uncertain and 10 no-face are left out and counted.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from tokenize import TokenError

import numpy as np

from deepfer_yolo.data.layouts import class_tree
from deepfer_yolo.data.layouts.boxes import BoxColumns, table_box
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, items_of, read_table, table_columns
from deepfer_yolo.data.untrusted import leaves_folder, small_number, walk_files
from deepfer_yolo.emotions import AFFECTNET_CODES, AFFECTNET_NO_EXPRESSION
from deepfer_yolo.errors import DatasetError

PATH = "subDirectory_filePath"
LISTS = {"training.csv": "train", "validation.csv": "val"}
LIST_FOLDERS = (".", "Manually_Annotated_file_lists")
IMAGES = ("Manually_Annotated/Manually_Annotated_Images", "Manually_Annotated_Images", "Manually_Annotated", "images")
NPY_FOLDERS = {"train_set": "train", "val_set": "val"}
ENDING = "_exp.npy"
MAX_BYTES = 4096
"""An annotation is one number; anything larger is something else."""


def matches_csv(source: Path) -> bool:
    """True for a folder with a training.csv or validation.csv of AffectNet's columns."""
    return any(PATH in table_columns(file) for file, _ in _lists(source))


def read_csv(reading: Reading) -> Iterator[Item]:
    """The listed images, to be cut to their boxes; `source_id` is the listed path."""
    root = reading.source
    lists = _lists(root)
    if not lists:
        hint = "name the folder that holds them"
        raise DatasetError("has neither training.csv nor validation.csv", hint, path=root)
    folder = next((root / name for name in IMAGES if (root / name).is_dir()), root)
    for position, (file, split) in enumerate(lists):
        for column in (PATH, "expression"):
            if column not in table_columns(file):
                raise DatasetError(f"no column '{column}'", "is this AffectNet's list?", path=file, line=1)
        box = table_box(file, table_columns(file))
        yield from items_of(reading, read_table(file, reading), partial(_listed, reading, folder, split, box))
        reading.fraction = (position + 1) / len(lists)


def _listed(
    reading: Reading, folder: Path, split: str, columns: BoxColumns | None, place: str, row: dict[str, str]
) -> Item | None:
    path, code = row[PATH], row["expression"]
    label = _label(reading, small_number(code), f"expression is '{code[:20]}', not a code from 0 to 10")
    if label is None:
        return None
    if leaves_folder(path):
        raise ValueError(f"the path '{path[:80]}' leaves the folder")
    box = None if columns is None else columns.box(row)
    return Item(label, split, PurePosixPath(path).stem, place, file=folder / path, source_id=path, box=box)


def _lists(root: Path) -> list[tuple[Path, str]]:
    files = [(root / folder / name, split) for folder in LIST_FOLDERS for name, split in LISTS.items()]
    return [(file, split) for file, split in files if file.is_file()]


def matches_npy(source: Path) -> bool:
    """True for a folder with train_set/annotations or val_set/annotations."""
    return any((source / folder / "annotations").is_dir() for folder in NPY_FOLDERS)


def read_npy(reading: Reading) -> Iterator[Item]:
    """The annotated images; `source_id` is split folder and number."""
    for folder in NPY_FOLDERS:
        annotations = reading.source / folder / "annotations"
        files = list(walk_files(annotations, reading.problems)) if annotations.is_dir() else []
        rows = ((f"{folder}/annotations/{file.name}", file) for file in files if file.name.endswith(ENDING))
        yield from items_of(reading, rows, partial(_annotated, reading, folder))
        reading.fraction += 1 / len(NPY_FOLDERS)


def _annotated(reading: Reading, folder: str, place: str, file: Path) -> Item | None:
    label = _label(reading, _number(file), "does not hold one expression code from 0 to 10")
    if label is None:
        return None
    name = file.name.removesuffix(ENDING)
    image = reading.source / folder / "images" / f"{name}.jpg"
    return Item(label, NPY_FOLDERS[folder], name, place, file=image, source_id=f"{folder}/{name}")


def _number(file: Path) -> int:
    """The one number in an annotation; -1 where there is none."""
    if file.stat().st_size > MAX_BYTES:
        return -1
    content = io.BytesIO(file.read_bytes())
    try:
        # By hand: np.load takes whatever memory a header asks for, and unpacks archives.
        is_new = np.lib.format.read_magic(content) > (1, 0)
        read_header = np.lib.format.read_array_header_2_0 if is_new else np.lib.format.read_array_header_1_0
        shape, _, dtype = read_header(content)
        if dtype.hasobject or math.prod(shape) != 1:
            return -1
        return int(float(str(np.frombuffer(content.read(), dtype, 1)[0])))
    except (ValueError, OverflowError, TokenError):  # the last: numpy takes a broken header for one of Python 2
        return -1


def _label(reading: Reading, code: int, what: str) -> str | None:
    """The label of `code`; None where it stands for no expression, which is counted. Raises ValueError of `what`."""
    if code in AFFECTNET_NO_EXPRESSION:
        reading.left_out[AFFECTNET_NO_EXPRESSION[code]] += 1
        return None
    if code not in AFFECTNET_CODES:
        raise ValueError(what)
    return AFFECTNET_CODES[code]


def read_folders(reading: Reading) -> Iterator[Item]:
    """The images of code folders; `source_id` is the path inside the tree."""
    labels = {str(code): label for code, label in {**AFFECTNET_CODES, **AFFECTNET_NO_EXPRESSION}.items()}
    folders = class_tree.class_folders(reading.source)
    for item in class_tree.read_folders(reading, reading.source, folders, labels.get):
        if item.label in AFFECTNET_NO_EXPRESSION.values():
            reading.left_out[item.label] += 1
        else:
            yield item


ORIGIN, TERMS = "AffectNet (Mollahosseini et al., IEEE TAC 2017)", "research only, on request"
CSV = Layout("affectnet-csv", "AffectNet", ORIGIN, TERMS, matches_csv, read_csv)
NPY = Layout("affectnet-npy", "AffectNet", ORIGIN, TERMS, matches_npy, read_npy)
FOLDERS = Layout("affectnet-folders", "AffectNet", ORIGIN, TERMS, class_tree.matches, read_folders, is_on_request=True)
