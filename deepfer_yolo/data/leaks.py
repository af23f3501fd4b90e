"""Held-out pictures that a model has learned: 64-bit hashes of its training pictures against those of a data set's val
and test.

A leak is a held-out picture that the model has learned and of which the data set's own train split holds no copy: what
the model knows of it comes from elsewhere, as where FER2013 was split anew. A copy inside the data set is the data
set's own flaw, there for every model that is trained on it (280 PublicTest pictures of FER2013 are in Training too):
`deepfer audit` reports it and `deepfer evaluate --clean` leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.audit.inspection import pixel_hash
from deepfer_yolo.data.dataset import Dataset, load_images
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import LeakError
from deepfer_yolo.runtime.classifier import Classifier

Hashes = NDArray[np.uint64]
BLANK = 0
"""The hash of every picture of a single colour: such pictures are alike everywhere and say nothing."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of `n` pictures of a split a model has learned `learned`; the data set's own train split explains all of them but
    `leaked`.
    """

    n: int
    learned: int
    leaked: int
    example: str = ""


def picture_hash(pixels: NDArray[np.uint8]) -> int:
    """64 bits of the audit's exact-duplicate hash: equal for equal upright pixels, grey or with three equal channels,
    whatever the file.
    """
    if bool((pixels[0] == pixels[0, 0]).all()) and bool(
        (pixels == pixels[:1, :1]).all()
    ):  # one row tells nearly every picture
        return BLANK
    return int.from_bytes(pixel_hash(pixels)[:8], "little")


class LeakGuard:
    """Compares models with the held-out pictures of `dataset`; each split is decoded at most once, and only when a
    model knows anything.

    `whole` is the same data set before pictures were left out of it: the copies that count are those on the disk.
    `hashes` holds what is known of some splits already.
    """

    def __init__(
        self, dataset: Dataset, whole: Dataset | None = None, hashes: Mapping[str, Hashes] | None = None
    ) -> None:
        self.dataset, self.whole = dataset, whole or dataset
        self._hashes = dict(hashes or {})
        self._own: Hashes | None = None

    def check(
        self, models: Mapping[str, Hashes | None], splits: Sequence[str], *, allow: bool
    ) -> tuple[dict[str, Any], list[str]]:
        """For each model by its name: what it has learned of each held-out split, JSON-ready, None where it does not
        say; and lines to show.

        Raises LeakError for the first model with a leak, unless `allow`. A train split is no held-out split and is
        passed over.
        """
        record: dict[str, Any] = {}
        lines = []
        for name, known in models.items():
            found = {} if known is None else {split: self.overlap(split, known) for split in splits if split != "train"}
            record[name] = None if known is None else {split: asdict(overlap) for split, overlap in found.items()}
            leaks = [self._say(name, split, overlap) for split, overlap in found.items() if overlap.leaked]
            if leaks and not allow:
                hint = "use another split or another model; with --allow-leak it goes on, and the record of the run says so"
                raise LeakError(f"{'; '.join(leaks)}: figures from there would say nothing", hint)
            lines += [f"--allow-leak: {leak}" for leak in leaks]
            lines += [
                self._note(name, split, overlap) for split, overlap in found.items() if overlap.learned > overlap.leaked
            ]
        return record, lines

    def overlap(self, split: str, known: Hashes) -> Overlap:
        """How many pictures of `split` are among `known`, and how many of those have no copy in the data set's own
        train split.
        """
        rows, hashes = self.dataset.rows(split), self.hashes(split)
        learned = np.flatnonzero(np.isin(hashes, known) & (hashes != BLANK))
        # The same file is a copy, and needs no decoding; pictures that were written by other encoders do.
        files = {row.sha256 for row in self.whole.all_rows if row.split == "train" and row.sha256}
        rest = np.array([index for index in learned if rows[index].sha256 not in files], np.int64)
        if len(rest):
            rest = rest[~np.isin(hashes[rest], self._own_train())]
        return Overlap(len(rows), len(learned), len(rest), printable(rows[rest[0]].path) if len(rest) else "")

    def hashes(self, split: str) -> Hashes:
        """The hash of each picture of a split, uint64 (n,), in the manifest's order."""
        if split not in self._hashes:
            self._hashes[split] = _decoded(self.dataset, split)
        return self._hashes[split]

    def _own_train(self) -> Hashes:
        if self._own is None:
            self._own = _decoded(self.whole, "train") if "train" in self.whole.splits else np.zeros(0, np.uint64)
        return self._own

    def _say(self, name: str, split: str, found: Overlap) -> str:
        return f"{name} has learned {found.leaked:,} of the {found.n:,} {split} pictures of {self.dataset.root}, such as {found.example}"

    def _note(self, name: str, split: str, found: Overlap) -> str:
        return (
            f"{name} has learned {found.learned - found.leaked:,} of the {found.n:,} {split} pictures of {self.dataset.root}, of which its own train "
            f"split has copies; deepfer evaluate --clean leaves such pictures out"
        )


def _decoded(dataset: Dataset, split: str) -> Hashes:
    return np.fromiter((picture_hash(image) for image in load_images(dataset, dataset.rows(split))), np.uint64)


def check_models(
    models: Mapping[str, Classifier], dataset: Dataset, split: str, *, allow: bool, whole: Dataset | None = None
) -> tuple[dict[str, Any], list[str]]:
    """What each model has learned of `split`, for the run's record, and lines to show; see `LeakGuard.check`.

    Raises LeakError.
    """
    return LeakGuard(dataset, whole).check(
        {name: model.card.learned for name, model in models.items()}, [split], allow=allow
    )
