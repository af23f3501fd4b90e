"""JAFFE: the label in the file's name, ten subjects, no official split.

    KA.AN1.39.tiff     subject KA, angry, first of them, image 39

Codes: AN angry DI disgust FE fear HA happy NE neutral SA sad SU surprise. 256×256 grey; with ten people, split by
subject.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, read_named, share_named
from deepfer_yolo.emotions import JAFFE_CODES

NAME = re.compile(r"(?P<subject>[A-Z]{2})\.(?P<code>AN|DI|FE|HA|NE|SA|SU)\d\.\d+")
ORIGIN = "Japanese Female Facial Expression (Lyons et al., 1998), https://zenodo.org/records/3451524"


def matches(source: Path) -> bool:
    """True for a folder whose images are all named so."""
    return share_named(source, NAME) == 1


def read(reading: Reading) -> Iterator[Item]:
    """All images; one whose name has no code is a problem."""
    return read_named(reading, NAME, JAFFE_CODES, example="KA.AN1.39")


LAYOUT = Layout("jaffe", "JAFFE", ORIGIN, "research only", matches, read)
