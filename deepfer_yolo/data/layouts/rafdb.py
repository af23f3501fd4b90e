"""RAF-DB, basic emotions, aligned images.

    EmoLabel/list_patition_label.txt     lines "train_00001.jpg 5" (the file's name is spelt so)
    Image/aligned/train_00001_aligned.jpg

A common copy keeps the codes as folders: ``DATASET/train/5/train_00001_aligned.jpg``. Codes: 1 surprise 2 fear 3
disgust 4 happy 5 sad 6 angry 7 neutral. The official split is train and test; RAF-DB has no val: `--split` makes one of
everything, or train on train and compare on test.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, images_in, items_of, read_lines
from deepfer_yolo.data.untrusted import is_file_name
from deepfer_yolo.emotions import RAFDB_CODES
from deepfer_yolo.errors import DatasetError

LIST = "EmoLabel/list_patition_label.txt"
SPLITS = ("train", "test")
CODES = {str(code): label for code, label in RAFDB_CODES.items()}
ORIGIN = "Real-world Affective Faces Database (Li, Deng, CVPR 2017), http://www.whdeld.cn/"


def matches(source: Path) -> bool:
    """True for the original folders (also inside ``basic``), or for the copy with code folders under train."""
    return _root(source) is not None or _copy(source) is not None


def read(reading: Reading) -> Iterator[Item]:
    """The images of the list, or of the code folders; `source_id` is the original file's name."""
    root, copy = _root(reading.source), _copy(reading.source)
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
    folders = [(split, code) for split in SPLITS for code in CODES if (root / split / code).is_dir()]
    for position, (split, code) in enumerate(folders):
        for path in images_in(root / split / code, reading):
            inside = path.relative_to(reading.source).as_posix()
            name = path.name.replace("_aligned", "")
            yield Item(CODES[code], split, Path(name).stem, inside, file=path, source_id=name, listed_as=inside)
        reading.fraction = (position + 1) / len(folders)


def _root(source: Path) -> Path | None:
    return next((root for root in (source, source / "basic") if (root / LIST).is_file()), None)


def _copy(source: Path) -> Path | None:
    roots = (source, source / "DATASET")
    return next((root for root in roots if all((root / "train" / code).is_dir() for code in CODES)), None)


LAYOUT = Layout("rafdb", "RAF-DB", ORIGIN, "research only, on request", matches, read)
