"""One look at every picture of a source: can it be read, what are its pixels' hash, size and light."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.layouts.item import Item, Reading
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.data.ordered import map_in_order
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one picture is: `pixel_hash` is equal for equal upright pixels, grey or with three equal channels."""

    key: str
    split: str
    label: str
    subject: str
    votes: str
    file: Path | None
    pixel_hash: bytes
    width: int
    height: int
    brightness: float
    contrast: float


@dataclass(slots=True)
class Inspection:
    """All pictures of a source that could be read, and the problems of those that could not (key, what)."""

    name: str
    looks: list[Look] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures by split and label; every label that occurs anywhere is named in every split."""
        labels = sorted({look.label for look in self.looks})
        splits = [split for split in ("train", "val", "test", "") if any(look.split == split for look in self.looks)]
        found = {split: dict.fromkeys(labels, 0) for split in splits}
        for look in self.looks:
            found[look.split][look.label] += 1
        return found


def inspect(source: Path, *, layout: str = "auto", workers: int = 2, progress: Callable[[float], None] | None = None) -> Inspection:
    """Look at every picture of a data set folder or of any known layout; nothing is written.

    Bad rows and pictures are noted, not raised. Raises DatasetError where the source as a whole cannot be read.
    """
    source = Path(source)
    chosen = find_layout(source, layout)
    reading = Reading(source)
    result = Inspection(source.name)
    items = chosen.read(reading)
    for done, (item, look) in enumerate(map_in_order(_look, items, workers)):
        if isinstance(look, str):
            result.broken.append((item.key or item.source_id, look))
        else:
            result.looks.append(look)
        if progress is not None and done % 200 == 0:
            progress(reading.fraction)
    result.broken += [(place, what) for place, _, what in (line.partition(": ") for line in reading.problems.found)]
    if not result.looks and not result.broken:
        raise DatasetError(f"{source} holds no pictures", "check the path and the layout")
    result.name = reading.title or chosen.title or source.name
    return result


def pixel_hash(pixels: NDArray[np.uint8]) -> bytes:
    """16 bytes that are equal for equal pictures: uint8 (H, W) or (H, W, 3), three equal channels counting as grey."""
    if pixels.ndim == 3 and bool((pixels == pixels[:, :, :1]).all()):
        pixels = pixels[:, :, 0]
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes() + repr(pixels.shape).encode(), digest_size=16).digest()


def _look(item: Item) -> tuple[Item, Look | str]:
    label = canonical_label(item.label)
    if label is None:
        return item, f"unknown label '{item.label}'"
    try:
        pixels = item.pixels if item.pixels is not None else load_image(item.file or Path())
    except DatasetError as error:
        return item, error.message.removeprefix(f"{item.file}: ")
    except FileNotFoundError:
        return item, "named in the manifest, and not there"
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    height, width = pixels.shape[:2]
    file = item.file
    light = (float(grey.mean()), float(grey.std()))
    return item, Look(
        item.key or item.source_id, item.split, label, item.subject, item.votes, file, pixel_hash(pixels), width, height, light[0], light[1]
    )
