"""KDEF: the label in the file's name, 70 subjects, no official split.

    AF01ANS.JPG     session A, female 01, angry, straight

Codes: AF fear AN angry DI disgust HA happy NE neutral SA sad SU surprise; angles S straight, HL HR half profile, FL FR
full profile. All are read: `--exclude` leaves out those not wanted. A few pictures of the original have names without a
code; they are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, first_pictures, pictures
from deepfer_yolo.emotions import KDEF_CODES

NAME = re.compile(r"[AB]([FM]\d\d)(AF|AN|DI|HA|NE|SA|SU)(S|HL|HR|FL|FR)")
MOST = 0.9
"""Share of the first pictures that must be named so: the original has misnamed ones."""


def matches(source: Path) -> bool:
    """True for a folder whose pictures are nearly all named so."""
    first = first_pictures(source) if source.is_dir() else []
    return bool(first) and sum(bool(NAME.fullmatch(path.stem.upper())) for path in first) >= MOST * len(first)


def read(reading: Reading) -> Iterator[Item]:
    """All pictures with a code in their names."""
    paths = list(pictures(reading.source, reading.problems))
    for done, path in enumerate(paths):
        reading.fraction = done / len(paths)
        inside = path.relative_to(reading.source).as_posix()
        name = NAME.fullmatch(path.stem.upper())
        if name is None:
            reading.left_out["no expression code in the name"] += 1
        else:
            yield Item(KDEF_CODES[name[2]], "", path.stem, inside, file=path, source_id=inside, subject=name[1])


LAYOUT = Layout(
    "kdef",
    "KDEF",
    "Karolinska Directed Emotional Faces (Lundqvist et al., 1998), https://kdef.se",
    "research only, on request",
    matches,
    read,
)
