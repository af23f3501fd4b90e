"""ExpW: several faces an image, boxes in a list, no official split.

    label/label.lst     lines without a header: image face_id top left right bottom confidence label
    image/origin/       the images

Labels as in FER2013: 0 angry 1 disgust 2 fear 3 happy 4 sad 5 surprise 6 neutral. Boxes may pass the
edge: they are clipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from deepfer_yolo.data.layouts.boxes import Box
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, items_of, read_lines
from deepfer_yolo.data.untrusted import is_file_name
from deepfer_yolo.emotions import EXPW_CODES
from deepfer_yolo.errors import DatasetError

LISTS = ("label.lst", "label/label.lst")
IMAGES = ("image/origin", "origin", "image", ".")


def matches(source: Path) -> bool:
    """True for a folder with label.lst, or label/label.lst."""
    return _list(source) is not None


def read(reading: Reading) -> Iterator[Item]:
    """One item a face; `source_id` is image and face number."""
    root = reading.source
    file = _list(root)
    if file is None:
        raise DatasetError("has no label.lst", "name the folder that holds it", path=root)
    folder = next(root / name for name in IMAGES if (root / name).is_dir())
    return items_of(reading, read_lines(file, reading), partial(_item, folder))


def _item(folder: Path, place: str, line: str) -> Item:
    try:
        name, face, *numbers, code = line.split()
        top, left, right, bottom, _ = map(float, numbers)
        label = EXPW_CODES[int(code)]
    except (ValueError, KeyError):
        raise ValueError("not like 'image face_id top left right bottom confidence label'") from None
    if not is_file_name(name):
        raise ValueError(f"'{name[:80]}' is not a file name")
    stem, box = f"{Path(name).stem}_{face}", Box(left, top, right, bottom)
    return Item(label, "", stem, place, file=folder / name, source_id=f"{name}#{face}", box=box)


def _list(source: Path) -> Path | None:
    return next((source / name for name in LISTS if (source / name).is_file()), None)


LAYOUT = Layout("expw", "ExpW", "Expression in-the-Wild (Zhang et al., IJCV 2018)", "research only", matches, read)
