"""A detection set of YOLO, as Ultralytics, Roboflow and Label Studio write it: a text of boxes beside each image.

    data.yaml      names: [angry, happy]        or names: {0: angry, 1: happy}, or a classes.txt with a name a line
    train/images/a.jpg    train/labels/a.txt    or images/train/a.jpg, labels/train/a.txt
    1 0.28 0.58 0.25 0.33                       class, centre x, centre y, width, height in shares of the image

Each box becomes one image; of an outline its bounding box, and with `kpt_shape` the points are left. train, val and
test of data.yaml name the folders of the splits, and are looked for inside the source alone, whatever `path` says; else
the folders' own names do. Images without boxes are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from deepfer_yolo.data.dataset import SPLITS
from deepfer_yolo.data.layouts.boxes import Box
from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import Item, Layout, Listed, Reading, images_in, items_of, read_lines
from deepfer_yolo.data.untrusted import MAX_DEPTH, Problems, bounded_lines, folders_in, open_list, printable, walk_files
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.presets import read_yaml

IMAGES, LABELS = "images", "labels"
YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASSES = "classes.txt"
MAX_CLASSES = 10_000
MAX_SHARE = 1.5
"""A share is at most 1, a little more where a box passes the edge; pixels are more, and so is the 2 of a point seen."""


def matches(source: Path) -> bool:
    """True for a folder with images and labels, itself, above its split folders or in them; or with a data.yaml that
    names classes and splits.
    """
    if not source.is_dir():
        return False
    if any(_has_texts(folder / LABELS) for folder in (source, *folders_in(source)) if (folder / IMAGES).is_dir()):
        return True
    try:
        content = _yaml(source)
    except DatasetError:
        return False
    return "names" in content and any(split in content for split in SPLITS)


def read(reading: Reading) -> Iterator[Item]:
    """One item a box; `source_id` is the image's path in the source, and the face's number from the second on."""
    root = reading.source
    content = _yaml(root)
    shown = content.get("roboflow")
    if isinstance(shown, dict):
        reading.licence, reading.origin = (printable(str(shown.get(key) or "")[:200]) for key in ("license", "url"))
    reader = _Reader(reading, Listed(reading), _names(root, content), _n_points(content))
    folders = _split_folders(reading, content)
    for position, (folder, split) in enumerate(folders.items()):
        images = [image for image in images_in(folder, reading) if _owner(image, folders) == folder]
        for done, image in enumerate(images):
            reading.fraction = (position + done / len(images)) / len(folders)
            yield from reader.faces(image, split)
    reader.report_orphans(folders)


@dataclass(slots=True)
class _Reader:
    """Reads the texts beside images: classes by number, `n_points` the numbers of a pose that follow its box."""

    reading: Reading
    listed: Listed
    names: dict[int, str]
    n_points: int
    read: set[Path] = field(default_factory=set)

    def faces(self, image: Path, split: str) -> Iterator[Item]:
        """The boxes of one image."""
        root, text = self.reading.source, _text_of(self.reading.source, image)
        if text in self.read:
            place = image.relative_to(root).as_posix()
            self.reading.problems.add(place, f"another image has the same boxes, {text.relative_to(root).as_posix()}")
            return
        self.read.add(text)
        if not text.is_file():
            self.reading.left_out["images without a text of boxes"] += 1
            return
        fraction, n_lines = self.reading.fraction, 0
        above = f"{text.parent.relative_to(root).as_posix()}/"
        for place, line in read_lines(text, self.reading):
            n_lines += 1
            self.reading.fraction = fraction
            yield from items_of(self.reading, [(above + place, line)], partial(self._face, image, split))
        if not n_lines:
            self.reading.left_out["images whose text of boxes is empty"] += 1

    def _face(self, image: Path, split: str, place: str, line: str) -> Item | None:
        words = line.split()
        try:
            numbers = [float(word) for word in words]
            code = int(numbers[0])
            is_whole = code == numbers[0]
        except (ValueError, OverflowError):
            raise ValueError(f"not a class and numbers: '{line.strip()[:60]}'") from None
        if not is_whole or code not in self.names:
            raise ValueError(f"class {words[0][:20]} is not among the {len(self.names)} that have names")
        box = _box(numbers[1:], self.n_points)
        inside = image.relative_to(self.reading.source).as_posix()
        return self.listed.item(place, image, self.names[code], split, inside, box)

    def report_orphans(self, folders: Mapping[Path, str]) -> None:
        """Texts of boxes whose image is not there are problems."""
        root = self.reading.source
        for folder in dict.fromkeys(_text_of(root, folder / "x").parent for folder in folders):
            for text in walk_files(folder, self.reading.problems) if folder.is_dir() else ():
                if text.suffix == ".txt" and text.name != CLASSES and text not in self.read and _is_boxes(text):
                    self.reading.problems.add(text.relative_to(root).as_posix(), "no image that is read bears its name")


def _box(numbers: Sequence[float], n_points: int) -> Box:
    """The box of what follows the class of a line."""
    is_box = len(numbers) in (4, 4 + n_points)
    if not is_box and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(f"{len(numbers)} numbers after the class; a box has 4, an outline 6 or more in pairs")
    used = numbers[:4] if is_box else numbers
    if not all(abs(number) <= MAX_SHARE for number in used):
        raise ValueError("not shares of the image from 0 to 1: are these pixels?")
    if is_box:
        x, y, width, height = used
        return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2, is_share=True)
    return Box(min(used[::2]), min(used[1::2]), max(used[::2]), max(used[1::2]), is_share=True)


def _names(root: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """The name of each class. Raises DatasetError where they are not told."""
    file, given = _yaml_of(root), content.get("names")
    if given is None:
        return _listed_names(root)
    listed = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(listed, dict) or not 0 < len(listed) <= MAX_CLASSES:
        raise DatasetError("names is neither a list nor numbers with names", "names: [angry, happy]", path=file)
    names = {}
    for key, name in listed.items():
        code = int(key) if isinstance(key, int) or (isinstance(key, str) and key.isascii() and key.isdigit()) else -1
        if code < 0 or isinstance(key, bool) or isinstance(name, bool) or not isinstance(name, str | int):
            shown = printable(f"{key}: {name}"[:80])
            raise DatasetError(
                f"names: '{shown}' is not a number and a name", "a name in quotation marks is one", path=file
            )
        names[code] = str(name).strip()
    if str(content.get("nc", len(names))) != str(len(names)):
        reason = f"nc is {printable(str(content['nc'])[:20])}, and names has {len(names)}"
        raise DatasetError(reason, "mend data.yaml: which of them holds?", path=file)
    return names


def _listed_names(root: Path) -> dict[int, str]:
    """The names in a classes.txt, one a line."""
    file = next((root / place for place in (CLASSES, f"{LABELS}/{CLASSES}") if (root / place).is_file()), None)
    if file is None:
        hint = "names: [angry, happy] in a data.yaml, in the order of the numbers in labels/"
        raise DatasetError(f"the classes have numbers, and no {YAMLS[0]} or {CLASSES} names them", hint, path=root)
    with open_list(file) as text:
        names = [line.strip() for line in bounded_lines(text, file) if line.strip()]
    return dict(enumerate(names[:MAX_CLASSES]))


def _n_points(content: Mapping[str, Any]) -> int:
    shape = content.get("kpt_shape")
    is_shape = isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) and 0 < n < 1000 for n in shape)
    return shape[0] * shape[1] if is_shape and isinstance(shape, list) else 0


def _split_folders(reading: Reading, content: Mapping[str, Any]) -> dict[Path, str]:
    """The folders of images in the source, each with its split; "" where there are no splits."""
    root, found, absent = reading.source, dict[Path, str](), list[str]()
    for split in SPLITS:
        given = content.get(split)
        for value in given if isinstance(given, list) else [given] if given else []:
            folder = _inside(root, value) if isinstance(value, str) else None
            if folder is None:
                absent.append(f"{split} of data.yaml ({printable(str(value)[:60])}), which is no folder here")
            elif folder in found:
                reading.left_out[f"{split} of data.yaml, which is the folder of {found[folder]}"] += 1
            else:
                found[folder] = split
    reading.left_out.update(absent)
    told = set(found.values())
    beneath = folders_in(root / IMAGES) if (root / IMAGES).is_dir() else []
    for folder in (*beneath, *(child / IMAGES for child in folders_in(root) if (child / IMAGES).is_dir())):
        name = (folder.parent if folder.name == IMAGES else folder).name
        if any(folder.is_relative_to(known) or known.is_relative_to(folder) for known in found):
            continue
        split = SPLIT_NAMES.get(name.lower().rstrip("0123456789"), "")
        if split and split not in told:
            found[folder] = split
        elif found:
            reading.left_out[f"folder beside the splits ({printable(name)})"] += 1
    if found:
        return found
    if absent:
        raise DatasetError(absent[0], "expected train/images, valid/images or images/train, images/val", path=root)
    if not (root / IMAGES).is_dir():
        raise DatasetError("holds no images beside labels", "expected images/ and labels/", path=root)
    return {root / IMAGES: ""}


def _inside(root: Path, value: str) -> Path | None:
    """The folder that `value` means, inside the source: the longest end of it that is there."""
    parts = [part for part in PurePosixPath(value.replace("\\", "/")).parts if part not in ("..", ".", "/")][
        -MAX_DEPTH:
    ]
    try:
        return next((root.joinpath(*parts[n:]) for n in range(len(parts)) if root.joinpath(*parts[n:]).is_dir()), None)
    except OSError:  # a name longer than any folder's
        return None


def _owner(image: Path, folders: Mapping[Path, str]) -> Path | None:
    """The innermost of `folders` that holds the image."""
    return next((parent for parent in image.parents if parent in folders), None)


def _text_of(root: Path, image: Path) -> Path:
    """Where the boxes of an image stand: in labels instead of the last images of its path, else beside it."""
    parts = list(image.relative_to(root).parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == IMAGES:
            parts[at] = LABELS
            break
    return root.joinpath(*parts).with_suffix(".txt")


def _is_boxes(text: Path) -> bool:
    with open_list(text) as lines:
        return lines.read(1).isdigit()


def _yaml_of(root: Path) -> Path | None:
    return next((root / name for name in YAMLS if (root / name).is_file()), None)


def _yaml(root: Path) -> dict[str, Any]:
    """What data.yaml says; nothing where there is none. Raises DatasetError where it cannot be read."""
    file = _yaml_of(root)
    if file is None:
        return {}
    try:
        return read_yaml(file)
    except ConfigError as error:
        raise DatasetError(error.message.removeprefix(f"{file} "), "mend it, or export it again", path=file) from None


def _has_texts(labels: Path) -> bool:
    return labels.is_dir() and any(file.suffix == ".txt" for file in walk_files(labels, Problems()))


LAYOUT = Layout("yolo-detection", title="", source="", licence="unknown", matches=matches, read=read)
