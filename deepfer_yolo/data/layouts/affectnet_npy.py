"""AffectNet as pictures with annotation files.

    train_set/images/0.jpg    train_set/annotations/0_exp.npy    val_set/images/…    val_set/annotations/…

``_exp.npy`` holds one number (or a string of one): 0 neutral 1 happy 2 sad 3 surprise 4 fear 5 disgust 6 angry 7
contempt. Pictures are face crops already.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepfer_yolo.data.layouts.affectnet_csv import LICENCE, ORIGIN
from deepfer_yolo.data.layouts.item import Item, Layout, Reading
from deepfer_yolo.data.untrusted import walk_files
from deepfer_yolo.emotions import AFFECTNET_CODES, AFFECTNET_NO_EXPRESSION

FOLDERS = {"train_set": "train", "val_set": "val"}
ENDING = "_exp.npy"
MAX_BYTES = 4096
"""An annotation is one number; anything larger is something else."""


def matches(source: Path) -> bool:
    """True for a folder with train_set/annotations or val_set/annotations."""
    return source.is_dir() and any((source / folder / "annotations").is_dir() for folder in FOLDERS)


def read(reading: Reading) -> Iterator[Item]:
    """The annotated pictures; `source_id` is split folder and number."""
    for folder, split in FOLDERS.items():
        annotations = reading.source / folder / "annotations"
        files = (
            [path for path in walk_files(annotations, reading.problems) if path.name.endswith(ENDING)]
            if annotations.is_dir()
            else []
        )
        for done, file in enumerate(files):
            reading.fraction = done / len(files)
            name = file.name.removesuffix(ENDING)
            place = f"{folder}/annotations/{file.name}"
            code = _code(file)
            if code in AFFECTNET_NO_EXPRESSION:
                reading.left_out[AFFECTNET_NO_EXPRESSION[code]] += 1
            elif code not in AFFECTNET_CODES:
                reading.problems.add(place, "does not hold one expression code from 0 to 10")
            else:
                picture = reading.source / folder / "images" / f"{name}.jpg"
                yield Item(AFFECTNET_CODES[code], split, name, place, file=picture, source_id=f"{folder}/{name}")


def _code(file: Path) -> int:
    """The one number in an annotation; -1 where there is none."""
    if file.stat().st_size > MAX_BYTES:
        return -1
    content = io.BytesIO(file.read_bytes())
    try:
        # By hand: np.load takes whatever memory a header asks for, and unpacks archives.
        header = (
            np.lib.format.read_array_header_2_0
            if np.lib.format.read_magic(content) > (1, 0)
            else np.lib.format.read_array_header_1_0
        )
        shape, _, dtype = header(content)
        if dtype.hasobject or math.prod(shape) != 1:
            return -1
        return int(float(str(np.frombuffer(content.read(), dtype, 1)[0])))
    except (ValueError, OverflowError):
        return -1


LAYOUT = Layout("affectnet-npy", "AffectNet", ORIGIN, LICENCE, matches, read)
