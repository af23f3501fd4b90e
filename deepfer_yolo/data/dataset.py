"""How the other rooms read a data set folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.manifest import AGAIN, DATASET, MANIFEST, SPLITS, Row, fingerprint, read_dataset_json, read_manifest
from deepfer_yolo.data.ordered import map_in_order
from deepfer_yolo.data.problems import printable
from deepfer_yolo.data.quarantine import read_quarantine, refuse_strangers
from deepfer_yolo.errors import REASON_FIRST, SENTENCE, DatasetError
from deepfer_yolo.records import Image

SMALL_BYTES = 16_384
TOGETHER = 8
"""Pictures that a thread decodes in one go: handing over each small one costs as much as decoding it."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set folder that has been opened. `labels` are alphabetical: the class index order of folders and models."""

    root: Path
    name: str
    labels: tuple[str, ...]
    fingerprint: str
    all_rows: tuple[Row, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold a picture, in the order train, val, test."""
        present = {row.split for row in self.all_rows}
        return tuple(split for split in SPLITS if split in present)

    def rows(self, split: str) -> list[Row]:
        """The pictures of one split in the manifest's order. Raises DatasetError where there are none."""
        found = [row for row in self.all_rows if row.split == split]
        if not found:
            raise DatasetError(
                f"has no '{split}' split; it has {', '.join(self.splits) or 'no pictures'}",
                f"convert the source again with a '{split}' part, or name another split",
                path=self.root,
                form=SENTENCE,
            )
        return found

    def counts(self, split: str) -> dict[str, int]:
        """Pictures by label in one split, 0 for a label that it lacks."""
        found = Counter(row.label for row in self.all_rows if row.split == split)
        return {label: found[label] for label in self.labels}

    def without(self, quarantine: str | Path | None, splits: Sequence[str] = SPLITS) -> Dataset:
        """The same data set without the images of `splits` that a quarantine list names, its fingerprint taken again where any was left out.

        Raises DatasetError where the list cannot be used, or names images that are not here.
        """
        if quarantine is None:
            return self
        listed = read_quarantine(Path(quarantine))
        refuse_strangers(Path(quarantine), listed, {row.path for row in self.all_rows})
        rows = tuple(row for row in self.all_rows if row.split not in splits or row.path not in listed)
        return self if len(rows) == len(self.all_rows) else replace(self, all_rows=rows, fingerprint=fingerprint(rows))

    def path(self, row: Row) -> Path:
        """Where a row's picture is."""
        return self.root / row.path


def open_dataset(folder: Path) -> Dataset:
    """The data set folder at `folder`, its manifest read and checked. Raises DatasetError with the convert command where it is something else."""
    folder = Path(folder)
    if not folder.exists():
        raise DatasetError("no such data set", "deepfer convert SOURCE DEST makes one", path=folder, form=REASON_FIRST)
    if not folder.is_dir() or not (folder / MANIFEST).is_file():
        kind = "folder of pictures without a manifest" if folder.is_dir() else "file"
        target = folder.name.split(".")[0] or "dataset"
        raise DatasetError(f"is a {kind}, not a data set folder", f"deepfer convert {folder} datasets/{target}", path=folder, form=SENTENCE)
    content = read_dataset_json(folder)
    rows = read_manifest(folder)
    for key in ("name", "labels", "fingerprint"):
        if key not in content:
            raise DatasetError(f"has no '{key}'", AGAIN, path=folder / DATASET, form=SENTENCE)
    if not isinstance(content["labels"], list) or not all(isinstance(label, str) for label in content["labels"]):
        raise DatasetError("'labels' must be a list of names", AGAIN, path=folder / DATASET)
    outside = next((row.path for row in rows if not row.path or row.path[0] == "/" or ".." in row.path.split("/")), None)
    if outside is not None:
        raise DatasetError(f"the path '{printable(outside)}' leaves the data set folder", AGAIN, path=folder / MANIFEST)
    labels = tuple(sorted(content["labels"]))
    unknown = {row.label for row in rows} - set(labels)
    if unknown:
        raise DatasetError(f"label '{min(unknown)}' is not among those of dataset.json", AGAIN, path=folder / MANIFEST)
    return Dataset(folder, str(content["name"]), labels, str(content["fingerprint"]), tuple(rows))


def load_images(dataset: Dataset, rows: Sequence[Row], workers: int | None = None) -> Iterator[Image]:
    """The pictures of `rows`, uint8 RGB (H, W, 3), in their order, decoded by `workers` threads. Raises DatasetError with the path.

    Without a number it is one thread where the first file is small, since more would only wait for each other, and two otherwise.
    """

    def load(part: Sequence[Row]) -> list[Image | DatasetError]:
        loaded: list[Image | DatasetError] = []
        for row in part:
            try:
                loaded.append(load_image(dataset.path(row)))
            except FileNotFoundError:
                loaded.append(DatasetError(f"named in {MANIFEST}, and not there", AGAIN, path=dataset.path(row)))
            except DatasetError as error:
                loaded.append(error)
        return loaded

    if workers is None:
        first = dataset.path(rows[0]) if rows else None
        workers = 1 if first is not None and first.is_file() and first.stat().st_size <= SMALL_BYTES else 2
    parts = [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
    for loaded in map_in_order(load, parts, workers, waiting_per_worker=2):
        for image in loaded:
            if isinstance(image, DatasetError):
                raise image
            yield image
