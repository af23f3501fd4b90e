"""KDEF: the label in the file's name, 70 subjects, no official split.

    AF01ANS.JPG     session A, female 01, angry, straight

Codes: AF fear AN angry DI disgust HA happy NE neutral SA sad SU surprise; angles S straight, HL HR half profile, FL FR
full profile. All are read: `--exclude` leaves out those not wanted. A few images of the original have names without a
code; they are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, read_named, share_named
from deepfer_yolo.emotions import KDEF_CODES

NAME = re.compile(r"[AB](?P<subject>[FM]\d\d)(?P<code>AF|AN|DI|HA|NE|SA|SU)(S|HL|HR|FL|FR)", re.IGNORECASE)
MIN_SHARE = 0.9
"""Of the first images: the original has misnamed ones."""
ORIGIN = "Karolinska Directed Emotional Faces (Lundqvist et al., 1998), https://kdef.se"


def matches(source: Path) -> bool:
    """True for a folder whose images are nearly all named so."""
    return share_named(source, NAME) >= MIN_SHARE


def read(reading: Reading) -> Iterator[Item]:
    """All images with a code in their names."""
    return read_named(reading, NAME, KDEF_CODES, example=None)


LAYOUT = Layout("kdef", "KDEF", ORIGIN, "research only, on request", matches, read)
