"""Held-out images that a model has learned: 64-bit hashes of its training images against those of val and test.

A leak is a held-out image that the model has learned and of which the data set's own train split holds no copy: what
the model knows of it comes from elsewhere, as where FER2013 was split anew. A copy inside the data set is the data
set's own flaw, there for every model that is trained on it (280 PublicTest images of FER2013 are in Training too):
`deepfer audit` reports it and `deepfer evaluate --clean` leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.data.duplicates import pixel_hash
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import LeakError
from deepfer_yolo.records import Json, plain
from deepfer_yolo.runtime.classifier import Classifier

Hashes = NDArray[np.uint64]
BLANK = 0
"""The hash of every image of a single colour: such images are alike everywhere and say nothing."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of `n` images of a split a model has learned `learned`; the own train split explains all of them but `leaked`."""

    n: int
    learned: int
    leaked: int
    example: str = ""


@dataclass(frozen=True, slots=True)
class Learned:
    """What each model has learned of each held-out split, None where it does not say; and lines to show."""

    overlaps: Mapping[str, Mapping[str, Overlap] | None]
    lines: tuple[str, ...]

    def to_json(self) -> Json:
        """The overlaps by model and split."""
        return {name: plain(by_split) for name, by_split in self.overlaps.items()}


def image_hash(pixels: NDArray[np.uint8]) -> int:
    """64 bits of `pixel_hash`: equal for equal upright pixels, grey or with three equal channels, whatever the file."""
    # One row tells nearly every image from a blank one.
    if bool((pixels[0] == pixels[0, 0]).all()) and bool((pixels == pixels[:1, :1]).all()):
        return BLANK
    return short_hash(pixel_hash(pixels))


def short_hash(whole: bytes) -> int:
    """64 bits of a `pixel_hash`, as cards hold them."""
    return int.from_bytes(whole[:8], "little")


class LeakGuard:
    """Compares models with the held-out images of `dataset`; each split is decoded once at most, and only when needed.

    `whole` is the same data set before images were left out of it: the copies that count are those on the disk.
    `hashes` holds what is known of some splits already.
    """

    def __init__(
        self, dataset: Dataset, whole: Dataset | None = None, hashes: Mapping[str, Hashes] | None = None
    ) -> None:
        self.dataset, self.whole = dataset, whole or dataset
        self._hashes = dict(hashes or {})
        self._own: Hashes | None = None

    def check(self, models: Mapping[str, Hashes | None], splits: Sequence[str], *, allow: bool) -> Learned:
        """What each model, by its name, has learned of each held-out split; a train split is passed over.

        Raises LeakError for the first model with a leak, unless `allow`.
        """
        overlaps: dict[str, Mapping[str, Overlap] | None] = {}
        lines = []
        for name, known in models.items():
            overlaps[name] = None
            if known is None:
                continue
            found = overlaps[name] = {split: self.overlap(split, known) for split in splits if split != "train"}
            leaks = [f"{self._say(name, o.leaked, s, o)}, such as {o.example}" for s, o in found.items() if o.leaked]
            if leaks and not allow:
                reason = f"{'; '.join(leaks)}: figures from there would say nothing"
                hint = "use another split or another model; --allow-leak goes on, and the record of the run says so"
                raise LeakError(reason, hint)
            lines += [f"--allow-leak: {leak}" for leak in leaks]
            note = "of which its own train split has copies; deepfer evaluate --clean leaves such images out"
            copied = ((split, overlap.learned - overlap.leaked, overlap) for split, overlap in found.items())
            lines += [f"{self._say(name, n, split, overlap)}, {note}" for split, n, overlap in copied if n]
        return Learned(overlaps, tuple(lines))

    def overlap(self, split: str, known: Hashes) -> Overlap:
        """How many images of `split` are among `known`, and how many of those have no copy in the own train split."""
        rows, hashes = self.dataset.rows(split), self.hashes(split)
        learned = np.flatnonzero(np.isin(hashes, known) & (hashes != BLANK))
        # The same file is a copy, and needs no decoding; images that were written by other encoders do.
        files = {row.sha256 for row in self.whole.all_rows if row.split == "train" and row.sha256}
        rest = np.array([index for index in learned if rows[index].sha256 not in files], np.int64)
        if len(rest):
            rest = rest[~np.isin(hashes[rest], self._own_train())]
        return Overlap(len(rows), len(learned), len(rest), printable(rows[rest[0]].path) if len(rest) else "")

    def hashes(self, split: str) -> Hashes:
        """The hash of each image of a split, uint64 (n,), in the manifest's order."""
        if split not in self._hashes:
            self._hashes[split] = _decoded(self.dataset, split)
        return self._hashes[split]

    def _own_train(self) -> Hashes:
        if self._own is None:
            self._own = _decoded(self.whole, "train") if "train" in self.whole.splits else np.zeros(0, np.uint64)
        return self._own

    def _say(self, name: str, n: int, split: str, found: Overlap) -> str:
        return f"{name} has learned {n:,} of the {found.n:,} {split} images of {self.dataset.root}"


def _decoded(dataset: Dataset, split: str) -> Hashes:
    return np.fromiter((image_hash(image) for image in load_images(dataset, dataset.rows(split))), np.uint64)


def check_models(
    models: Mapping[str, Classifier], dataset: Dataset, split: str, *, allow: bool, whole: Dataset | None = None
) -> Learned:
    """What each model has learned of `split`; see `LeakGuard.check`. Raises LeakError."""
    known = {name: model.card.learned for name, model in models.items()}
    return LeakGuard(dataset, whole).check(known, [split], allow=allow)
