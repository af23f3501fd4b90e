"""ExpW: several faces a picture, boxes in a list, no official split.

    label/label.lst     lines without a header: image face_id top left right bottom confidence label
    image/origin/       the pictures

Labels as in FER2013: 0 angry 1 disgust 2 fear 3 happy 4 sad 5 surprise 6 neutral. Boxes may pass the edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading
from deepfer_yolo.data.untrusted import bounded_lines
from deepfer_yolo.emotions import EXPW_CODES
from deepfer_yolo.errors import SENTENCE, DatasetError

LISTS = ("label.lst", "label/label.lst")
PICTURES = ("image/origin", "origin", "image", ".")


def matches(source: Path) -> bool:
    """True for a folder with label.lst, or label/label.lst."""
    return _list(source) is not None


def read(reading: Reading) -> Iterator[Item]:
    """One item a face; `source_id` is picture and face number."""
    root = reading.source
    file = _list(root)
    if file is None:
        raise DatasetError("has no label.lst", "name the folder that holds it", path=root, form=SENTENCE)
    folder = next(root / name for name in PICTURES if (root / name).is_dir())
    size, done = max(1, file.stat().st_size), 0
    with file.open(encoding="utf-8", errors="surrogateescape") as text:
        for number, line in enumerate(bounded_lines(text, file), 1):
            done += len(line)
            reading.fraction = done / size
            if line.strip():
                item = _item(line.split(), folder, f"{file.name}, line {number}", reading)
                if item is not None:
                    yield item


def _item(words: list[str], folder: Path, place: str, reading: Reading) -> Item | None:
    try:
        name, face, *numbers, code = words
        top, left, right, bottom, _ = (float(number) for number in numbers)
        label = EXPW_CODES[int(code)]
    except (ValueError, KeyError):
        reading.problems.add(place, "not like 'image face_id top left right bottom confidence label'")
        return None
    if "/" in name or "\\" in name or name in (".", ".."):
        reading.problems.add(place, f"'{name[:80]}' is not a file name")
        return None
    stem = f"{Path(name).stem}_{face}"
    return Item(label, "", stem, place, file=folder / name, source_id=f"{name}#{face}", box=(left, top, right, bottom))


def _list(source: Path) -> Path | None:
    return next((source / name for name in LISTS if (source / name).is_file()), None)


LAYOUT = Layout("expw", "ExpW", "Expression in-the-Wild (Zhang et al., IJCV 2018)", "research only", matches, read)
