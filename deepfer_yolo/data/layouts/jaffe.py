"""JAFFE: the label in the file's name, ten subjects, no official split.

    KA.AN1.39.tiff     subject KA, angry, first of them, picture 39

Codes: AN angry DI disgust FE fear HA happy NE neutral SA sad SU surprise. 256×256 grey; with ten people, split by
subject.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, first_pictures, pictures
from deepfer_yolo.emotions import JAFFE_CODES

NAME = re.compile(r"([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d\.\d+")


def matches(source: Path) -> bool:
    """True for a folder whose pictures are all named so."""
    first = first_pictures(source) if source.is_dir() else []
    return bool(first) and all(NAME.fullmatch(path.stem) for path in first)


def read(reading: Reading) -> Iterator[Item]:
    """All pictures; one whose name has no code is a problem."""
    paths = list(pictures(reading.source, reading.problems))
    for done, path in enumerate(paths):
        reading.fraction = done / len(paths)
        inside = path.relative_to(reading.source).as_posix()
        name = NAME.fullmatch(path.stem)
        if name is None:
            reading.problems.add(inside, "the name is not like KA.AN1.39")
        else:
            yield Item(JAFFE_CODES[name[2]], "", path.stem, inside, file=path, source_id=inside, subject=name[1])


LAYOUT = Layout(
    "jaffe",
    "JAFFE",
    "Japanese Female Facial Expression (Lyons et al., 1998), https://zenodo.org/records/3451524",
    "research only",
    matches,
    read,
)
