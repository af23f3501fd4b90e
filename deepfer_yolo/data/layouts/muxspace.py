"""The `facial_expressions` repository of muxspace: a list beside the folder of its images, no official split.

    data/legend.csv     user.id,image,emotion
                        628,facial-expressions_2868588k.jpg,anger
    images/facial-expressions_2868588k.jpg

Labels in any mixture of cases (`HAPPINESS`, `happiness`); `user.id` is who labelled, not who is seen. `--root` names
the images where they lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, table_columns
from deepfer_yolo.data.layouts.table import read_list
from deepfer_yolo.errors import DatasetError

LIST, IMAGES = "legend.csv", "images"
COLUMNS = {"user.id", "image", "emotion"}
ORIGIN = "https://github.com/muxspace/facial_expressions"


def matches(source: Path) -> bool:
    """True for legend.csv with its columns, or a folder that holds it, also in `data`."""
    return _legend(source) is not None


def read(reading: Reading) -> Iterator[Item]:
    """The listed images in order; `source_id` is the name as listed."""
    legend = _legend(reading.source)
    if legend is None:
        reason = f"has no {LIST} with the columns user.id,image,emotion"
        raise DatasetError(reason, "name the list, or the folder that holds it", path=reading.source)
    beside = [legend.parent.parent / IMAGES, legend.parent / IMAGES]
    folder = reading.options.root or next((path for path in beside if path.is_dir()), legend.parent)
    return read_list(reading, legend, folder)


def _legend(source: Path) -> Path | None:
    places = (source, source / LIST, source / "data" / LIST)
    files = [file for file in places if file.name == LIST and file.is_file()]
    return next((file for file in files if {name.lower() for name in table_columns(file)} >= COLUMNS), None)


LAYOUT = Layout("muxspace", "facial_expressions", ORIGIN, "unknown", matches, read)
