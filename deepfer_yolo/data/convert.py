"""Any known layout → the data set folder, streamed: no more than a few hundred images are in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.archives import unpacked
from deepfer_yolo.data.corrected import applied, corrected_rows, corrections_line, read_for, write_labels_before
from deepfer_yolo.data.corrections import Corrections
from deepfer_yolo.data.dataset import (
    Dataset,
    Description,
    Row,
    read_quarantine,
    refuse_strangers,
    register,
)
from deepfer_yolo.data.duplicates import thumbnail, thumbnails
from deepfer_yolo.data.images import encode_png, map_in_order
from deepfer_yolo.data.labelling import Labels, kept_labels, kept_note
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, item_pixels
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.data.near_candidates import Thumbs
from deepfer_yolo.data.splits import DEFAULT, assign_splits, coarse_note, groups_of, parse_shares
from deepfer_yolo.data.untrusted import Problems, printable, safe_name, unique_name
from deepfer_yolo.errors import ConfigError, DatasetError, MissingDependencyError, require
from deepfer_yolo.files import refuse_existing, staged_tree
from deepfer_yolo.runtime.card import AppliedCorrections

UNSPLIT = "unsplit"
"""The folder where images wait for their split; it never stays."""

Progress = Callable[[float], None]


def convert(
    source: Path, target: Path, config: ConvertConfig, *, overwrite: bool = False, progress: Progress | None = None
) -> Description:
    """Write the data set folder `target` from `source` and return the content of its `dataset.json`.

    `progress` is called with the part done, 0 to 1. Raises DatasetError that lists every bad row or image with its
    place; then, as after a kill, `target` is what it was before.
    """
    source = Path(source)
    shares = None if config.split in (None, "official", "as-is") else parse_shares(str(config.split))
    excluded = read_quarantine(config.exclude) if config.exclude else set()
    corrections = [read_for(Path(file), held_out=config.held_out) for file in config.corrections]
    refuse_existing(target, overwrite=overwrite)
    _refuse_overlap(source, target, config)
    with ExitStack() as stack:
        folder = stack.enter_context(staged_tree(target, overwrite=overwrite))  # claims the destination
        root = stack.enter_context(unpacked(source, target, config.layout))
        layout = find_layout(root, config.layout)
        reading = Reading(root, config, Problems(excluded=excluded))
        conversion = _Conversion(folder, layout, reading, Labels(reading, layout.name), shares)
        conversion.read_all(progress)
        for found in corrections:
            conversion.correct(found)
        if conversion.shares is not None:
            conversion.split(conversion.shares)
        elif config.val:
            conversion.carve(config.val)
        description = conversion.describe(printable(source.name))
        if description.corrections:
            pairs = zip(conversion.rows, conversion.origins, strict=True)
            before = {row.path: origin.label_before for row, origin in pairs if origin.label_before}
            description = description.model_copy(update={"labels_before": write_labels_before(before, folder)})
        description = register(conversion.rows, description, folder)
    if progress is not None:
        progress(1.0)
    return description


def _refuse_overlap(source: Path, target: Path, config: ConvertConfig) -> None:
    """Raise DatasetError where writing `target` would touch what is read: --overwrite would remove it."""
    hint = "name a destination elsewhere; sources are never written to"
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise DatasetError(f"the destination lies inside the source {source}", hint, path=target)
    for read in (source, config.ferplus, config.exclude, *map(Path, config.corrections)):
        if read is not None and read.resolve().is_relative_to(target.resolve()):
            raise DatasetError(f"lies inside the destination {target}", hint, path=read)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a review knows an image by, and the label that it had before earlier corrections, empty where it has it."""

    path: str = ""
    sha256: str = ""
    label_before: str = ""


@dataclass(slots=True)
class _Conversion:
    """One conversion under way. `shares` is None where the source's own split is kept, `thumbs` where near copies may
    part.
    """

    folder: Path
    layout: Layout
    reading: Reading
    labels: Labels
    shares: dict[str, float] | None
    has_carved: bool = False
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    origins: list[_Origin] = field(default_factory=list)
    """Of each row."""
    corrections: list[AppliedCorrections] = field(default_factory=list)
    thumbs: list[Thumbs] | None = None
    names: dict[str, set[str]] = field(default_factory=dict)
    n_clipped: int = 0

    def read_all(self, progress: Progress | None) -> None:
        """Write every image into the folder. Raises DatasetError that lists what was wrong."""
        config, problems = self.reading.options, self.reading.problems
        items = self.layout.read(self.reading)
        first = next(items, None)
        if first is not None:
            self._begin(first)
            # Pixels at hand are not given to threads: threads that share the interpreter only slow them down.
            workers = 0 if first.pixels is not None else config.workers
            for row, origin, thumb, is_clipped in map_in_order(
                self._write, self._assign(chain((first,), items)), workers
            ):
                if row is None:
                    continue
                self.rows.append(row)
                self.origins.append(origin)
                self.n_clipped += is_clipped
                if self.thumbs is not None and thumb is not None:
                    self.thumbs.append(thumb)
                if progress is not None and len(self.rows) % 100 == 0:
                    progress(self.reading.fraction)
        if self.reading.corrections and (config.map or config.drop):
            name = self.reading.source.name
            reason = f"{name} was converted with corrections: other labels would lose those of before"
            raise ConfigError(reason, "leave out --map and --drop, or give them to the conversion of the first source")
        self.notes += self.labels.finish()
        problems.raise_if_any("mend them, or leave images out with --exclude; nothing was written")
        if config.exclude:
            refuse_strangers(config.exclude, problems.excluded, problems.met)
        if not self.rows:
            left_out = "".join(f"; left out: {n:,} {why}" for why, n in self.reading.left_out.items())
            raise DatasetError(f"holds no images{left_out}", "check the path and the layout", path=self.reading.source)

    def _begin(self, first: Item) -> None:
        """Decide by the first image what is split anew, and which labels are kept."""
        config = self.reading.options
        if not first.split and self.shares is None:
            if config.split is not None:
                reason = f"--split {config.split}: {self.reading.source.name} has no split of its own"
                raise ConfigError(reason, f"such as --split {DEFAULT}")
            self.shares = parse_shares(DEFAULT)
        if config.near and config.group_by in ("auto", "duplicate") and (self.shares is not None or config.val):
            try:
                require("cv2", extra="eval")
            except MissingDependencyError:
                if self.shares is not None or self._will_carve():
                    raise
            if self.shares is not None:
                self.thumbs = []
        if config.labels == "original" and (kept := kept_labels(self.layout, self.reading, first)):
            self.reading.labels = kept
            self.notes.append(kept_note(kept))

    def _will_carve(self) -> bool:
        """Whether the source has a train and no val; reads it once for that alone, without decoding image files."""
        splits = set()
        reading = Reading(self.reading.source, self.reading.options, Problems(excluded=self.reading.problems.excluded))
        for item in self.layout.read(reading):
            if not reading.problems.excludes(item.key):
                splits.add(item.split)
            if "val" in splits:
                return False
        return "train" in splits

    def _assign(self, items: Iterator[Item]) -> Iterator[tuple[Item, str]]:
        """Each item with its label, split and path, in the order of reading, so that names never depend on threads."""
        for item in items:
            if self.reading.problems.excludes(item.key):
                continue
            labelled = self.labels.label(item)
            if labelled is None:
                continue
            if self.shares is not None:
                if item.split == "test" and not self.reading.options.reshuffle:
                    reason = f"--split {self.reading.options.split} would deal out the test split that the source has"
                    hint = "--val 0.1 takes a val from train and keeps test; --reshuffle deals out all images anew"
                    raise ConfigError(reason, hint)
                labelled = replace(labelled, split=UNSPLIT)
            elif not item.split:
                self.reading.problems.add(item.place, "has no split, while others have one")
                continue
            folder = f"{labelled.split}/{labelled.label}"
            if folder not in self.names:
                self.names[folder] = set()
                (self.folder / folder).mkdir(parents=True)
            yield labelled, f"{folder}/{unique_name(item.name, self.names[folder], '.png')}"

    def _write(self, work: tuple[Item, str]) -> tuple[Row | None, _Origin, Thumbs | None, bool]:
        item, path = work
        try:
            pixels, is_clipped = item_pixels(item, self.reading.options.margin)
        except DatasetError as error:
            self.reading.problems.add(item.place, error.reason)
            return None, _Origin(), None, False
        content = encode_png(pixels)
        (self.folder / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        row = Row(path, item.split, item.label, item.source_id, item.subject, digest, item.votes)
        origin = _Origin(item.listed_as or path, item.sha256 or digest, item.label_before)
        return row, origin, None if self.thumbs is None else thumbnail(pixels), is_clipped

    def correct(self, found: Corrections) -> None:
        """Give rows the labels that people gave them, move their images there, and remove those that they left out."""
        if self.shares is not None:
            reason = f"{found.path} corrects images by the split that was reviewed, and a new split is dealt out"
            raise ConfigError(reason, "convert the data set folder that was reviewed, without --split")
        safe = {label for label in self.reading.labels if safe_name(label) == label}
        labels = tuple(sorted(safe | {row.label for row in self.rows}))
        known = tuple(one for one in found.decisions if one.path not in self.reading.problems.met)
        found = replace(found, decisions=known)
        seen = (
            replace(row, path=one.path, sha256=one.sha256) for row, one in zip(self.rows, self.origins, strict=True)
        )
        reviewed = Dataset(self.folder, self.reading.source.name, labels, "", tuple(seen))
        rows, origins = [], []
        changes = corrected_rows(reviewed.all_rows, found.check_against(reviewed))
        for row, origin, (was, new) in zip(self.rows, self.origins, changes, strict=True):
            if new is None:
                (self.folder / row.path).unlink()
                continue
            before = origin.label_before or was.label
            rows.append(row if new is was else self._relabelled(row, new.label))
            origins.append(replace(origin, label_before="" if before == new.label else before))
        self.rows, self.origins = rows, origins
        for emptied in [name for name in self.names if not any((self.folder / name).iterdir())]:
            (self.folder / emptied).rmdir()
            del self.names[emptied]
        self.corrections.append(applied(found))
        self.notes.append(corrections_line(self.corrections[-1]))

    def _relabelled(self, row: Row, label: str) -> Row:
        folder = f"{row.split}/{label}"
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        name = PurePosixPath(row.path)
        path = f"{folder}/{unique_name(name.stem, self.names.setdefault(folder, set()), name.suffix)}"
        (self.folder / row.path).rename(self.folder / path)
        return replace(row, path=path, label=label)

    def split(self, shares: dict[str, float]) -> None:
        """Give each row its split and move its image there."""
        config = self.reading.options
        groups = groups_of(self.rows, config.group_by, (lambda: np.stack(self.thumbs or [])) if config.near else None)
        splits = assign_splits([row.label for row in self.rows], groups, shares, config.seed)
        self.notes += coarse_note(splits, shares)
        self._move(dict(enumerate(splits)))
        for folder in self.names:
            (self.folder / folder).rmdir()
        (self.folder / UNSPLIT).rmdir()

    def carve(self, share: float) -> None:
        """Where there is a train and no val, take `share` of train as val; all else stays where it is."""
        config = self.reading.options
        places = [index for index, row in enumerate(self.rows) if row.split == "train"]
        if not places or any(row.split == "val" for row in self.rows):
            return
        train = [self.rows[index] for index in places]
        opened = Dataset(self.folder, "", (), "", tuple(train))
        groups = groups_of(train, config.group_by, (lambda: thumbnails(opened, train)) if config.near else None)
        shares = {"train": 1 - share, "val": share}
        try:
            splits = assign_splits([row.label for row in train], groups, shares, config.seed)
        except ConfigError as error:
            self.notes.append(f"no val is taken from train: {error.message}")
            return
        self.has_carved = True
        self._move(dict(zip(places, splits, strict=True)))
        n = splits.count("val")
        kept = " and its test kept" if any(row.split == "test" for row in self.rows) else ""
        self.notes.append(f"the source has no val: {n:,} of its {len(train):,} training images are taken{kept}")

    def _move(self, splits: dict[int, str]) -> None:
        """Give rows, by their places, a split, and move their images there."""
        for index, split in splits.items():
            row = self.rows[index]
            path = f"{split}/{row.path.partition('/')[2]}"
            if path != row.path:
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / row.path).rename(self.folder / path)
                self.rows[index] = replace(row, path=path, split=split)

    def describe(self, source: str) -> Description:
        """The content of `dataset.json` but for what the rows say; `source` is for what states no name or origin
        of its own.
        """
        reading, layout, config = self.reading, self.layout, self.reading.options
        options = config.model_dump(mode="json", exclude={"workers"}) | {"layout": layout.name}
        options["val"] = config.val if self.has_carved else None
        if self.shares is not None:
            options["split"] = config.split or DEFAULT
        excluded = {"excluded": len(reading.problems.met)} if reading.problems.met else {}
        return Description(
            name=config.name or reading.title or layout.title or source,
            source=reading.origin or layout.source or source,
            licence=reading.licence or layout.licence,
            labels=tuple(sorted({row.label for row in self.rows})),
            left_out=dict(reading.left_out) | excluded,
            clipped_boxes=self.n_clipped,
            options=options,
            notes=tuple(self.notes),
            corrections=(*reading.corrections, *self.corrections),
            fingerprint="",
        )
