"""What stock Ultralytics `yolo classify` makes of a folder: classes in order, what it scores as what, what it skips.

Its rules are written down here from ultralytics 8.4.190 (`data/utils.py`, `data/dataset.py`), so that they can be told
without it; tests hold them against the real thing on trees of every kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepfer_yolo.data.image_formats import SUFFIXES
from deepfer_yolo.data.untrusted import listing, printable, unreadable
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError, listed
from deepfer_yolo.records import Json, plain

READ = frozenset({"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"})
"""Endings of the files that it takes for images."""
VAL_NAMES = ("val", "validation", "valid")
"""Folders that it validates on: the first that is there."""


@dataclass(frozen=True, slots=True)
class StockFinding:
    """One thing that goes otherwise than a reader of the tree would think; `count` is of images or folders."""

    kind: str
    count: int
    message: str


@dataclass(slots=True)
class StockSplit:
    """One split folder: images by class folder, in the order in which it numbers them, and what it passes over."""

    folder: str
    images: dict[str, int] = field(default_factory=dict)
    strays: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    cut_jpegs: int = 0

    @property
    def n_images(self) -> int:
        """All that it reads."""
        return sum(self.images.values())


@dataclass(frozen=True, slots=True)
class StockView:
    """The whole of it: `names` are the classes of a model trained here, `val_indices` what each val folder counts as in
    that training, and `model_indices` as what in `yolo val` of the model named; None stands for skipped.
    """

    names: tuple[str, ...]
    train: StockSplit | None
    val: StockSplit | None
    val_indices: Mapping[str, int | None]
    model_indices: Mapping[str, int | None]
    findings: tuple[StockFinding, ...]

    def to_json(self) -> Json:
        """As --json prints it."""
        shown: Json = plain(self)
        return shown


def stock_view(root: Path, model: Sequence[str], *, named: bool = True) -> StockView:
    """What `yolo classify train` and `val` would do with `root`; `model` are the labels of the model that is validated.
    One that was not `named` is passed over where the folders are neither its labels in any spelling nor numbers.

    Raises DatasetError for what is no folder.
    """
    if not root.is_dir():
        raise DatasetError("not a folder", "unpack it, or convert it: deepfer convert SOURCE DEST", path=root)
    folders = {path.name for path in listing(root) if path.is_dir()}
    if "train" not in folders:
        return StockView((), None, None, {}, {}, (_splits_itself(root, sorted(folders)),))
    train = _read(root, "train")
    held_out = [name for name in (*VAL_NAMES, "test") if name in folders]
    val = _read(root, held_out[0]) if held_out else None
    names = tuple(train.images)
    judged = () if val is None else tuple(val.images)
    of_model = named or any(canonical_label(name) in model or _is_number(name) for name in judged)
    learned, scored = indices(judged, names), indices(judged, model) if of_model else {}
    findings = [
        *_of_train(train, names),
        *_of_choice(held_out, root),
        *(_of_folders(val, names, learned) if val is not None else ()),
        *(_of_model(val, model, scored) if val is not None and of_model else ()),
        *(found for split in (train, val) if split is not None for found in _of_files(split)),
    ]
    return StockView(names, train, val, learned, scored, tuple(findings))


def indices(folders: Sequence[str], names: Sequence[str]) -> dict[str, int | None]:
    """What each class folder counts as for a model of `names`: the class of its very name, if any folder has one; else
    the class of its place. None is skipped.
    """
    if set(folders) & set(names):
        return {folder: names.index(folder) if folder in names else None for folder in folders}
    return {folder: i if i < len(names) else None for i, folder in enumerate(folders)}


def _read(root: Path, name: str) -> StockSplit:
    split = StockSplit(name)
    for path in listing(root / name):
        if path.is_dir():
            split.images[path.name] = _count(path, split)
        elif path.suffix[1:].lower() in READ:
            split.strays += 1
    return split


def _count(folder: Path, split: StockSplit) -> int:
    """The images of one class folder and of all folders in it."""

    def refuse(error: OSError) -> None:
        raise unreadable(folder, error)

    count = 0
    for place, _, files in os.walk(folder, onerror=refuse):
        for file in files:
            ending = file.rpartition(".")[2].lower()
            if ending in READ:
                count += 1
                split.cut_jpegs += _is_cut_jpeg(Path(place, file))
            elif f".{ending}" in SUFFIXES:
                split.unread[ending] = split.unread.get(ending, 0) + 1
    return count


def _is_cut_jpeg(path: Path) -> bool:
    """Whether a JPEG does not end with its end mark; such a file is written anew in its place."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            if file.read(3) != b"\xff\xd8\xff":
                return False
            file.seek(-2, os.SEEK_END)
            return file.read() != b"\xff\xd9"
    except OSError as error:
        raise unreadable(path, error) from None


def _splits_itself(root: Path, folders: list[str]) -> StockFinding:
    shown = listed([printable(name) for name in folders], 10) if folders else "none"
    what = f"no folder 'train': it copies the images into {root.name}_split, 80 % of each folder to train"
    return StockFinding("no-train", len(folders), f"{what}, 20 % to val, whoever is in them; its classes: {shown}")


def _of_train(train: StockSplit, names: tuple[str, ...]) -> Iterator[StockFinding]:
    if hidden := [name for name in names if name.startswith((".", "__"))]:
        yield StockFinding("hidden-class", len(hidden), f"{_shown(hidden)} in train/ is a class like the others")
    if empty := [name for name, n in train.images.items() if not n and name not in hidden]:
        yield StockFinding("empty-class", len(empty), f"{_shown(empty)} in train/ is a class without images")
    yield from _of_numbers(names)
    for label, same in _doubles(names):
        yield StockFinding("two-classes", len(same), f"{_shown(same)} are {len(same)} classes, though all mean {label}")


def _of_numbers(names: tuple[str, ...]) -> Iterator[StockFinding]:
    numbers = {name: i for i, name in enumerate(names) if _is_number(name)}
    values = [int(name) for name in numbers]
    rows = [f"{name} is class {i}" for name, i in numbers.items() if int(name) != i]
    if values != sorted(values):
        yield StockFinding("text-order", len(rows), f"folders that are numbers sort as text: {_shown(rows)}")
    elif rows:
        yield StockFinding("number-names", len(rows), f"a class's number is its place, not its folder: {_shown(rows)}")


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _doubles(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    meanings: dict[str, list[str]] = {}
    for name in names:
        if label := canonical_label(name):
            meanings.setdefault(label, []).append(name)
    return ((label, same) for label, same in meanings.items() if len(same) > 1)


def _of_choice(held_out: list[str], root: Path) -> Iterator[StockFinding]:
    if not held_out:
        where = ", ".join(path.name for path in listing(root) if path.is_dir() and path.name != "train") or "nothing"
        what = f"neither {', '.join(VAL_NAMES)} nor test beside train ({where}): training stops before it starts"
        yield StockFinding("no-val", 1, what)
    elif held_out[0] == "test":
        yield StockFinding("val-is-test", 1, "no val: test/ chooses the best epoch, and is no test then")
    elif len(vals := [name for name in held_out if name != "test"]) > 1:
        yield StockFinding("several-val", len(vals) - 1, f"only {vals[0]}/ is read, not {', '.join(vals[1:])}/")


def _of_folders(val: StockSplit, names: tuple[str, ...], learned: Mapping[str, int | None]) -> Iterator[StockFinding]:
    """Of val folders in the training of a model on this tree."""
    met = set(val.images) & set(names)
    if val.images and not met:
        rows = [f"{folder} as {names[i]}" for folder, i in learned.items() if i is not None and folder != names[i]]
        what = f"no folder of {val.folder}/ is named as one of train/, so that the order decides: {_shown(rows)}"
        yield StockFinding("val-by-order", val.n_images, what)
    elif alone := [folder for folder in val.images if learned[folder] is None]:
        n = sum(val.images[folder] for folder in alone)
        yield StockFinding("val-skipped", n, f"{_shown(alone)} of {val.folder}/ is not in train/: skipped")
    missing = [name for name in names if not val.images.get(name)] if met else []
    if missing:
        yield StockFinding("val-misses", len(missing), f"{_shown(missing)} has no image in {val.folder}/")


def _of_model(val: StockSplit, model: Sequence[str], scored: Mapping[str, int | None]) -> Iterator[StockFinding]:
    """Of val folders in `yolo val` of a model with its own labels."""
    known = {canonical_label(label) or label: label for label in model}
    meant = {folder: known.get(canonical_label(folder) or folder) for folder, n in val.images.items() if n}
    places = {folder: i for folder in meant if (i := scored[folder]) is not None}
    if wrong := {folder: model[i] for folder, i in places.items() if model[i] != meant[folder]}:
        rows, n = [f"{folder} as {label}" for folder, label in wrong.items()], sum(val.images[name] for name in wrong)
        what = f"no folder is named as a label of the model, so that `yolo val` of it scores by order: {_shown(rows)}"
        yield StockFinding("scored-by-order", n, what)
    if skipped := {folder: label for folder, label in meant.items() if label and scored[folder] is None}:
        rows = [f"{folder} ({label})" for folder, label in skipped.items()]
        n = sum(val.images[folder] for folder in skipped)
        yield StockFinding("spelling-skipped", n, f"`yolo val` of the model skips other spellings: {_shown(rows)}")


def _of_files(split: StockSplit) -> Iterator[StockFinding]:
    if split.strays:
        yield StockFinding("strays", split.strays, f"images in {split.folder}/ outside its class folders are not read")
    if split.unread:
        endings = ", ".join(f".{ending}" for ending in sorted(split.unread))
        n = sum(split.unread.values())
        yield StockFinding("suffix", n, f"images of {split.folder}/ named {endings} are not read, and nothing says so")
    if split.cut_jpegs:
        what = f"JPEG files of {split.folder}/ that do not end with their end mark are encoded anew, in their place"
        yield StockFinding("rewritten", split.cut_jpegs, what)


def _shown(names: list[str]) -> str:
    return listed([printable(name) for name in names], 10)
