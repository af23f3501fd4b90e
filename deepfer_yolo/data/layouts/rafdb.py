"""RAF-DB, basic emotions, aligned images.

    EmoLabel/list_patition_label.txt     lines "train_00001.jpg 5" (the file's name is spelt so)
    Image/aligned/train_00001_aligned.jpg

A common copy keeps the codes as folders: ``DATASET/train/5/train_00001_aligned.jpg``. It is taken for RAF-DB where
exactly 1 to 7 stand in exactly train and test; `--layout rafdb` reads code folders in any split folders, and counts
what it leaves out. Codes: 1 surprise 2 fear 3 disgust 4 happy 5 sad 6 angry 7 neutral. The official split is train and
test; RAF-DB has no val, and `convert` takes one from train.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from deepfer_yolo.data.layouts.class_tree import class_folders, read_folders
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, items_of, read_lines
from deepfer_yolo.data.untrusted import folders_in, is_file_name
from deepfer_yolo.emotions import RAFDB_CODES
from deepfer_yolo.errors import DatasetError

LIST = "EmoLabel/list_patition_label.txt"
SPLITS = ("train", "test")
CODES = {str(code): label for code, label in RAFDB_CODES.items()}
ORIGIN = "Real-world Affective Faces Database (Li, Deng, CVPR 2017), http://www.whdeld.cn/"


def matches(source: Path) -> bool:
    """True for the original folders (also inside ``basic``), or for the copy with all code folders, and no others."""
    return _root(source) is not None or _copy(source) is not None


def read(reading: Reading) -> Iterator[Item]:
    """The images of the list, or of the code folders; `source_id` is the original file's name."""
    root, copy = _root(reading.source), _copy(reading.source) or _like_a_copy(reading.source)
    if root is not None:
        yield from items_of(reading, read_lines(root / LIST, reading), partial(_listed, root))
    elif copy is not None:
        yield from _read_copy(reading, copy)
    else:
        reason = f"has no {LIST} and no DATASET/train/1 to 7"
        raise DatasetError(reason, "unpack basic.zip first", path=reading.source)


def _listed(root: Path, place: str, line: str) -> Item:
    name, _, code = " ".join(line.split()).partition(" ")
    split, stem = name.split("_")[0], Path(name).stem
    if split not in SPLITS or code not in CODES or not is_file_name(name):
        raise ValueError(f"not like 'train_00001.jpg 5': '{line.strip()[:60]}'")
    return Item(CODES[code], split, stem, place, file=root / "Image/aligned" / f"{stem}_aligned.jpg", source_id=name)


def _read_copy(reading: Reading, root: Path) -> Iterator[Item]:
    for item in read_folders(reading, root, class_folders(root), CODES.get):
        name = Path(item.source_id).name.replace("_aligned", "")
        yield replace(item, name=Path(name).stem, source_id=name, listed_as=item.source_id)


def _root(source: Path) -> Path | None:
    return next((root for root in (source, source / "basic") if (root / LIST).is_file()), None)


def _copy(source: Path) -> Path | None:
    """The folder with exactly train and test, and in both exactly the seven codes."""
    for root in (source, source / "DATASET"):
        splits = folders_in(root) if root.is_dir() else []
        codes = [{folder.name for folder in folders_in(split)} for split in splits]
        if {split.name for split in splits} == set(SPLITS) and codes == [set(CODES)] * len(SPLITS):
            return root
    return None


def _like_a_copy(source: Path) -> Path | None:
    """The folder with at least one code folder, in whatever split folders."""
    roots = [root for root in (source, source / "DATASET") if root.is_dir()]
    return next((root for root in roots if any(folder.label in CODES for folder in class_folders(root))), None)


LAYOUT = Layout("rafdb", "RAF-DB", ORIGIN, "research only, on request", matches, read)
