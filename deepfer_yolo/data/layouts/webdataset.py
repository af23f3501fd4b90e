"""WebDataset: tar shards in which the files of one sample stand together under one name.

    train-000000.tar    train-000001.tar    val-000000.tar    also train/0.tar, and as tar.gz
    a/17.jpg  a/17.cls  a/18.jpg  a/18.cls    or .json with label, cls or emotion, or .txt with the name of the label

One shard, or a folder of them; the split is that of the shard's name, else of its folder. Names of numbered labels may
stand in classnames.txt, one a line, or in the yaml of README.md. Shards are read from the first byte to the last, and
nothing is unpacked: names of members are no paths.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from deepfer_yolo.data.image_formats import SUFFIXES as IMAGE_SUFFIXES
from deepfer_yolo.data.layouts.boxes import box_columns
from deepfer_yolo.data.layouts.item import Item, Layout, Reading
from deepfer_yolo.data.layouts.shards import (
    LABEL_COLUMNS,
    MAX_CONTENT,
    ShardLabels,
    choose,
    find_shards,
    home_of,
    is_number,
    label_names,
    names_in_front_matter,
    place_of,
    read_front_matter,
    read_small,
    splits_of,
)
from deepfer_yolo.data.tars import BROKEN_TAR, tar_members
from deepfer_yolo.data.untrusted import MAX_RATIO, RATIO_FROM, printable
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
LABEL_PARTS = ("cls", "json", "txt")
NAME_LISTS = ("classnames.txt", "classes.txt", "labels.txt")
MAX_LABEL_BYTES, MAX_KEY = 100_000, 1000
N_SAMPLES = 20
"""Samples that are looked at to recognise a shard."""

Sample = tuple[str, dict[str, bytes | None]]
"""The name of a sample, and its images and labels by what follows the first point; None where one is too large."""


def matches(source: Path) -> bool:
    """True for a tar whose samples have image and label under one name, or a folder of such shards."""
    files = find_shards(source, SUFFIXES)
    if not files:
        return False
    try:
        with _opened(files[0]) as samples:
            return any(_is_labelled(parts) for _, (_, parts) in zip(range(N_SAMPLES), samples, strict=False))
    except (DatasetError, OSError):
        return False


def _is_labelled(parts: dict[str, bytes | None]) -> bool:
    """Whether a label stands beside an image: other archives hold .json and .txt files too."""
    try:
        told = _told(parts, _row(parts)) if _image_part(parts) else {}
    except ValueError:
        return False
    return bool(told) and (
        "cls" in parts or "json" in parts or any(canonical_label(str(value)) for value in told.values())
    )


def read(reading: Reading) -> Iterator[Item]:
    """The samples in order; `source_id` is shard and name."""
    files = find_shards(reading.source, SUFFIXES)
    if not files:
        raise DatasetError("holds no tar shard", "expected train-000000.tar", path=reading.source)
    splits = splits_of(files, reading.source)
    names, labels = _names(reading), ShardLabels(reading)
    for position, (file, split) in enumerate(zip(files, splits, strict=True)):
        reading.fraction = position / len(files)
        shard, met = place_of(file, reading.source), set[str]()
        with _opened(file) as samples:
            for key, parts in samples:
                place = f"{shard}: {key}"
                try:
                    if key in met:
                        raise ValueError("the same name stands there twice, or the files of a sample stand apart")
                    met.add(key)
                    item = _item(labels, names, place, split, key, parts)
                except ValueError as error:
                    reading.problems.add(place, str(error))
                else:
                    if item is not None:
                        yield item
    labels.finish()


def _item(
    labels: ShardLabels, names: tuple[str, ...], place: str, split: str, key: str, parts: dict[str, bytes | None]
) -> Item | None:
    part = _image_part(parts)
    content = parts[part] if part else None
    if content is None:
        raise ValueError(f"larger than {MAX_CONTENT // 1_000_000} MB" if part else "no image of this name")
    row = _row(parts)
    told = _told(parts, row)
    if not told:
        raise ValueError("no label: .cls, .json with label, cls or emotion, or .txt")
    column = choose(place, "label", told, [name for name, value in told.items() if not is_number(value)], told)
    label = labels.text(told[column], names)
    if label is None:
        return None
    boxes, source_id = box_columns(tuple(row), labels.reading.options.box_format), place.replace(": ", "/", 1)
    box = None if boxes is None else boxes.box(row)
    return Item(label, split, PurePosixPath(key).name, place, content=content, source_id=source_id, box=box)


def _image_part(parts: dict[str, bytes | None]) -> str:
    """What follows the name of the image, `jpg` before `face.jpg`. Raises ValueError where there are several."""
    found = [part for part in parts if part.rpartition(".")[2] not in LABEL_PARTS]
    plain = [part for part in found if "." not in part] or found
    if len(plain) > 1:
        raise ValueError(f"several images: {', '.join(sorted(plain)[:5])}")
    return plain[0] if plain else ""


def _row(parts: dict[str, bytes | None]) -> dict[str, Any]:
    """What the .json of a sample says; empty where there is none. Raises ValueError where it cannot be read."""
    try:
        row = json.loads(parts.get("json") or b"{}")
    except (ValueError, RecursionError):
        raise ValueError("its .json cannot be read") from None
    return row if isinstance(row, dict) else {}


def _told(parts: dict[str, bytes | None], row: dict[str, Any]) -> dict[str, Any]:
    """What a sample says of its label, by where: .cls and keys of .json; .txt, often a caption, only without them."""
    told = {key: value for key, value in row.items() if key.lower() in LABEL_COLUMNS and _is_plain(value)}
    if (content := parts.get("cls")) is not None:
        told["cls"] = content.decode("utf-8", "replace")
    if not told and (content := parts.get("txt")) is not None:
        told["txt"] = content.decode("utf-8", "replace")
    same = {str(value).strip().casefold() for value in told.values()}
    return told if len(same) > 1 else dict(list(told.items())[:1])


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _names(reading: Reading) -> tuple[str, ...]:
    """The names of numbered labels that stand beside the shards; empty where there are none."""
    for name in NAME_LISTS:
        lines = [line.strip() for line in read_small(home_of(reading.source) / name).splitlines() if line.strip()]
        if lines:
            return label_names(lines)
    readme = read_front_matter(reading.source)
    reading.licence = printable(str(readme.get("license") or ""))[:80]
    known = names_in_front_matter(readme)
    return next(iter(known.values())) if len(known) == 1 else ()


@contextmanager
def _opened(file: Path) -> Iterator[Iterator[Sample]]:
    """The samples of a shard. Raises DatasetError where it is broken, or unpacks to more than it may."""
    try:
        yield _samples(file)
    except BROKEN_TAR as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        hint = "fetch it again and compare its checksum"
        raise DatasetError(f"the archive is broken ({printable(str(error))[:200]})", hint, path=file) from None


def _samples(file: Path) -> Iterator[Sample]:
    allowed = max(RATIO_FROM, MAX_RATIO * file.stat().st_size)
    key, parts = "", dict[str, bytes | None]()
    for member, opened in tar_members(file):
        allowed -= tarfile.BLOCKSIZE + max(0, member.size)
        if allowed < 0:
            reason = "unpacks to more than it may: a decompression bomb?"
            raise DatasetError(reason, "do not trust it", path=file)
        folder, _, name = member.name[-MAX_KEY:].rpartition("/")
        stem, _, part = name.partition(".")
        part = part.lower()
        last = part.rpartition(".")[2]
        if not member.isreg() or member.issparse() or not (part in LABEL_PARTS or f".{last}" in IMAGE_SUFFIXES):
            continue
        if (here := f"{folder}/{stem}".lstrip("/")) != key:
            if parts:
                yield key, parts
            key, parts = here, {}
        is_small = member.size <= (MAX_LABEL_BYTES if part in LABEL_PARTS else MAX_CONTENT)
        content = opened() if is_small else None
        parts[part] = content.read() if content is not None else None
    if parts:
        yield key, parts


LAYOUT = Layout("webdataset", title="", source="", licence="unknown", matches=matches, read=read)
