"""One look at every picture of a source: can it be read, what are its pixels' hash, size and light."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import SPLITS
from deepfer_yolo.data.duplicates import Thumbs, thumbnail
from deepfer_yolo.data.images import map_in_order
from deepfer_yolo.data.layouts.item import Item, Reading, item_pixels
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import SENTENCE, DatasetError


class Visitor(Protocol):
    """What else is to be done with each picture while its pixels are at hand."""

    def prepare(self, pixels: NDArray[np.uint8]) -> Any:
        """What it needs of the pixels; called in any thread.

        Many of these wait in memory at a time: they must be small.
        """
        ...

    def take(self, look: Look, prepared: Any) -> None:
        """Take one picture; called in the order of reading."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one picture is: `pixel_hash` is equal for equal upright pixels, grey or with three equal channels.

    Light is 0 to 255, entropy in bits.
    """

    item: Item
    label: str
    pixel_hash: bytes
    thumb: Thumbs
    width: int
    height: int
    brightness: float
    contrast: float
    sharpness: float
    entropy: float

    @property
    def key(self) -> str:
        """What quarantine lists call the picture."""
        return self.item.key or self.item.source_id

    @property
    def split(self) -> str:
        """The split, or empty where the source has none."""
        return self.item.split


@dataclass(slots=True)
class Inspection:
    """All pictures of a source that could be read, (key, what) of those that could not, and how many its reader left
    out, by reason.
    """

    name: str
    looks: list[Look] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures by split and label; every label that occurs anywhere is named in every split."""
        found = Counter((look.split, look.label) for look in self.looks)
        labels = sorted({label for _, label in found})
        splits = [split for split in (*SPLITS, "") if any(split == known for known, _ in found)]
        return {split: {label: found[split, label] for label in labels} for split in splits}


def inspect(
    source: Path,
    *,
    name: str = "",
    workers: int = 2,
    progress: Callable[[float], None] | None = None,
    visitors: Sequence[Visitor] = (),
) -> Inspection:
    """Look at every picture of a data set folder or of any known layout; nothing is written. `name` is for a source
    that states none.

    Bad rows and pictures are noted, not raised. Raises DatasetError where the source as a whole cannot be read.
    """
    source = Path(source)
    chosen = find_layout(source, "auto")
    reading = Reading(source)
    result = Inspection(name or source.name)

    def look_at(item: Item) -> tuple[Item, Look | str, list[Any]]:
        look, pixels = _look(item, reading)
        return item, look, [visitor.prepare(pixels) for visitor in visitors] if pixels is not None else []

    for done, (item, look, prepared) in enumerate(map_in_order(look_at, chosen.read(reading), workers)):
        if isinstance(look, str):
            result.broken.append((item.key or item.source_id, look))
        else:
            result.looks.append(look)
            for visitor, part in zip(visitors, prepared, strict=True):
                visitor.take(look, part)
        if progress is not None and done % 200 == 0:
            progress(reading.fraction)
    result.broken += reading.problems.found
    result.left_out = reading.left_out
    hint = "check the path and the layout"
    if reading.problems.count > len(reading.problems.found):
        raise DatasetError(
            f"has {reading.problems.count:,} problems: this is no data set", hint, path=source, form=SENTENCE
        )
    if not result.looks and not result.broken:
        raise DatasetError("holds no pictures", hint, path=source, form=SENTENCE)
    result.name = reading.title or chosen.title or result.name
    return result


def grey_plane(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The one channel (H, W) of a grey picture, uint8 (H, W) or three equal channels (H, W, 3); None for a coloured
    one.
    """
    if pixels.ndim == 2:
        return pixels
    content = pixels.tobytes()  # slices of bytes compare four times as fast as strided arrays of this size
    plane = content[::3]
    return np.frombuffer(plane, np.uint8).reshape(pixels.shape[:2]) if plane == content[1::3] == content[2::3] else None


def pixel_hash(pixels: NDArray[np.uint8]) -> bytes:
    """16 bytes that are equal for equal pictures: uint8 (H, W) or (H, W, 3), three equal channels counting as grey."""
    plane = grey_plane(pixels)
    pixels = pixels if plane is None else plane
    return hashlib.blake2b(
        np.ascontiguousarray(pixels).tobytes() + repr(pixels.shape).encode(), digest_size=16
    ).digest()


def _look(item: Item, reading: Reading) -> tuple[Look | str, NDArray[np.uint8] | None]:
    import cv2

    label = canonical_label(item.label) or (item.label if item.label in reading.labels else None)
    if label is None:
        return f"unknown label '{item.label}'", None
    try:
        pixels = item_pixels(item)
    except DatasetError as error:
        return error.reason, None
    grey = pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    shares = np.bincount(grey.ravel(), minlength=256) / grey.size
    entropy = -float((shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    edges = cv2.Laplacian(grey, cv2.CV_16S)
    light = (float(grey.mean()), float(grey.std()), float(np.abs(edges).mean()), entropy)
    return Look(item, label, pixel_hash(pixels), thumbnail(grey), width, height, *light), pixels
