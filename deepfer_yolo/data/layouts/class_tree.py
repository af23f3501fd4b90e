"""A plain tree of class folders, with or without split folders above them.

    train/happy/a.jpg        happy/a.jpg
    val/sad/b.png            sad/b.png

Split folders may be spelt train, training, val, valid, validation, test, testing, or as FER2013's parts; class folders
in any spelling that `emotions.py` knows. What stands beside them is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.image_formats import is_image
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, images_in
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "publictest"), "val"),
    **dict.fromkeys(("test", "testing", "privatetest"), "test"),
}


def matches(source: Path) -> bool:
    """True for a folder that holds split folders, or a folder with a known label's name."""
    if not source.is_dir():
        return False
    names = [path.name for path in source.iterdir() if path.is_dir()]
    return any(name.lower() in SPLIT_NAMES or canonical_label(name) for name in names)


def read(reading: Reading) -> Iterator[Item]:
    """The images in sorted order; `source_id` is the path inside the tree."""
    root = reading.source
    folders = _class_folders(root)
    _report_strays(root, folders, reading)
    if not folders:
        raise DatasetError("holds no class folders", "expected SPLIT/LABEL/image or LABEL/image", path=root)
    for position, (split, folder) in enumerate(folders):
        before = Counter(reading.left_out)
        files = list(images_in(folder, reading))
        if not files:
            others = ", ".join(f"{n:,} {why}" for why, n in (reading.left_out - before).items())
            what = f"no image that is read, but {others}" if others else "empty class folder"
            reading.problems.add(folder.relative_to(root).as_posix(), what)
        for done, path in enumerate(files):
            reading.fraction = (position + done / len(files)) / len(folders)
            yield Item.of_file(root, path, folder.name, split)


def _class_folders(root: Path) -> list[tuple[str, Path]]:
    children = _folders(root)
    splits = [child for child in children if child.name.lower() in SPLIT_NAMES]
    if not splits:
        return [("", child) for child in children]
    stray = [child.name for child in children if child not in splits and canonical_label(child.name)]
    if stray:
        reason = f"holds both split folders and class folders ({', '.join(stray)})"
        raise DatasetError(reason, "move the class folders into a split folder", path=root)
    return [(SPLIT_NAMES[split.name.lower()], folder) for split in splits for folder in _folders(split)]


def _report_strays(root: Path, folders: list[tuple[str, Path]], reading: Reading) -> None:
    """Count what stands beside the class folders; a class folder whose link leads nowhere is a problem."""
    parents = sorted({root, *(folder.parent for _, folder in folders)})
    known = {folder for _, folder in folders} | set(parents)
    for parent in parents:
        for path in sorted(parent.iterdir()):
            if path.is_symlink() and not path.exists():
                reading.problems.add(path.relative_to(root).as_posix(), "a link that leads nowhere")
            elif path.is_dir() and path not in known and not path.name.startswith((".", "__")):
                reading.left_out[f"folder beside the splits ({printable(path.name)})"] += 1
            elif path.is_file() and is_image(path):
                reading.left_out["images outside the class folders"] += 1


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


LAYOUT = Layout("class-tree", title="", source="", licence="unknown", matches=matches, read=read)
