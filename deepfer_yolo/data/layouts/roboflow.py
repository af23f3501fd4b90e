"""What Roboflow exports as csv, a folder a split: boxes of faces, or images with their labels.

    train/_annotations.csv    valid/…    test/…
    filename,width,height,class,xmin,ymin,xmax,ymax
    a_jpg.rf.0a1b.jpg,640,480,happy,100,200,260,360

Boxes are pixels; each becomes one image. Other exports of Roboflow are the layouts yolo-detection, coco and voc.

    train/_classes.csv
    filename, angry, happy
    a_jpg.rf.0a1b.jpg, 0, 1

A row of several labels, or of none, is a problem; `--drop multi-label` and `--drop no-label` leave such rows out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deepfer_yolo.data.layouts.boxes import Box, box_columns
from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import Item, Layout, Listed, Reading, items_of, read_table, table_columns
from deepfer_yolo.data.untrusted import folders_in, is_file_name, printable
from deepfer_yolo.errors import DatasetError

BOXES, CLASSES = "_annotations.csv", "_classes.csv"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
MULTI_LABEL, NO_LABEL = "multi-label", "no-label"


def matches_boxes(source: Path) -> bool:
    """True for _annotations.csv with Roboflow's columns, or a folder with one, itself or in its split folders."""
    return any({"filename", "class", *CORNERS} <= set(table_columns(file)) for file, _ in _lists(source, BOXES))


def matches_classes(source: Path) -> bool:
    """True for _classes.csv, or a folder with one, itself or in its split folders."""
    return any(table_columns(file)[:1] == ["filename"] for file, _ in _lists(source, CLASSES))


def read_boxes(reading: Reading) -> Iterator[Item]:
    """The boxes in the order of the lists; `source_id` is image and, from the second face on, its number."""
    yield from _read(reading, BOXES, {"filename", "class", *CORNERS}, _face)


def read_classes(reading: Reading) -> Iterator[Item]:
    """The images in the order of the lists; `source_id` is the path inside the source."""
    yield from _read(reading, CLASSES, {"filename"}, _labelled)


Row = dict[str, str]


@dataclass(slots=True)
class _Folder:
    """A folder of the source `root` with its split."""

    root: Path
    path: Path
    split: str
    listed: Listed

    def item(self, place: str, row: Row, label: str, box: Box | None = None) -> Item | None:
        """The image that a row names, or the face in it."""
        file = self.path / row["filename"]
        return self.listed.item(place, file, label, self.split, file.relative_to(self.root).as_posix(), box)


Reader = Callable[[_Folder, str, Row], Item | None]


def _read(reading: Reading, name: str, columns: set[str], reader: Reader) -> Iterator[Item]:
    root = reading.source if reading.source.is_dir() else reading.source.parent
    lists, listed = _lists(reading.source, name), Listed(reading)
    if not lists:
        raise DatasetError(f"holds no {name}", f"expected train/{name}, valid/{name}", path=root)
    for position, (file, split) in enumerate(lists):
        missing = sorted(columns - set(table_columns(file)))
        if missing:
            raise DatasetError(f"no column '{missing[0]}'", "is this Roboflow's csv?", path=file, line=1)
        folder = _Folder(root, file.parent, split, listed)
        above = "" if file.parent == root else f"{file.parent.relative_to(root).as_posix()}/"
        rows = ((above + place, row) for place, row in read_table(file, reading))
        yield from items_of(reading, rows, partial(_item, folder, reader))
        reading.fraction = (position + 1) / len(lists)
    listed.count_others(root, f"images that {name} does not name")


def _item(folder: _Folder, reader: Reader, place: str, row: Row) -> Item | None:
    if not is_file_name(row["filename"]):
        raise ValueError(f"'{printable(row['filename'][:80])}' is not a file name")
    folder.listed.note(folder.path / row["filename"])
    return reader(folder, place, row)


def _face(folder: _Folder, place: str, row: Row) -> Item | None:
    columns = box_columns(tuple(row))
    if not row["class"]:
        raise ValueError("no class")
    return folder.item(place, row, row["class"], columns.box(row) if columns else None)


def _labelled(folder: _Folder, place: str, row: Row) -> Item | None:
    reading = folder.listed.reading
    values = {label: value for label, value in row.items() if label != "filename"}
    wrong = next((label for label, value in values.items() if value not in ("0", "1")), None)
    if wrong is not None:
        raise ValueError(f"{wrong} is '{values[wrong][:20]}', not 0 or 1")
    labels = [label for label, value in values.items() if value == "1"]
    if len(labels) != 1:
        kind = MULTI_LABEL if labels else NO_LABEL
        if kind not in map(str.casefold, reading.options.drop):
            has = f"{len(labels)} labels ({', '.join(labels)[:100]})" if labels else "no label"
            raise ValueError(f"{row['filename'][:80]} has {has}; --drop {kind} leaves such rows out")
        reading.left_out[kind] += 1
        return None
    return folder.item(place, row, labels[0])


def _lists(source: Path, name: str) -> list[tuple[Path, str]]:
    """The lists called `name` and the split of each."""
    if source.is_file():
        return [(source, SPLIT_NAMES.get(source.parent.name.lower(), ""))] if source.name == name else []
    folders = folders_in(source) if source.is_dir() else []
    lists = [
        (folder / name, SPLIT_NAMES[folder.name.lower()]) for folder in folders if folder.name.lower() in SPLIT_NAMES
    ]
    lists = [(file, split) for file, split in lists if file.is_file()]
    return lists or ([(source / name, "")] if (source / name).is_file() else [])


BOXED = Layout("roboflow-boxes", title="", source="", licence="unknown", matches=matches_boxes, read=read_boxes)
ONE_HOT = Layout("roboflow-classes", title="", source="", licence="unknown", matches=matches_classes, read=read_classes)
