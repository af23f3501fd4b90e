"""Any known layout → the data set folder, streamed: no more than a few hundred images are in memory at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.archives import unpacked
from deepfer_yolo.data.dataset import (
    Description,
    Row,
    read_quarantine,
    refuse_strangers,
    register,
)
from deepfer_yolo.data.duplicates import Thumbs, thumbnail
from deepfer_yolo.data.ferplus import read_ferplus, voted
from deepfer_yolo.data.images import encode_png, map_in_order
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, item_pixels
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.data.splits import DEFAULT, assign_splits, groups_of, parse_shares
from deepfer_yolo.data.untrusted import Problems, printable, safe_name, unique_name
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.files import refuse_existing, staged_tree

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
    refuse_existing(target, overwrite=overwrite)
    _refuse_overlap(source, target, config)
    with ExitStack() as stack:
        folder = stack.enter_context(staged_tree(target, overwrite=overwrite))  # claims the destination
        root = stack.enter_context(unpacked(source, target, config.layout))
        layout = find_layout(root, config.layout)
        reading = Reading(root, config, Problems(excluded=excluded))
        conversion = _Conversion(folder, layout, reading, _Labels(reading, layout.name))
        conversion.read_all(progress, is_split_anew=shares is not None)
        if conversion.is_split_anew:
            conversion.split(shares or parse_shares(DEFAULT))
        description = register(conversion.rows, conversion.describe(printable(source.name)), folder)
    if progress is not None:
        progress(1.0)
    return description


def _refuse_overlap(source: Path, target: Path, config: ConvertConfig) -> None:
    """Raise DatasetError where writing `target` would touch what is read: --overwrite would remove it."""
    hint = "name a destination elsewhere; sources are never written to"
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise DatasetError(f"the destination lies inside the source {source}", hint, path=target)
    for read in (source, config.ferplus, config.exclude):
        if read is not None and read.resolve().is_relative_to(target.resolve()):
            raise DatasetError(f"lies inside the destination {target}", hint, path=read)


@dataclass(slots=True)
class _Conversion:
    """One conversion under way. `thumbs` is None where no near copies are to be kept together."""

    folder: Path
    layout: Layout
    reading: Reading
    labels: _Labels
    is_split_anew: bool = False
    rows: list[Row] = field(default_factory=list)
    thumbs: list[Thumbs] | None = None
    names: dict[str, set[str]] = field(default_factory=dict)

    def read_all(self, progress: Progress | None, *, is_split_anew: bool) -> None:
        """Write every image into the folder. Raises DatasetError that lists what was wrong."""
        config, problems = self.reading.options, self.reading.problems
        items = self.layout.read(self.reading)
        first = next(items, None)
        self.is_split_anew = is_split_anew or (first is not None and not first.split)
        if self.is_split_anew and not is_split_anew and config.split is not None:
            reason = f"--split {config.split}: {self.reading.source.name} has no split of its own"
            raise ConfigError(reason, f"such as --split {DEFAULT}")
        if self.is_split_anew and config.group_by in ("auto", "duplicate"):
            self.thumbs = []
        if first is not None:
            # Pixels at hand are not given to threads: threads that share the interpreter only slow them down.
            workers = 0 if first.pixels is not None else config.workers
            for row, thumb in map_in_order(self._write, self._assign(chain((first,), items)), workers):
                if row is None:
                    continue
                self.rows.append(row)
                if self.thumbs is not None and thumb is not None:
                    self.thumbs.append(thumb)
                if progress is not None and len(self.rows) % 100 == 0:
                    progress(self.reading.fraction)
        self.labels.finish()
        problems.raise_if_any("mend them, or leave images out with --exclude; nothing was written")
        if config.exclude:
            refuse_strangers(config.exclude, problems.excluded, problems.met)
        if not self.rows:
            raise DatasetError("holds no images", "check the path and the layout", path=self.reading.source)

    def _assign(self, items: Iterator[Item]) -> Iterator[tuple[Item, str]]:
        """Each item with its label, split and path, in the order of reading, so that names never depend on threads."""
        for item in items:
            if self.reading.problems.excludes(item.key):
                continue
            labelled = self.labels.label(item)
            if labelled is None:
                continue
            if self.is_split_anew:
                labelled = replace(labelled, split=UNSPLIT)
            elif not item.split:
                self.reading.problems.add(item.place, "has no split, while others have one")
                continue
            folder = f"{labelled.split}/{labelled.label}"
            if folder not in self.names:
                self.names[folder] = set()
                (self.folder / folder).mkdir(parents=True)
            yield labelled, f"{folder}/{unique_name(item.name, self.names[folder], '.png')}"

    def _write(self, work: tuple[Item, str]) -> tuple[Row | None, Thumbs | None]:
        item, path = work
        try:
            pixels = item_pixels(item, self.reading.options.margin)
        except DatasetError as error:
            self.reading.problems.add(item.place, error.reason)
            return None, None
        content = encode_png(pixels)
        (self.folder / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        row = Row(path, item.split, item.label, item.source_id, item.subject, digest, item.votes)
        return row, None if self.thumbs is None else thumbnail(pixels)

    def split(self, shares: dict[str, float]) -> None:
        """Give each row its split and move its image there."""
        config = self.reading.options
        groups = groups_of(self.rows, config.group_by, lambda: np.stack(self.thumbs or []))
        splits = assign_splits([row.label for row in self.rows], groups, shares, config.seed)
        for index, (row, split) in enumerate(zip(self.rows, splits, strict=True)):
            path = f"{split}{row.path.removeprefix(UNSPLIT)}"
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / row.path).rename(self.folder / path)
            self.rows[index] = replace(row, path=path, split=split)
        for folder in self.names:
            (self.folder / folder).rmdir()
        (self.folder / UNSPLIT).rmdir()

    def describe(self, source: str) -> Description:
        """The content of `dataset.json` but for what the rows say; `source` is for what states no name or origin
        of its own.
        """
        reading, layout, config = self.reading, self.layout, self.reading.options
        options = config.model_dump(mode="json", exclude={"workers"}) | {"layout": layout.name}
        if self.is_split_anew:
            options["split"] = config.split or DEFAULT
        excluded = {"excluded": len(reading.problems.met)} if reading.problems.met else {}
        return Description(
            name=config.name or reading.title or layout.title or source,
            source=reading.origin or layout.source or source,
            licence=reading.licence or layout.licence,
            labels=tuple(sorted({row.label for row in self.rows})),
            left_out=dict(reading.left_out) | excluded,
            options=options,
            fingerprint="",
        )


class _Labels:
    """Labels one source after the other; remembers what it left out and what it did not know."""

    def __init__(self, reading: Reading, layout: str) -> None:
        options = reading.options
        self._reading = reading
        self._unknown: Counter[str] = Counter()
        self._used: set[str] = set()
        self._map = {old.casefold(): new for old, new in options.map.items()}
        for new in options.map.values():
            if safe_name(new) != new:
                raise ConfigError(f"--map: '{new}' cannot be the name of a folder", "letters and digits are safe")
        self._drop = {label.casefold() for label in options.drop}
        wants_votes = (options.labels != "original" or options.drop_unknown) and layout != "ferplus-folder"
        if wants_votes and options.ferplus is None:
            raise ConfigError("FER+ labels need the FER+ file", "--ferplus fer2013new.csv")
        if options.ferplus is not None and not layout.startswith("fer2013"):
            raise ConfigError("--ferplus goes with FER2013 alone: its votes are joined by row", "leave it out")
        self._votes = read_ferplus(options.ferplus) if options.ferplus else None

    def label(self, item: Item) -> Item | None:
        """`item` with its canonical label; None where it is left out, or its label is not known."""
        given = item.label.casefold()
        if given in self._drop:
            return self._leave_out(item.label)
        self._used.add(given)
        label = self._known(item.label)
        if label is None:
            self._unknown[item.label] += 1
            return None
        if label.casefold() in self._drop:
            return self._leave_out(label)
        self._used.add(label.casefold())
        item = replace(item, label=self._map.get(label.casefold(), label))
        return item if self._votes is None else self._voted(item, self._votes)

    def _known(self, name: str) -> str | None:
        """What `name` stands for: as --map says, an emotion, or a label that the source states itself."""
        mapped = self._map.get(name.casefold())
        wanted = name if mapped is None else mapped
        is_stated = mapped is not None or (name in self._reading.labels and safe_name(name) == name)
        return canonical_label(wanted) or (wanted if is_stated else None)

    def _voted(self, item: Item, votes: list[tuple[str, dict[str, int]]]) -> Item | None:
        options, problems = self._reading.options, self._reading.problems
        row = int(item.source_id) if item.source_id.isdigit() else None
        if row is None:
            what = "FER+ votes are joined by row, and this image's name does not say its row"
        elif row >= len(votes):
            what = f"row {row} is not in {options.ferplus}, which has {len(votes):,}"
        elif item.split and item.split != votes[row][0]:
            what = f"{item.split} here and {votes[row][0]} in {options.ferplus}: not the same rows"
        else:
            label, text = voted(votes[row][1], item.label, options)
            if label is None or label.casefold() in self._drop:
                return self._leave_out(label or text)
            return replace(item, label=self._map.get(label.casefold(), label), votes=text)
        problems.add(item.place, what)
        return None

    def _leave_out(self, why: str) -> Item | None:
        self._reading.left_out[why] += 1
        return None

    def finish(self) -> None:
        """Report the labels that were not known, with those seen besides, and --map and --drop that met nothing."""
        problems, unknown = self._reading.problems, {label.casefold() for label in self._unknown}
        known = ", ".join(sorted(self._used - unknown))
        besides = f"; known and seen besides: {known}" if known else "; known are those of the seven emotions"
        for label, count in self._unknown.most_common():
            what = f"not a known emotion ({count:,} images); --map '{label}=LABEL' or --drop '{label}'{besides}"
            problems.add(f"label '{label}'", what)
            besides = ""
        met = self._used | {label.casefold() for label in self._reading.left_out} | unknown
        for word in sorted((set(self._map) | self._drop) - met):
            problems.add(f"--map or --drop '{word}'", "no image bears this label")
