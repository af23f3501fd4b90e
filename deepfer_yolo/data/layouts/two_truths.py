"""Class folders with labels or boxes beside them: where the two disagree, whoever reads them must say which holds.

labels.csv    pth,label,relFCs      happy/image7.png,neutral,0.87
happy/image7.png
"""

from __future__ import annotations

import re
from contextlib import suppress
from glob import escape
from itertools import islice
from pathlib import Path

from deepfer_yolo.data.image_formats import is_image
from deepfer_yolo.data.layouts import class_tree, table, voc
from deepfer_yolo.data.layouts.class_tree import ClassFolder
from deepfer_yolo.data.layouts.item import N_FIRST, Item, Reading, images_in
from deepfer_yolo.data.untrusted import Problems, folders_in, listing, open_list, printable, walk_files
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError

BOX_LINE = re.compile(r"\d+(?:\s+[-+.\deE]+){4}\s*")
MIN_LETTERS = 3
"""Of a folder's name that may be an emotion whatever the list says: two are as well the initials of a person."""


def refuse_two_truths(source: Path) -> None:
    """Raise DatasetError where a csv or jsonl beside class folders gives one of their images another label or split, or
    lists some of them alone.

    The class folders may also stand in a folder beside the list. A folder is one of a class where its name is an
    emotion, or a label of the list: other folders sort by person or day.
    """
    folders = _class_folders(source) if source.is_dir() else []
    parents = sorted({source, *(folder.path.parent for folder in folders)}) if folders else []
    lists = [path for parent in parents for path in listing(parent) if path.is_file() and table.is_table(path)]
    items = [item for file in lists for item in table.read(Reading(file), with_boxes=False)]
    labels = {item.label.casefold() for item in items}
    folders = [folder for folder in folders if folder.label.casefold() in labels or _is_emotion(folder.label)]
    if not items or not folders:
        return
    by_name: dict[str, ClassFolder] = {}
    n_images = 0
    for folder in folders:
        for image in images_in(folder.path):
            by_name[image.name], n_images = folder, n_images + 1
    listed, differ = set(), []
    for item in items:
        found = _folder_of(item, folders, by_name)
        if found is not None:
            listed.add(item.file if item.file is not None and item.file.exists() else item.source_id)
            if _key(item.label) != _key(found.label) or (item.split and found.split and item.split != found.split):
                differ.append((item, found))
    if listed and (differ or len(listed) < n_images):
        names = ", ".join(path.relative_to(source).as_posix() for path in lists)
        reason = f"two things say what its images show: {names} and the class folders. {len(listed):,} of {n_images:,} "
        reason += f"images are listed, {len(differ):,} of them otherwise"
        for item, found in differ[:1]:
            by_folder, by_list = (f"{one.label} {one.split}".strip() for one in (found, item))
            reason += f": {item.source_id} is {by_folder} by its folder and {by_list} in the list"
        list_of = "--layout table" if len(lists) == 1 and lists[0].parent == source else f"deepfer convert {lists[0]}"
        tree = source / folders[0].path.relative_to(source).parts[0]
        tree_of = "--layout class-tree" if class_tree.matches(source) else f"deepfer convert {tree}"
        raise DatasetError(printable(reason), f"{list_of} takes the list, {tree_of} the folders", path=source)


def refuse_boxes_beside(source: Path) -> None:
    """Raise DatasetError where a box stands beside an image of a class folder: then it is a scene, and no face."""
    for file in islice(walk_files(source, Problems()), 2 * N_FIRST):
        is_xml = file.suffix.lower() == ".xml" and voc.is_voc(file)
        if (is_xml or _is_boxes(file)) and any(map(is_image, file.parent.glob(f"{escape(file.stem)}.*"))):
            reason = f"boxes stand beside its images, such as {file.relative_to(source).as_posix()}"
            cut = "--layout voc" if is_xml else "images/ and labels/ beside a data.yaml, as yolo-detection has them,"
            hint = f"{cut} makes one image a box; --layout class-tree takes the images whole"
            raise DatasetError(printable(reason), hint, path=source)


def _is_boxes(file: Path) -> bool:
    """Whether a text begins with a class and four numbers, as YOLO's do."""
    if file.suffix.lower() != ".txt":
        return False
    with open_list(file) as text:
        return BOX_LINE.fullmatch(text.readline(1000)) is not None


def _class_folders(source: Path) -> list[ClassFolder]:
    """The class folders of a tree, or of the trees that stand in it."""
    if class_tree.matches(source):
        return class_tree.class_folders(source)
    found: list[ClassFolder] = []
    for root in folders_in(source):
        with suppress(DatasetError):  # what is no tree of class folders speaks no truth
            found += class_tree.class_folders(root) if class_tree.matches(root) else []
    return found


def _folder_of(item: Item, folders: list[ClassFolder], by_name: dict[str, ClassFolder]) -> ClassFolder | None:
    """The class folder in which a listed image stands: by its path, else by its name."""
    file = item.file or Path()
    found = next((folder for folder in folders if file.is_relative_to(folder.path)), None)
    return found or by_name.get(file.name)


def _key(label: str) -> str:
    """A label as it is compared."""
    return canonical_label(label) or label.casefold()


def _is_emotion(name: str) -> bool:
    return canonical_label(name) is not None and sum(map(str.isalpha, name)) >= MIN_LETTERS
