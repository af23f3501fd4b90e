"""Data sets in shards, as parquet and WebDataset are: which files, the split of each, and the names of labels."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from deepfer_yolo.data.layouts.boxes import BoxColumns, box_columns
from deepfer_yolo.data.layouts.class_tree import SPLIT_NAMES
from deepfer_yolo.data.layouts.item import Reading
from deepfer_yolo.data.layouts.table import LABEL_NAMES, NO_LABEL
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.presets import load_yaml

LABEL_COLUMNS = (*LABEL_NAMES, "labels", "emotions", "cls", "target")
SPLITS = {**SPLIT_NAMES, "dev": "val"}
MAX_CONTENT = 32_000_000
"""Bytes of an image inside a shard: up to 32 a thread wait in memory for their decoding."""
MAX_NAMES_BYTES = 300_000
"""Of a README or a list of names."""
MAX_LABEL, MAX_LABELS = 200, 10_000
LFS_POINTER = b"version https://git-lfs"


def find_shards(source: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The shards of a source, sorted: itself, or those in a folder, its `data` or its split folders."""
    if source.is_file():
        return [source] if source.name.lower().endswith(suffixes) else []
    for folder in (source, source / "data"):
        if not folder.is_dir():
            continue
        below = sorted(path for path in folder.iterdir() if path.name.lower() in SPLITS and path.is_dir())
        found = [path for part in (folder, *below) for path in sorted(part.iterdir()) if _is_shard(path, suffixes)]
        if found:
            return found
    return []


def _is_shard(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes) and not path.name.startswith(".") and path.is_file()


def place_of(file: Path, source: Path) -> str:
    """What messages and ids call a shard of `source`."""
    return file.name if file == source else file.relative_to(source).as_posix()


def splits_of(files: Sequence[Path], source: Path) -> list[str]:
    """The split of each shard by its name, else its folder's; all empty where none says any.

    Raises DatasetError where some say one and others do not, and for a pointer in place of a shard.
    """
    splits = []
    for file in files:
        with file.open("rb") as opened:
            if opened.read(len(LFS_POINTER)) == LFS_POINTER:
                raise DatasetError("is a pointer of Git LFS, not the data", "git lfs pull fetches it", path=file)
        words = re.findall("[a-z]+", file.name.lower())
        if file != source:
            words += reversed([part.lower() for part in file.relative_to(source).parts[:-1]])
        splits.append(next((SPLITS[word] for word in words if word in SPLITS), ""))
    if any(splits) and not all(splits):
        other = place_of(files[next(index for index, split in enumerate(splits) if split)], source)
        reason = f"says no split in its name, while {printable(other)} does"
        raise DatasetError(reason, "rename it like train-0.…, or convert it alone", path=files[splits.index("")])
    return splits


def choose(place: str, what: str, columns: Iterable[str], *candidates: Collection[str]) -> str:
    """The one name of the first of `candidates` that has any. Raises DatasetError where there are several, or none of
    the `columns` is one.
    """
    found = next((names for names in candidates if names), ())
    if len(found) == 1:
        return next(iter(found))
    reason = f"several columns may be the {what}" if found else f"no column that can be read as the {what} among"
    listed = ", ".join(printable(str(name))[:40] for name in islice(found or columns, 20))
    raise DatasetError(f"{place}: {reason}: {listed}", f"keep one {what} column, best called '{what}'")


def is_number(value: object) -> bool:
    """Whether a label is a number, or digits as text."""
    word = str(value).strip()
    return isinstance(value, int | float) or (word.isascii() and word.isdigit())


def find_boxes(place: str, columns: Iterable[str], form: str | None) -> BoxColumns | None:
    """The columns that name a box; None where there are none. Raises DatasetError where they do so unclearly."""
    names = tuple(columns)
    try:
        if "objects" in names:
            raise ValueError("the column objects holds several boxes an image")
        return box_columns(names, form)
    except ValueError as error:
        hint = "--box-format says what one column holds; else cut the faces out first"
        raise DatasetError(f"{place}: {printable(str(error))}", hint) from None


def home_of(source: Path) -> Path:
    """The folder of the whole data set, where README.md stands: above its `data` and split folders."""
    folder = source.parent if source.is_file() else source
    while folder.name.lower() in ("data", *SPLITS):
        folder = folder.parent
    return folder


def read_front_matter(source: Path) -> dict[str, Any]:
    """The yaml that begins the README.md of a Hugging Face data set, or that above one of its configurations; empty
    where there is none that can be read.
    """
    home = home_of(source)
    text = read_small(home / "README.md") or read_small(home.parent / "README.md")
    if not text.startswith("---"):
        return {}
    try:
        content = load_yaml(text.split("\n---", 1)[0].removeprefix("---"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def names_in_front_matter(content: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The label names of each column that `dataset_info` declares a class label."""
    known: dict[str, tuple[str, ...]] = {}
    infos = content.get("dataset_info")
    for part in infos if isinstance(infos, list) else [infos]:
        features = part.get("features") if isinstance(part, dict) else None
        for feature in features if isinstance(features, list) else []:
            kind = feature.get("dtype") if isinstance(feature, dict) else None
            names = kind.get("class_label", {}).get("names") if isinstance(kind, dict) else None
            if isinstance(names, dict):
                names = [names.get(str(n), names.get(n, n)) for n in range(min(len(names), MAX_LABELS))]
            if isinstance(names, list) and names:
                known.setdefault(str(feature.get("name")), label_names(names))
    return known


def label_names(names: Sequence[Any]) -> tuple[str, ...]:
    """Names of labels from a stranger's list, bounded."""
    return tuple(str(name)[:MAX_LABEL] for name in names[:MAX_LABELS])


def read_small(file: Path) -> str:
    """The text of a small file; empty where it is not there or larger than any such file is."""
    if not file.is_file() or file.stat().st_size > MAX_NAMES_BYTES:
        return ""
    return file.read_text(encoding="utf-8", errors="replace")


@dataclass(slots=True)
class ShardLabels:
    """Labels as shards hold them, words or numbers; numbers that nothing names are counted until `finish`."""

    reading: Reading
    nameless: Counter[str] = field(default_factory=Counter)

    def text(self, value: object, names: Sequence[str] = ()) -> str | None:
        """The label that `value` stands for; None where it is left out. Raises ValueError for one that is unfit."""
        if isinstance(value, float):
            value = None if math.isnan(value) else int(value) if value.is_integer() else value
        word = "" if value is None else str(value).strip()
        if len(word) > MAX_LABEL:
            raise ValueError(f"a label longer than {MAX_LABEL} characters")
        if word in ("", "-1"):  # -1: `datasets` writes it where a label is withheld
            self.reading.left_out[NO_LABEL] += 1
            return None
        if not is_number(word):
            return word
        if names:
            if int(word) >= len(names):
                raise ValueError(f"label {word}, and there are {len(names)} names")
            return names[int(word)]
        options = self.reading.options
        if word not in options.map and word not in options.drop and options.labels != "keep":
            self.nameless[word] += 1
            return None
        return word

    def finish(self) -> None:
        """Raise DatasetError where labels were numbers that neither the source nor --map names."""
        if not self.nameless:
            return
        shown = sorted(self.nameless, key=int)[:20]
        listed = ", ".join(f"{number} ({self.nameless[number]:,} images)" for number in shown)
        more = f" and {len(self.nameless) - 20} more" if len(self.nameless) > 20 else ""
        flags = " ".join(f"--map {number}=LABEL" for number in shown[:7])
        hint = f"say what each means, such as --map {shown[0]}=angry: deepfer convert SOURCE DEST {flags}"
        raise DatasetError(f"labels are numbers without names: {listed}{more}", hint, path=self.reading.source)
