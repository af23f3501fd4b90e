"""FER+ as folders of pictures with votes.

    FER2013Train/label.csv    FER2013Train/fer0000000.png    FER2013Valid/…    FER2013Test/…

Lines without a header: ``fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0``, ten votes in FER+'s order. The label is
that of `--labels`: ferplus-majority drops what has no majority, anything else keeps the emotion with the most votes;
votes are kept but for ferplus-majority.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.ferplus import is_unknown, majority, plurality, votes_text
from deepfer_yolo.data.layouts.item import Item, Layout, Reading
from deepfer_yolo.data.untrusted import csv_rows
from deepfer_yolo.emotions import FERPLUS_COLUMNS

FOLDERS = {"FER2013Train": "train", "FER2013Valid": "val", "FER2013Test": "test"}
N_COLUMNS = 2 + len(FERPLUS_COLUMNS)


def matches(source: Path) -> bool:
    """True for a folder that holds FER2013Train/label.csv or one of its sisters."""
    return source.is_dir() and any((source / folder / "label.csv").is_file() for folder in FOLDERS)


def read(reading: Reading) -> Iterator[Item]:
    """The pictures that the label files name; `source_id` is the path inside the folder."""
    present = [
        (folder, split) for folder, split in FOLDERS.items() if (reading.source / folder / "label.csv").is_file()
    ]
    for position, (folder, split) in enumerate(present):
        file = reading.source / folder / "label.csv"
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            for number, values in csv_rows(text, file):
                item = _item(values, split, file, f"{folder}/label.csv, line {number}", reading)
                if item is not None:
                    yield item
        reading.fraction = (position + 1) / len(present)


def _item(values: list[str], split: str, file: Path, place: str, reading: Reading) -> Item | None:
    counts = values[2:]
    if len(values) != N_COLUMNS or not all(value.isascii() and value.isdigit() and len(value) < 4 for value in counts):
        reading.problems.add(place, f"not a name, a box and {len(FERPLUS_COLUMNS)} votes")
        return None
    name = values[0]
    if "/" in name or "\\" in name:
        reading.problems.add(place, f"'{name[:80]}' is not a file name")
        return None
    votes = dict(zip(FERPLUS_COLUMNS, map(int, counts), strict=True))
    wants_majority = reading.options.labels == "ferplus-majority"
    label = majority(votes) if wants_majority else plurality(votes, "")
    if label is None or (reading.options.drop_unknown and is_unknown(votes)):
        reading.left_out["no FER+ majority" if label is None else "FER+ unknown or not a face"] += 1
        return None
    text = "" if wants_majority else votes_text(votes)
    return Item(
        label,
        split,
        Path(name).stem,
        place,
        file=file.parent / name,
        source_id=f"{file.parent.name}/{name}",
        votes=text,
    )


LAYOUT = Layout(
    "ferplus-folder",
    "FER+",
    "FER+ votes on FER2013 (Barsoum et al., arXiv:1608.01041)",
    "votes: MIT; the pictures may not be redistributed",
    matches,
    read,
)
