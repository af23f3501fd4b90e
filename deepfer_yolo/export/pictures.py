"""The pictures that two models are compared on: real ones from a data set, painted ones where no data set was named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.dataset import load_images, open_dataset
from deepfer_yolo.data.manifest import Row
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.painted import paint_faces
from deepfer_yolo.records import Image

PAINTED_SEED = 500
PAINTED_N = 512


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures with their names. `truth` is int64 indices into the labels, or None for painted ones, which prove no accuracy.

    `hashes` are the SHA-256 of every file of the split, so that none of them is calibrated on.
    """

    images: tuple[Image, ...]
    names: tuple[str, ...]
    truth: NDArray[np.int64] | None
    origin: str
    hashes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)


def load_pictures(folder: Path, split: str, labels: Sequence[str], limit: int, seed: int = 0) -> Pictures:
    """At most `limit` pictures of one split, each label in its share of the split. Raises DatasetError for a label the model does not know."""
    dataset = open_dataset(folder)
    rows = dataset.rows(split)
    unknown = sorted({row.label for row in rows} - set(labels))
    if unknown:
        raise DatasetError(f"{folder}: the model does not know the label {', '.join(unknown)}", f"its labels: {', '.join(labels)}")
    chosen = stratify(rows, limit, seed)
    index = {label: i for i, label in enumerate(labels)}
    truth = np.array([index[row.label] for row in chosen], np.int64)
    origin = f"{len(chosen):,} of {len(rows):,} pictures of {dataset.name}, split {split}"
    images, names = tuple(load_images(dataset, chosen)), tuple(row.path for row in chosen)
    return Pictures(images, names, truth, origin, tuple(row.sha256 for row in rows if row.sha256))


def choose_pictures(folder: Path | None, split: str, labels: Sequence[str], limit: int) -> Pictures:
    """Real pictures of `folder`, or painted ones for None."""
    return paint_pictures(min(PAINTED_N, limit)) if folder is None else load_pictures(folder, split, labels, limit)


def paint_pictures(n: int = PAINTED_N, seed: int = PAINTED_SEED) -> Pictures:
    """Painted faces, for when there is no data set: they prove equal arithmetic, not equal accuracy."""
    faces, labels = paint_faces(seed, n)
    images = tuple(np.repeat(face[:, :, None], 3, axis=2) for face in faces)
    return Pictures(images, tuple(f"painted {i} ({label})" for i, label in enumerate(labels)), None, f"{n} painted faces (no data set named)")


def stratify(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """`limit` rows in manifest order, each label in its share rounded up; all of them where there are not more."""
    if len(rows) <= limit:
        return list(rows)
    by_label: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_label.setdefault(row.label, []).append(i)
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in sorted(by_label):
        members = by_label[label]
        share = min(len(members), -(-len(members) * limit // len(rows)))
        chosen += random.permutation(members)[:share].tolist()
    return [rows[i] for i in sorted(chosen)]
