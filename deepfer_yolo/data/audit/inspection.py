"""One look at every image of a source: can it be read, what are its pixels' hash, size and light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
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
from deepfer_yolo.data.near_candidates import Thumbs
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import DatasetError


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


class PixelCheck(Protocol):
    """A check that takes part in the inspection, while the pixels of each image are at hand."""

    def prepare(self, pixels: NDArray[np.uint8]) -> Any:
        """What it needs of the pixels, small, since many wait in memory at a time; called in any thread."""
        ...

    def take(self, image: InspectedImage, prepared: Any) -> None:
        """Take one image; called in the order of reading."""
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
    left_out: Counter[str] = field(default_factory=Counter)

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
) -> Inspection:
    """Inspect every image of a data set folder or of any known `layout`. `name` is for a source that states none.

    Bad rows and images are noted, not raised. Raises DatasetError where the source as a whole cannot be read.
    """
    source = Path(source)
    found, reading = find_layout(source, layout), Reading(source)
    result = Inspection(name or source.name)

    def look_at(item: Item) -> tuple[Item, InspectedImage | str, Thumbs | None, list[Any]]:
        image, pixels = _inspect(item, reading)
        thumb = None if pixels is None else thumbnail(pixels)
        return item, image, thumb, [check.prepare(pixels) for check in checks] if pixels is not None else []

    items = found.read(reading)
    if (first := next(items, None)) is not None:
        reading.labels |= kept_labels(found, reading, first)
        items = chain((first,), items)
    for done, (item, image, thumb, prepared) in enumerate(map_in_order(look_at, items, workers)):
        if isinstance(image, str):
            result.broken.append((item.key, image))
        else:
            result.images.append(image)
            if thumb is not None and image.pixel_hash not in result.pixels_met:
                result.pixels_met[image.pixel_hash] = None
                result.thumbs += thumb.tobytes()
            for check, part in zip(checks, prepared, strict=True):
                check.take(image, part)
        if progress is not None and done % 200 == 0:
            progress(reading.fraction)
    unread = reading.problems.unread
    if unread:
        names = printable(", ".join(path.relative_to(source).as_posix() for path in unread[:5]))
        reason = f"{len(unread):,} of its folders or files cannot be read: {names}"
        raise DatasetError(reason, "check who may read them, or leave them out", path=source)
    result.broken += reading.problems.found
    result.left_out = reading.left_out
    hint = "check the path and the layout"
    if reading.problems.count > len(reading.problems.found):
        raise DatasetError(f"has {reading.problems.count:,} problems: this is no data set", hint, path=source)
    if not result.images and not result.broken:
        raise DatasetError("holds no images", hint, path=source)
    result.name = reading.title or found.title or result.name
    return result


def _inspect(item: Item, reading: Reading) -> tuple[InspectedImage | str, NDArray[np.uint8] | None]:
    """One image and its pixels; or what is wrong with it, and None."""
    import cv2

    label = canonical_label(item.label) or (item.label if item.label in reading.labels else None)
    if label is None:
        return f"unknown label '{printable(item.label)}'", None
    try:
        pixels, _ = item_pixels(item)
    except DatasetError as error:
        return error.reason, None
    grey = pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    shares = np.bincount(grey.ravel(), minlength=256) / grey.size
    entropy = -float((shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    edges = cv2.Laplacian(grey, cv2.CV_16S)
    light = (float(grey.mean()), float(grey.std()), float(np.abs(edges).mean()), entropy)
    hashed = (pixel_hash(pixels), width, height)
    return InspectedImage(item, item.key, item.split, label, *hashed, *light), pixels
