"""The data set folder that `deepfer convert` writes, read by its manifest: subjects, votes and origins are kept.

manifest.csv    dataset.json    train/happy/00042.png    val/sad/00107.png
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from deepfer_yolo.data.corrected import read_labels_before
from deepfer_yolo.data.dataset import is_dataset, read_description, read_manifest
from deepfer_yolo.data.layouts.item import Item, Layout, Reading


def read(reading: Reading) -> Iterator[Item]:
    """The manifest's rows in order; one whose file is not there is a problem."""
    root, description = reading.source, read_description(reading.source)
    reading.title, reading.origin, reading.licence = description.name, description.source, description.licence
    reading.labels, reading.corrections = frozenset(description.labels), description.corrections
    rows = read_manifest(root)
    before = read_labels_before(root, description) if description.corrections else {}
    for done, row in enumerate(rows):
        reading.fraction = done / len(rows)
        yield Item(
            row.label,
            row.split,
            PurePosixPath(row.path).stem,
            place=row.path,
            file=root / row.path,
            source_id=row.source_id,
            subject=row.subject,
            votes=row.votes,
            listed_as=row.path,
            sha256=row.sha256,
            label_before=before.get(row.path, ""),
        )


LAYOUT = Layout("deepfer", title="", source="", licence="", matches=is_dataset, read=read)
