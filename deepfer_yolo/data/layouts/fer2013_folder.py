"""FER2013 as pictures in class folders, put back into the official split.

    train/angry/Training_3908.jpg    test/angry/PublicTest_1054527.jpg     named by the official part
    train/angry/0.jpg                validation/angry/10052.jpg            named by the row of the csv

The second copy (28,821 train, 7,066 validation) is split at random: 79 % of the official test rows stand in its train
folder. The rows say where they belong: the first 28,709 are Training, the next 3,589 PublicTest, the last 3,589
PrivateTest. `--split as-is` keeps the folders' split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.ferplus import USAGES
from deepfer_yolo.data.layouts import class_tree
from deepfer_yolo.data.layouts.fer2013_csv import LAYOUT as CSV_LAYOUT
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, first_pictures, pictures

PREFIXED = re.compile(r"(Training|PublicTest|PrivateTest)_\d+")
ROW = re.compile(r"0|[1-9]\d{0,4}")
N_TRAIN, N_VAL, N_ALL = 28709, 32298, 35887
"""Rows up to which a picture is Training, PublicTest, and any at all."""


def matches(source: Path) -> bool:
    """True for a class tree whose first pictures bear an official prefix, or whose pictures are all named by unique
    rows up to the last part.
    """
    if not source.is_dir() or not class_tree.matches(source):
        return False
    first = first_pictures(source)
    if first and all(PREFIXED.fullmatch(path.stem) for path in first):
        return True
    if not first or not all(ROW.fullmatch(path.stem) and path.suffix.lower() != ".png" for path in first):
        return False
    names = [path.stem for path in pictures(source)]
    rows = {int(name) for name in names if ROW.fullmatch(name)}
    # A tree that merely numbers its pictures would have to be of FER2013's size to be taken for it.
    return len(rows) == len(names) and N_VAL <= max(rows) < N_ALL


def split_of(stem: str) -> str | None:
    """The official split of a picture by its name; None where the name is in neither form."""
    prefixed = PREFIXED.fullmatch(stem)
    if prefixed:
        return USAGES[prefixed[1]]
    if not ROW.fullmatch(stem) or int(stem) >= N_ALL:
        return None
    return "train" if int(stem) < N_TRAIN else "val" if int(stem) < N_VAL else "test"


def read(reading: Reading) -> Iterator[Item]:
    """The pictures of the tree with their official split; `source_id` is the row where the name is one, else the name."""
    as_is = reading.options.split == "as-is"
    for item in class_tree.read(reading):
        stem = Path(item.source_id).stem
        split = split_of(stem)
        if split is None:
            reading.problems.add(item.place, f"'{stem}' is neither a row of FER2013 nor a name like Training_3908")
            continue
        yield Item(
            item.label,
            item.split if as_is else split,
            stem,
            item.place,
            file=item.file,
            source_id=stem,
            key=item.source_id,
        )


LAYOUT = Layout("fer2013-folder", CSV_LAYOUT.title, CSV_LAYOUT.source, CSV_LAYOUT.licence, matches, read)
