"""FER+ as folders of images with votes.

    FER2013Train/label.csv    FER2013Train/fer0000000.png    FER2013Valid/…    FER2013Test/…

Lines without a header: ``fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0``, ten votes in FER+'s order. The label is
that of `--labels`: ferplus-majority drops what has no majority, anything else keeps the emotion with the most votes;
votes are kept but for ferplus-majority.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from deepfer_yolo.data.ferplus import N_COLUMNS, voted, votes_of
from deepfer_yolo.data.layouts.boxes import BoxColumns
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, items_of
from deepfer_yolo.data.untrusted import csv_rows, is_file_name, open_list
from deepfer_yolo.emotions import FERPLUS_COLUMNS

BOX = BoxColumns(("box",), "xyxy")
WHOLE = "(0,0,48,48)"
"""The box of every image that FERPlus' script writes: all of it, whatever size a copy has."""
FOLDERS = {"FER2013Train": "train", "FER2013Valid": "val", "FER2013Test": "test"}


def matches(source: Path) -> bool:
    """True for a folder that holds FER2013Train/label.csv or one of its sisters."""
    return any((source / folder / "label.csv").is_file() for folder in FOLDERS)


def read(reading: Reading) -> Iterator[Item]:
    """The images that the label files name; `source_id` is the path inside the folder."""
    present = [folder for folder in FOLDERS if (reading.source / folder / "label.csv").is_file()]
    for position, folder in enumerate(present):
        file = reading.source / folder / "label.csv"
        with open_list(file) as text:
            rows = ((f"{folder}/label.csv, line {number}", values) for number, values in csv_rows(text, file))
            yield from items_of(reading, rows, partial(_item, reading, folder))
        reading.fraction = (position + 1) / len(present)


def _item(reading: Reading, folder: str, place: str, values: list[str]) -> Item | None:
    votes = votes_of(values[2:])
    if len(values) != N_COLUMNS or votes is None:
        raise ValueError(f"not a name, a box and {len(FERPLUS_COLUMNS)} votes")
    name = values[0]
    if not is_file_name(name):
        raise ValueError(f"'{name[:80]}' is not a file name")
    label, text = voted(votes, "", reading.options)
    if label is None:
        reading.left_out[text] += 1
        return None
    file, source_id = reading.source / folder / name, f"{folder}/{name}"
    box = None if values[1].replace(" ", "") == WHOLE else BOX.box({"box": values[1]})
    return Item(label, FOLDERS[folder], file.stem, place, file=file, source_id=source_id, votes=text, box=box)


ORIGIN = "FER+ votes on FER2013 (Barsoum et al., arXiv:1608.01041)"
TERMS = "votes: MIT; the images may not be redistributed"
LAYOUT = Layout("ferplus-folder", "FER+", ORIGIN, TERMS, matches, read)
