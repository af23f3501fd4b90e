"""The data set folder that `deepfer convert` writes, read by its manifest: subjects, votes and origins are kept.

manifest.csv    dataset.json    train/happy/00042.png    val/sad/00107.png
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from deepfer_yolo.data.dataset import DATASET, MANIFEST, read_dataset_json, read_manifest
from deepfer_yolo.data.layouts.item import Item, Layout, Reading


def matches(source: Path) -> bool:
    """True for a folder with a manifest and a dataset.json."""
    return (source / MANIFEST).is_file() and (source / DATASET).is_file()


def read(reading: Reading) -> Iterator[Item]:
    """The manifest's rows in order. A row whose path leaves the folder, or whose file is not there, is a problem."""
    root = reading.source
    content = read_dataset_json(root)
    reading.title, reading.origin, reading.licence = (
        str(content.get(key, "")) for key in ("name", "source", "licence")
    )
    reading.labels = frozenset(map(str, content.get("labels", ())))
    rows = read_manifest(root)
    for done, row in enumerate(rows):
        reading.fraction = done / len(rows)
        path = PurePosixPath(row.path)
        if path.is_absolute() or ".." in path.parts:
            reading.problems.add(f"{root.name}/{MANIFEST}", f"the path '{row.path}' leaves the data set folder")
            continue
        yield Item(
            row.label,
            row.split,
            path.stem,
            row.path,
            file=root / row.path,
            source_id=row.source_id,
            subject=row.subject,
            votes=row.votes,
            key=row.path,
        )


LAYOUT = Layout(name="deepfer", title="", source="", licence="", matches=matches, read=read)
