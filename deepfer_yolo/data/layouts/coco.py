"""A detection set in COCO's json: images, categories, and annotations that give each face its box and category.

    train/_annotations.coco.json    train/a.jpg                  as Roboflow writes it
    annotations/instances_train2017.json    train2017/a.jpg      as COCO itself; also images/train2017, images or here

    {"images": [{"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}],
     "categories": [{"id": 1, "name": "happy"}],
     "annotations": [{"id": 3, "image_id": 7, "category_id": 1, "bbox": [100, 200, 160, 160]}]}

A box is x, y, width, height in pixels; each becomes one image. Crowds, which are no single face, and images without
boxes are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfer_yolo.data.json_arrays import array_elements
from deepfer_yolo.data.layouts.boxes import Box
from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import Item, Layout, Listed, Reading, items_of
from deepfer_yolo.data.untrusted import folders_in, leaves_folder, open_list, printable
from deepfer_yolo.errors import DatasetError

ROBOFLOW = "_annotations.coco.json"
FOLDERS = ("annotations", "Annotations", ".")
HEAD = 1 << 16
KEYS = ("file_name", "image_id", "category_id", "supercategory")
MAX_IMAGES = 3_000_000
Id = int | str


@dataclass(frozen=True, slots=True)
class _Image:
    """An image as a list names it."""

    name: str
    size: tuple[int, int] | None


def matches(source: Path) -> bool:
    """True for a json in COCO's form, or a folder with one: itself, in its annotations, or in its split folders."""
    return bool(_lists(source))


def read(reading: Reading) -> Iterator[Item]:
    """One item an annotation; `source_id` is the image's path in the source, and the face's number from the second."""
    lists, listed = _lists(reading.source), Listed(reading)
    if not lists:
        raise DatasetError("holds no json in COCO's form", f"expected train/{ROBOFLOW}", path=reading.source)
    seen: dict[str, Path] = {}
    for file, split in lists:
        if split in seen:
            reason = f"two lists of {split or 'all'}: {seen[split].name} and {file.name}"
            raise DatasetError(reason, "name one of them by itself, or take one away", path=file.parent)
        seen[split] = file
    for position, (file, split) in enumerate(lists):
        part = _Part(reading, file, split, listed)
        yield from part.faces(position, len(lists))
    if reading.source.is_dir():
        listed.count_others(reading.source, "images that no list names")


class _Part:
    """One list: its images and categories in memory, its annotations one at a time."""

    def __init__(self, reading: Reading, file: Path, split: str, listed: Listed) -> None:
        self._reading, self._file, self._split, self._listed = reading, file, split, listed
        self._root = reading.source if reading.source.is_dir() else file.parent
        inside = file.relative_to(self._root).as_posix()
        self._images: dict[Id, _Image] = {}
        self._labels: dict[Id, str] = {}
        for number, (kind, element, _) in enumerate(array_elements(file, ("images", "categories")), 1):
            try:
                self._learn(kind, element)
            except ValueError as error:
                reading.problems.add(f"{inside}, {kind} number {number}", str(error))
        if not self._images or not self._labels:
            what = "images" if not self._images else "categories"
            raise DatasetError(f"has no {what}", "is this a json in COCO's form?", path=file)
        self._place = inside
        self._folder = self._image_folder()
        for image in self._images.values():
            listed.note(self._folder / image.name)

    def _learn(self, kind: str, element: Any) -> None:
        """Take note of an image or a category. Raises ValueError."""
        name = element.get("file_name" if kind == "images" else "name") if isinstance(element, dict) else None
        key = element.get("id") if isinstance(element, dict) else None
        if not isinstance(name, str | int) or not isinstance(key, int | str) or not str(name).strip():
            raise ValueError(f"is not an id and a {'file_name' if kind == 'images' else 'name'}")
        known: dict[Id, Any] = self._images if kind == "images" else self._labels
        if key in known:
            raise ValueError(f"id {printable(str(key)[:40])} stands there twice")
        if kind == "categories":
            self._labels[key] = str(name).strip()
            return
        name = str(name).replace("\\", "/").removeprefix("./")
        if leaves_folder(name):
            raise ValueError(f"the path '{printable(name[:80])}' leaves the folder")
        if len(self._images) >= MAX_IMAGES:
            raise DatasetError(f"names more than {MAX_IMAGES:,} images", "divide it", path=self._file)
        sides = (element.get("width"), element.get("height"))
        has_size = all(isinstance(side, int) and side > 0 for side in sides)
        self._images[key] = _Image(name, sides if has_size else None)

    def _image_folder(self) -> Path:
        """Where the images lie: the first of the usual places that holds the first image."""
        if self._file.name == ROBOFLOW or self._reading.source.is_file():
            return self._file.parent
        stem, root = re.sub(r"^(instances|person_keypoints)_", "", self._file.stem), self._root
        places = [above / name for name in (stem, self._split) for above in (root, root / "images")]
        places += [root / "images", root, self._file.parent]
        first = next(iter(self._images.values())).name
        return next((place for place in places if (place / first).is_file()), root / "images")

    def faces(self, position: int, n_lists: int) -> Iterator[Item]:
        """The annotations in file order; images without one are counted."""
        boxed: set[Id] = set()
        for number, (_, element, done) in enumerate(array_elements(self._file, ("annotations",)), 1):
            self._reading.fraction = (position + done) / n_lists
            if isinstance(element, dict) and isinstance(element.get("image_id"), int | str):
                boxed.add(element["image_id"])
            key = element.get("id") if isinstance(element, dict) else None
            place = f"{self._place}, annotation {key if isinstance(key, int) else f'number {number}'}"
            yield from items_of(self._reading, [(place, element)], self._face)
        without = sum(key not in boxed for key in self._images)
        if without:
            self._reading.left_out["images without boxes"] += without

    def _face(self, place: str, element: Any) -> Item | None:
        if not isinstance(element, dict):
            raise ValueError("is no JSON object")
        if element.get("iscrowd") not in (None, 0, False):
            self._reading.left_out["crowds, which are no single face"] += 1
            return None
        image = _known(self._images, element, "image_id", "image")
        label = _known(self._labels, element, "category_id", "category")
        given = element.get("bbox")
        values = given if isinstance(given, list) else []
        if len(values) != 4 or any(not isinstance(value, int | float) or isinstance(value, bool) for value in values):
            raise ValueError(f"bbox is '{printable(str(given)[:60])}', not x, y, width and height")
        file = self._folder / image.name
        inside = file.relative_to(self._root).as_posix()
        box = Box.of(values, "xywh", size=image.size)
        return self._listed.item(place, file, label, self._split, inside, box)


def _known(known: dict[Id, Any], element: dict[str, Any], key: str, what: str) -> Any:
    value = element.get(key)
    if not isinstance(value, int | str) or value not in known:
        raise ValueError(f"{key} is {printable(str(value)[:40])}, and the list has no such {what}")
    return known[value]


def _lists(source: Path) -> list[tuple[Path, str]]:
    """The lists of a source and the split of each, "" where none is told."""
    if source.is_file():
        split = SPLIT_NAMES.get(source.parent.name.lower(), "") if source.name == ROBOFLOW else _split_of(source)
        return [(source, split)] if _is_coco(source) else []
    if not source.is_dir():
        return []
    children = [path for path in folders_in(source) if path.name.lower() in SPLIT_NAMES]
    named = [(child / ROBOFLOW, SPLIT_NAMES[child.name.lower()]) for child in children]
    named = [(file, split) for file, split in named if file.is_file()]
    if named or (source / ROBOFLOW).is_file():
        return named or [(source / ROBOFLOW, "")]
    for name in FOLDERS:
        files = [path for path in sorted((source / name).glob("[!.]*.json")) if path.is_file() and _is_coco(path)]
        instances = [path for path in files if path.name.startswith("instances")]
        if files:
            return [(path, _split_of(path)) for path in instances or files]
    return []


def _split_of(file: Path) -> str:
    words = re.findall(r"[a-z]+", file.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _is_coco(file: Path) -> bool:
    """Whether a json begins as COCO's do, by its name or its first characters; others hold categories too."""
    if file.suffix.lower() != ".json":
        return False
    if file.name.startswith("instances"):
        return True
    with open_list(file) as text:
        head = text.read(HEAD)
    return head.lstrip().startswith("{") and any(f'"{key}"' in head for key in KEYS)


LAYOUT = Layout("coco", title="", source="", licence="unknown", matches=matches, read=read)
