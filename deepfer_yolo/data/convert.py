"""Any known layout → the data set folder, streamed: no more than a few hundred pictures are in memory at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.layouts.item import Item, Layout, Reading
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.data.manifest import SPLITS, Row, fingerprint, write_dataset_json, write_manifest
from deepfer_yolo.data.ordered import map_in_order
from deepfer_yolo.data.png import encode_png
from deepfer_yolo.data.problems import printable
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import refuse_existing, staged_tree

MAX_NAME = 80
UNSAFE = frozenset('<>:"/\\|?*%')
WINDOWS_NAMES = frozenset({"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))})

Progress = Callable[[float], None]


@dataclass(slots=True)
class _Writing:
    """What one conversion knows while it runs."""

    folder: Path
    reading: Reading
    names: dict[str, set[str]] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    rows: list[Row] = field(default_factory=list)


def convert(source: Path, target: Path, config: ConvertConfig, *, overwrite: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Write the data set folder `target` from `source` and return the content of its `dataset.json`.

    `progress` is called with the part done, 0 to 1. Raises DatasetError that lists every bad row or picture with its place; then, as after a
    kill, `target` is what it was before.
    """
    source = Path(source)
    layout = find_layout(source, config.layout)
    refuse_existing(target, overwrite=overwrite)
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise DatasetError(f"the destination {target} lies inside the source {source}", "name a destination elsewhere; sources are never written to")
    reading = Reading(source)
    with staged_tree(target, overwrite=overwrite) as folder:
        writing = _Writing(folder, reading)
        for row in _write_all(writing, layout.read(reading), config.workers):
            if row is not None:
                writing.rows.append(row)
                if progress is not None and len(writing.rows) % 100 == 0:
                    progress(reading.fraction)
        _check(writing)
        content = _describe(writing.rows, config, reading, layout)
        write_manifest(writing.rows, folder)
        write_dataset_json(content, folder)
    if progress is not None:
        progress(1.0)
    return content


def absent_labels(counts: dict[str, dict[str, int]]) -> list[str]:
    """`split/label` for each label that a split which is there does not have; the learning and measuring commands need all of them."""
    labels = sorted({label for by_label in counts.values() for label in by_label})
    return [f"{split}/{label}" for split in SPLITS if split in counts for label in labels if not counts[split].get(label)]


def file_name(wish: str, taken: set[str]) -> str:
    """A file name for a picture that every file system takes: `wish` where it can be, and no two alike but for case."""
    stem = "".join(c if c.isprintable() and c not in UNSAFE and not "\ud800" <= c <= "\udfff" else f"%{ord(c):x}" for c in wish)
    stem = stem.strip(" .") or "picture"
    if len(stem.encode()) > MAX_NAME or stem.lower().split(".")[0] in WINDOWS_NAMES:
        stem = f"{stem[:20]}-{hashlib.sha256(wish.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name


def _write_all(writing: _Writing, items: Iterator[Item], workers: int) -> Iterator[Row | None]:
    """Pictures that must be decoded go through threads; pixels at hand do not, since threads that share the interpreter only slow them down."""
    first = next(items, None)
    if first is None:
        return iter(())
    works = _assign(writing, chain((first,), items))
    return map_in_order(lambda work: _write(writing, *work), works, 0 if first.pixels is not None else workers)


def _assign(writing: _Writing, items: Iterator[Item]) -> Iterator[tuple[Item, str, str, str]]:
    """Each item with its split, label and path, in the order of reading, so that names never depend on the threads."""
    for item in items:
        label = canonical_label(item.label)
        if label is None:
            writing.unknown[item.label] += 1
            continue
        split = item.split or "train"
        folder = f"{split}/{label}"
        if folder not in writing.names:
            writing.names[folder] = set()
            (writing.folder / folder).mkdir(parents=True)
        yield item, split, label, f"{folder}/{file_name(item.name, writing.names[folder])}.png"


def _write(writing: _Writing, item: Item, split: str, label: str, path: str) -> Row | None:
    try:
        pixels = item.pixels if item.pixels is not None else load_image(item.file or Path())
    except DatasetError as error:
        writing.reading.problems.add(item.place, error.message.removeprefix(f"{item.file}: "))
        return None
    content = encode_png(pixels)
    (writing.folder / path).write_bytes(content)
    return Row(path, split, label, item.source_id, item.subject, hashlib.sha256(content).hexdigest(), item.votes)


def _check(writing: _Writing) -> None:
    for label, count in writing.unknown.items():
        writing.reading.problems.add(f"label '{label}'", f"not a known emotion ({count:,} pictures)")
    writing.reading.problems.raise_if_any("mend or remove these, then run the same command again; nothing was written")
    if not writing.rows:
        raise DatasetError(f"{writing.reading.source} holds no pictures", "check the path and the layout")


def _describe(rows: list[Row], config: ConvertConfig, reading: Reading, layout: Layout) -> dict[str, Any]:
    counts = Counter((row.split, row.label) for row in rows)
    labels = sorted({row.label for row in rows})
    return {
        "schema_version": 1,
        "name": config.name or reading.title or layout.title or printable(reading.source.name),
        "source": reading.origin or layout.source or printable(reading.source.name),
        "licence": reading.licence or layout.licence,
        "labels": labels,
        "counts": {split: {label: counts[split, label] for label in labels} for split in SPLITS if any(row.split == split for row in rows)},
        "options": {**config.model_dump(mode="json", exclude={"workers"}), "layout": layout.name},
        "fingerprint": fingerprint(rows),
    }
