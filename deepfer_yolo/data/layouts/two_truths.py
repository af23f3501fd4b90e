"""Class folders with a list of labels beside them: where the two disagree, whoever reads them must say which holds.

labels.csv    pth,label,relFCs      happy/image7.png,neutral,0.87
happy/image7.png
"""

from __future__ import annotations

from pathlib import Path

from deepfer_yolo.data.layouts import class_tree, table
from deepfer_yolo.data.layouts.class_tree import ClassFolder
from deepfer_yolo.data.layouts.item import Item, Reading, images_in
from deepfer_yolo.data.untrusted import listing, printable
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError


def refuse_two_truths(source: Path) -> None:
    """Raise DatasetError where a csv or jsonl beside class folders gives one of their images another label or split, or
    lists some of them alone.
    """
    if not source.is_dir() or not class_tree.matches(source):
        return
    folders = class_tree.class_folders(source)
    parents = sorted({source, *(folder.path.parent for folder in folders)})
    lists = [path for parent in parents for path in listing(parent) if path.is_file() and table.is_table(path)]
    if not lists:
        return
    by_name: dict[str, ClassFolder] = {}
    n_images = 0
    for folder in folders:
        for image in images_in(folder.path):
            by_name[image.name], n_images = folder, n_images + 1
    listed, differ = set(), []
    for item in (item for file in lists for item in table.read(Reading(file))):
        found = _folder_of(item, folders, by_name)
        if found is not None:
            listed.add(item.file if item.file is not None and item.file.exists() else item.source_id)
            if _differs(item, found):
                differ.append(f"{item.source_id} is {found.label} by its folder and {item.label} in the list")
    if listed and (differ or len(listed) < n_images):
        names = ", ".join(path.relative_to(source).as_posix() for path in lists)
        reason = f"two things say what its images show: {names} and the class folders. {len(listed):,} of {n_images:,} "
        reason += f"images are listed, {len(differ):,} of them otherwise" + (f": {differ[0]}" if differ else "")
        by_list = "--layout table" if len(lists) == 1 and lists[0].parent == source else f"deepfer convert {lists[0]}"
        hint = f"{by_list} takes the list, --layout class-tree the folders"
        raise DatasetError(printable(reason), hint, path=source)


def _folder_of(item: Item, folders: list[ClassFolder], by_name: dict[str, ClassFolder]) -> ClassFolder | None:
    """The class folder in which a listed image stands: by its path, else by its name."""
    file = item.file or Path()
    found = next((folder for folder in folders if file.is_relative_to(folder.path)), None)
    return found or by_name.get(file.name)


def _differs(item: Item, folder: ClassFolder) -> bool:
    labels = [canonical_label(label) or label.casefold() for label in (item.label, folder.label)]
    return labels[0] != labels[1] or (bool(item.split and folder.split) and item.split != folder.split)
