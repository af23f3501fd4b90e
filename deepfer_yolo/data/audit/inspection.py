"""One look at every image of a source: can it be read, what are its pixels' hash, size and light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import Counts, counts_of
from deepfer_yolo.data.duplicates import pixel_hash, thumbnail
from deepfer_yolo.data.images import map_in_order
from deepfer_yolo.data.labelling import kept_labels
from deepfer_yolo.data.layouts.item import Item, Reading, item_pixels
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.data.near_candidates import SIDE
from deepfer_yolo.data.shards import Names, wrong_row
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.records import JsonValue


@dataclass(frozen=True, slots=True, eq=False)
class InspectedImage:
    """What one image is: `pixel_hash` is equal for equal upright pixels, grey or with three equal channels.

    `key` is what quarantine lists call it; `split` is empty where the source has none. Brightness, contrast and
    sharpness are on the scale of grey values, 0 to 255; entropy is in bits.
    """

    item: Item
    key: str
    split: str
    label: str
    pixel_hash: bytes
    width: int
    height: int
    brightness: float
    contrast: float
    sharpness: float
    entropy: float


Seen = tuple[InspectedImage, bytes]
"""An image and the bytes of its thumbnail, which may be left out where another one has the same pixels."""
Look = Callable[[int, Item, str], Seen | str]
"""Of the image at a place of the source, which bears a label, what was seen, or what is wrong with it."""


class PixelCheck(Protocol):
    """A check that takes part in the inspection, while the pixels of each image are at hand."""

    def prepare(self, pixels: NDArray[np.uint8]) -> Any:
        """What it needs of the pixels, small, since many wait in memory at a time; called in any thread."""
        ...

    def take(self, image: InspectedImage, prepared: Any) -> None:
        """Take one image; called in the order of reading."""
        ...

    def notes(self) -> Iterable[JsonValue]:
        """What was found of each image, in the order taken; asked once, after the last one."""
        ...

    def recall(self, image: InspectedImage, note: Any) -> None:
        """Take one image of which `note` was found before. Raises ValueError where that is no such note."""
        ...


@dataclass(slots=True)
class Inspection:
    """All images of a source that could be read, (key, what) of those that could not, and what its reader left out."""

    name: str
    images: list[InspectedImage] = field(default_factory=list)
    pixels_met: dict[bytes, None] = field(default_factory=dict)
    thumbs: bytearray = field(default_factory=bytearray)
    """One thumbnail for each of `pixels_met`, the pixel hashes in the order of their first image."""
    broken: list[tuple[str, str]] = field(default_factory=list)
    looked_at: list[tuple[int, InspectedImage | tuple[str, str]]] = field(default_factory=list)
    """Every image by its place in the source: those of `images`, and those of `broken` that were items of it."""
    names: Names = field(default_factory=Names)
    """The keys of all items of the source, also of those that were not looked at."""
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, place: int, item: Item, seen: Seen | str) -> None:
        """Take the image at a place of the source, or what is wrong with it."""
        if isinstance(seen, str):
            self.broken.append((item.key, seen))
            self.looked_at.append((place, (item.key, seen)))
            return
        image, thumb = seen
        self.images.append(image)
        self.looked_at.append((place, image))
        if image.pixel_hash not in self.pixels_met:
            if len(thumb) != SIDE * SIDE:
                raise wrong_row(item.key)
            self.pixels_met[image.pixel_hash] = None
            self.thumbs += thumb

    def counts(self) -> Counts:
        """Images by split and label; every label that occurs anywhere is named in every split."""
        return counts_of((image.split, image.label) for image in self.images)


def inspect(
    source: Path,
    layout: str = "auto",
    name: str = "",
    *,
    workers: int = 2,
    progress: Callable[[float], None] | None = None,
    checks: Sequence[PixelCheck] = (),
    only: Callable[[str], bool] | None = None,
    look: Look | None = None,
) -> Inspection:
    """Inspect every image of a data set folder or of any known `layout`. `name` is for a source that states none.

    With `only` those whose keys it takes; with `look` what was seen of an image comes from there, in their order.

    Bad rows and images are noted, not raised. Raises DatasetError where the source as a whole cannot be read.
    """
    source = Path(source)
    found, reading = find_layout(source, layout), Reading(source)
    result = Inspection(name or source.name)

    def look_at(placed: tuple[int, Item]) -> tuple[int, Item, Seen | str, list[Any]]:
        place, item = placed
        label = canonical_label(item.label) or (item.label if item.label in reading.labels else None)
        if label is None:
            return place, item, f"unknown label '{printable(item.label)}'", []
        if look is not None:
            return place, item, look(place, item, label), []
        return place, item, *looked_at(item, label, checks)

    items = found.read(reading)
    if (first := next(items, None)) is not None:
        reading.labels |= kept_labels(found, reading, first)
        items = chain((first,), items)
    mine = _numbered(items, result.names, only)
    for done, (place, item, seen, prepared) in enumerate(map_in_order(look_at, mine, workers if look is None else 0)):
        result.add(place, item, seen)
        for check, part in zip(checks, prepared, strict=False):  # nothing is prepared of what was seen before
            check.take(result.images[-1], part)
        if progress is not None and done % 200 == 0:
            progress(reading.fraction)
    result.broken += reading.problems.found
    result.left_out = reading.left_out
    _check_source(source, reading, is_empty=not result.names.n and not result.broken)
    result.name = reading.title or found.title or result.name
    return result


def looked_at(item: Item, label: str, checks: Sequence[PixelCheck]) -> tuple[Seen | str, list[Any]]:
    """What is seen of one image, or what is wrong with it; and what the checks prepare of its pixels."""
    try:
        pixels, _ = item_pixels(item)
    except DatasetError as error:
        return error.reason, []
    return _inspected(item, label, pixels), [check.prepare(pixels) for check in checks]


def _check_source(source: Path, reading: Reading, *, is_empty: bool) -> None:
    """Raise DatasetError where the source as a whole cannot be used."""
    if reading.problems.unread:
        unread = reading.problems.unread
        names = printable(", ".join(path.relative_to(source).as_posix() for path in unread[:5]))
        reason = f"{len(unread):,} of its folders or files cannot be read: {names}"
        raise DatasetError(reason, "check who may read them, or leave them out", path=source)
    hint = "check the path and the layout"
    if reading.problems.count > len(reading.problems.found):
        raise DatasetError(f"has {reading.problems.count:,} problems: this is no data set", hint, path=source)
    if is_empty:
        raise DatasetError("holds no images", hint, path=source)


def _numbered(items: Iterable[Item], names: Names, only: Callable[[str], bool] | None) -> Iterator[tuple[int, Item]]:
    for place, item in enumerate(items):
        names.add(item.key)
        if only is None or only(item.key):
            yield place, item


def _inspected(item: Item, label: str, pixels: NDArray[np.uint8]) -> Seen:
    import cv2

    grey = pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    shares = np.bincount(grey.ravel(), minlength=256) / grey.size
    entropy = -float((shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    edges = cv2.Laplacian(grey, cv2.CV_16S)
    light = (float(grey.mean()), float(grey.std()), float(np.abs(edges).mean()), entropy)
    hashed = (pixel_hash(pixels), width, height)
    return InspectedImage(item, item.key, item.split, label, *hashed, *light), thumbnail(pixels).tobytes()
