"""FERG: six drawn characters, each in a folder with one folder a label, no official split.

    FERG_DB_256/aia/aia_anger/aia_anger_1.png     subject AIA, angry
    FERG_DB_256/bonnie/bonnie_joy/…

Labels: anger disgust fear joy neutral sadness surprise. Folders of a character that are named otherwise are left out
and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from deepfer_yolo.data.layouts.class_tree import ClassFolder, read_folders
from deepfer_yolo.data.layouts.item import Item, Layout, Reading
from deepfer_yolo.data.untrusted import folders_in
from deepfer_yolo.emotions import canonical_label

ORIGIN = "Facial Expression Research Group 2D Database (Aneja et al., ACCV 2016)"


def matches(source: Path) -> bool:
    """True for a folder of folders that all hold folders named by their own name and a known label."""
    characters = folders_in(source) if source.is_dir() else []
    labels = [{label for label, _ in _labelled(character)} - {""} for character in characters]
    return bool(labels) and all(named and all(map(canonical_label, named)) for named in labels)


def read(reading: Reading) -> Iterator[Item]:
    """The images of the characters' folders; `source_id` is the path inside the tree."""
    root = reading.source
    folders = [ClassFolder("", label, path) for character in folders_in(root) for label, path in _labelled(character)]
    for item in read_folders(reading, root, folders, lambda label: label or None):
        yield replace(item, subject=item.source_id.partition("/")[0].upper())


def _labelled(character: Path) -> list[tuple[str, Path]]:
    """(label, folder) of each folder of a character: `anger` for `aia_anger` in `aia`; no label where it is named
    otherwise.
    """
    mark = f"{character.name.lower()}_"
    folders = folders_in(character)
    return [(folder.name[len(mark) :] if folder.name.lower().startswith(mark) else "", folder) for folder in folders]


LAYOUT = Layout("ferg", "FERG", ORIGIN, "research only, on request", matches, read)
