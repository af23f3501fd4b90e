"""A plain tree of class folders, with or without split folders above or below them.

    train/happy/a.jpg        happy/a.jpg        happy/train/a.jpg
    val/sad/b.png            sad/b.png          sad/test/b.png

Split folders may be spelt train, training, val, valid, validation, test, testing, or as FER2013's parts; class folders
in any spelling that `emotions.py` knows, or of any names where none is an emotion. Numbers mean another label in each
data set and are never guessed: `--map`, `--layout` or `--labels keep` says what they mean. What stands beside the class
folders is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from deepfer_yolo.data.image_formats import NO_IMAGE, is_image
from deepfer_yolo.data.layouts.item import N_FIRST, Item, Layout, Reading, images_in
from deepfer_yolo.data.untrusted import folders_in, listing, printable
from deepfer_yolo.emotions import AFFECTNET_CODES, RAFDB_CODES, canonical_label
from deepfer_yolo.errors import DatasetError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "publictest"), "val"),
    **dict.fromkeys(("test", "testing", "privatetest"), "test"),
}
CODES_OF = {"affectnet-folders": AFFECTNET_CODES, "rafdb": RAFDB_CODES}
EMPTY = "empty folder"
"""What a class or split folder without any image is counted as, with its path behind."""


class ClassFolder(NamedTuple):
    """One folder of images of one label; `split` is empty where no folder says it."""

    split: str
    label: str
    path: Path


def matches(source: Path) -> bool:
    """True for a folder that holds split folders, a folder with a known label's name, class folders that are all
    numbers, or two folders or more that each begin with an image or are split: any labels.
    """
    folders = folders_in(source) if source.is_dir() else []
    if any(folder.name.lower() in SPLIT_NAMES or canonical_label(folder.name) for folder in folders):
        return True
    are_numbers = all(_is_number(folder.name) for folder in folders)
    return len(folders) > 1 and (are_numbers or all(map(_looks_labelled, folders)))


def _looks_labelled(folder: Path) -> bool:
    first = list(islice(folder.iterdir(), N_FIRST))
    return any(is_image(path) or path.name.lower() in SPLIT_NAMES for path in first)


def read(reading: Reading) -> Iterator[Item]:
    """The images in sorted order; `source_id` is the path inside the tree."""
    folders = class_folders(reading.source)
    _refuse_numbers(reading, folders)
    return read_folders(reading, reading.source, folders, lambda label: label)


def read_folders(
    reading: Reading, root: Path, folders: list[ClassFolder], label_of: Callable[[str], str | None]
) -> Iterator[Item]:
    """The images of the class folders of `root`, labelled by what `label_of` makes of a folder's name.

    The images of a folder for which that is None are left out and counted.
    """
    if not folders:
        raise DatasetError("holds no class folders", "expected SPLIT/LABEL/image or LABEL/image", path=root)
    _report_strays(root, folders, reading)
    for position, (split, name, folder) in enumerate(folders):
        inside, before = folder.relative_to(root).as_posix(), Counter(reading.left_out)
        files, label = list(images_in(folder, reading)), label_of(name)
        if label is None:
            if files:
                reading.left_out[f"images in {printable(inside)}, which is no label here"] += len(files)
            continue
        if not files:
            others = reading.left_out - before
            if set(others) <= {NO_IMAGE}:
                reading.left_out[f"{EMPTY} ({printable(inside)})"] += 1
            else:
                what = ", ".join(f"{n:,} {why}" for why, n in others.items())
                reading.problems.add(inside, f"no image that is read, but {what}")
        for done, path in enumerate(files):
            reading.fraction = (position + done / len(files)) / len(folders)
            yield Item.of_file(reading.source, path, label, split)


def class_folders(root: Path) -> list[ClassFolder]:
    """The class folders of a tree: those in its split folders, else those at its top, or the split folders in these.

    Raises DatasetError where both stand side by side.
    """
    children = folders_in(root)
    splits = [child for child in children if child.name.lower() in SPLIT_NAMES]
    if not splits:
        return [part for child in children for part in _parts(child)]
    stray = [child.name for child in children if child not in splits and canonical_label(child.name)]
    if stray:
        reason = f"holds both split folders and class folders ({', '.join(stray)})"
        raise DatasetError(reason, "move the class folders into a split folder", path=root)
    return [
        ClassFolder(SPLIT_NAMES[split.name.lower()], folder.name, folder)
        for split in splits
        for folder in folders_in(split)
    ]


def _parts(folder: Path) -> list[ClassFolder]:
    """A class folder, or the split folders in it."""
    inside = folders_in(folder)
    splits = [child for child in inside if child.name.lower() in SPLIT_NAMES]
    others = [child.name for child in inside if child not in splits]
    if splits and others:
        reason = f"holds both split folders and others ({', '.join(others)[:200]})"
        raise DatasetError(reason, "move the others into a split folder", path=folder)
    if not splits:
        return [ClassFolder("", folder.name, folder)]
    labels = [label.name for split in splits for label in folders_in(split) if canonical_label(label.name)]
    if labels:
        reason = f"is no class folder: its split folders hold class folders ({', '.join(labels)[:200]})"
        raise DatasetError(reason, f"deepfer convert {folder} takes it alone", path=folder)
    return [ClassFolder(SPLIT_NAMES[split.name.lower()], folder.name, split) for split in splits]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _refuse_numbers(reading: Reading, folders: list[ClassFolder]) -> None:
    """Raise DatasetError where class folders are numbers that neither --map nor --drop names, nor --labels keep."""
    options = reading.options
    if options.labels == "keep":
        return
    named = {*options.map, *options.drop}
    numbers = sorted({label for _, label, _ in folders if _is_number(label)} - named, key=int)
    if not numbers:
        return
    reason = f"its class folders are numbers ({', '.join(numbers)[:200]}), which mean another label in each data set"
    known = "".join(
        f", or --layout {layout} as {title} numbers them ({first} {CODES_OF[layout][first]}, …)"
        for layout, title, first in (("affectnet-folders", "AffectNet", 0), ("rafdb", "RAF-DB", 1))
        if all(int(number) in CODES_OF[layout] for number in numbers)
    )
    maps = " ".join(f"--map {number}=LABEL" for number in numbers[:20])
    raise DatasetError(reason, f"deepfer convert with {maps}{known}, or --labels keep", path=reading.source)


def _report_strays(root: Path, folders: list[ClassFolder], reading: Reading) -> None:
    """Count what stands beside the class folders; a class folder whose link leads nowhere is a problem."""
    splits = {path for path in folders_in(root) if path.name.lower() in SPLIT_NAMES}
    parents = sorted({root, *splits, *(folder.path.parent for folder in folders)})
    known = {folder.path for folder in folders} | set(parents)
    for split in sorted(splits - {folder.path.parent for folder in folders}):
        if not any(map(is_image, listing(split))):
            reading.left_out[f"{EMPTY} ({printable(split.name)})"] += 1
    for parent in parents:
        for path in listing(parent):
            if path.is_symlink() and not path.exists():
                reading.problems.add(path.relative_to(root).as_posix(), "a link that leads nowhere")
            elif path.is_dir() and path not in known and not path.name.startswith((".", "__")):
                reading.left_out[f"folder beside the splits ({printable(path.name)})"] += 1
            elif path.is_file() and is_image(path):
                reading.left_out["images outside the class folders"] += 1


LAYOUT = Layout("class-tree", title="", source="", licence="unknown", matches=matches, read=read)
