"""Any known layout → the data set folder, streamed: no more than a few hundred pictures are in memory at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.archives import unpacked
from deepfer_yolo.data.dataset import (
    SPLITS,
    Row,
    fingerprint,
    read_quarantine,
    refuse_strangers,
    write_dataset_json,
    write_manifest,
)
from deepfer_yolo.data.ferplus import is_unknown, majority, plurality, read_ferplus, votes_text
from deepfer_yolo.data.images import encode_png, map_in_order
from deepfer_yolo.data.layouts.item import Item, Layout, Reading, item_pixels
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.data.splits import DEFAULT, assign_splits, parse_shares
from deepfer_yolo.data.untrusted import Problems, printable, safe_name, unique_name
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import SENTENCE, ConfigError, DatasetError
from deepfer_yolo.files import refuse_existing, staged_tree


class Labels:
    """Labels one source after the other; remembers what it left out and what it did not know."""

    def __init__(self, reading: Reading, layout: str) -> None:
        options = reading.options
        self.left_out = reading.left_out
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
        if item.label.casefold() in self._drop:
            return self._leave_out(item.label)
        wanted = self._map.get(item.label.casefold(), item.label)
        self._used.add(item.label.casefold())
        label = canonical_label(wanted)
        if label is None and (
            item.label.casefold() in self._map or (wanted in self._reading.labels and safe_name(wanted) == wanted)
        ):
            label = wanted
        if label is None:
            self._unknown[item.label] += 1
            return None
        if label.casefold() in self._drop:
            return self._leave_out(label)
        label = self._map.get(label.casefold(), label)
        self._used.add(label.casefold())
        item = replace(item, label=label)
        return item if self._votes is None else self._voted(item)

    def finish(self) -> None:
        """Report the labels that were not known, with those seen besides, and --map and --drop that met nothing."""
        problems = self._reading.problems
        known = ", ".join(sorted(self._used - {label.casefold() for label in self._unknown}))
        besides = f"; known and seen besides: {known}" if known else "; known are those of the seven emotions"
        for label, count in self._unknown.most_common():
            problems.add(
                f"label '{label}'",
                f"not a known emotion ({count:,} pictures); --map '{label}=LABEL' or --drop '{label}'{besides}",
            )
            besides = ""
        met = self._used | {label.casefold() for label in self.left_out} | {label.casefold() for label in self._unknown}
        for word in sorted((set(self._map) | self._drop) - met):
            problems.add(f"--map or --drop '{word}'", "no picture bears this label")

    def _voted(self, item: Item) -> Item | None:
        assert self._votes is not None
        options = self._reading.options
        if not item.source_id.isdigit():
            self._reading.problems.add(
                item.place, "FER+ votes are joined by row, and this picture's name does not say its row"
            )
            return None
        row = int(item.source_id)
        if row >= len(self._votes):
            self._reading.problems.add(
                item.place, f"row {row} is not in {options.ferplus}, which has {len(self._votes):,}"
            )
            return None
        split, votes = self._votes[row]
        if item.split and item.split != split:
            self._reading.problems.add(
                item.place, f"{item.split} here and {split} in {options.ferplus}: not the same rows"
            )
            return None
        if options.drop_unknown and is_unknown(votes):
            return self._leave_out("FER+ unknown or not a face")
        if options.labels == "original":
            return replace(item, votes=votes_text(votes))
        label = majority(votes) if options.labels == "ferplus-majority" else plurality(votes, item.label)
        if label is None:
            return self._leave_out("no FER+ majority")
        if label.casefold() in self._drop:
            return self._leave_out(label)
        text = "" if options.labels == "ferplus-majority" else votes_text(votes)
        return replace(item, label=self._map.get(label.casefold(), label), votes=text)

    def _leave_out(self, why: str) -> Item | None:
        self.left_out[why] += 1
        return None


UNSPLIT = "unsplit"
"""The folder where pictures wait for their split; it never stays."""

Progress = Callable[[float], None]


@dataclass(slots=True)
class _Writing:
    """What one conversion knows while it runs. `thumbs` is None where no groups of near copies are wanted."""

    folder: Path
    reading: Reading
    labels: Labels
    excluded: set[str]
    is_split_anew: bool
    thumbs: list[Any] | None
    names: dict[str, set[str]] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)


def convert(
    source: Path, target: Path, config: ConvertConfig, *, overwrite: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the data set folder `target` from `source` and return the content of its `dataset.json`.

    `progress` is called with the part done, 0 to 1. Raises DatasetError that lists every bad row or picture with its
    place; then, as after a kill, `target` is what it was before.
    """
    source = Path(source)
    shares = None if config.split in (None, "official", "as-is") else parse_shares(str(config.split))
    excluded = read_quarantine(config.exclude) if config.exclude else set()
    refuse_existing(target, overwrite=overwrite)
    _refuse_overlap(source, target, config)
    with ExitStack() as stack:
        root = stack.enter_context(unpacked(source, beside=target))
        layout = find_layout(root, config.layout)
        reading = Reading(root, config, Problems(excluded=excluded))
        folder = stack.enter_context(staged_tree(target, overwrite=overwrite))
        writing = _read_all(folder, reading, layout, shares is not None, excluded, progress)
        if writing.is_split_anew:
            _split(writing, config, shares or parse_shares(DEFAULT))
        content = _describe(writing, config, printable(source.name), layout)
        write_manifest(writing.rows, folder)
        write_dataset_json(content, folder)
    if progress is not None:
        progress(1.0)
    return content


def _refuse_overlap(source: Path, target: Path, config: ConvertConfig) -> None:
    """Raise DatasetError where writing `target` would touch what is read: --overwrite would remove it."""
    hint = "name a destination elsewhere; sources are never written to"
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise DatasetError(f"the destination {target} lies inside the source {source}", hint)
    for read in (source, config.ferplus, config.exclude):
        if read is not None and read.resolve().is_relative_to(target.resolve()):
            raise DatasetError(f"{read} lies inside the destination {target}", hint)


def absent_labels(counts: dict[str, dict[str, int]]) -> list[str]:
    """`split/label` for each label that a split which is there does not have; the learning and measuring commands need
    all of them.
    """
    labels = sorted({label for by_label in counts.values() for label in by_label})
    return [
        f"{split}/{label}" for split in SPLITS if split in counts for label in labels if not counts[split].get(label)
    ]


def _read_all(
    folder: Path, reading: Reading, layout: Layout, is_split_anew: bool, excluded: set[str], progress: Progress | None
) -> _Writing:
    """Every picture written into `folder`. Raises DatasetError that lists what was wrong."""
    config = reading.options
    items = layout.read(reading)
    first = next(items, None)
    if first is not None and not is_split_anew:
        is_split_anew = not first.split
        if is_split_anew and config.split is not None:
            raise ConfigError(
                f"--split {config.split}: {reading.source.name} has no split of its own", f"such as --split {DEFAULT}"
            )
    wants_copies = is_split_anew and config.group_by in ("auto", "duplicate")
    labels = Labels(reading, layout.name)
    writing = _Writing(folder, reading, labels, excluded, is_split_anew, [] if wants_copies else None)
    if first is not None:
        # Pixels at hand are not given to threads: threads that share the interpreter only slow them down.
        workers = 0 if first.pixels is not None else config.workers
        for row, thumb in map_in_order(
            lambda work: _write(writing, *work), _assign(writing, chain((first,), items)), workers
        ):
            if row is not None:
                writing.rows.append(row)
                if writing.thumbs is not None:
                    writing.thumbs.append(thumb)
                if progress is not None and len(writing.rows) % 100 == 0:
                    progress(reading.fraction)
    labels.finish()
    reading.problems.raise_if_any("mend them, or leave pictures out with --exclude; nothing was written")
    writing.met |= reading.problems.met
    if config.exclude:
        refuse_strangers(config.exclude, excluded, writing.met)
    if not writing.rows:
        raise DatasetError("holds no pictures", "check the path and the layout", path=reading.source, form=SENTENCE)
    return writing


def _assign(writing: _Writing, items: Iterator[Item]) -> Iterator[tuple[Item, str, str, str]]:
    """Each item with its split, label and path, in the order of reading, so that names never depend on the threads."""
    for item in items:
        key = item.key or item.source_id
        if key in writing.excluded:
            writing.met.add(key)
            continue
        labelled = writing.labels.label(item)
        if labelled is None:
            continue
        if not writing.is_split_anew and not item.split:
            writing.reading.problems.add(item.place, "has no split, while others have one")
            continue
        split = UNSPLIT if writing.is_split_anew else item.split
        folder = f"{split}/{labelled.label}"
        if folder not in writing.names:
            writing.names[folder] = set()
            (writing.folder / folder).mkdir(parents=True)
        yield labelled, split, labelled.label, f"{folder}/{unique_name(item.name, writing.names[folder], '.png')}"


def _write(writing: _Writing, item: Item, split: str, label: str, path: str) -> tuple[Row | None, Any]:
    from deepfer_yolo.data.duplicates import thumbnail

    try:
        pixels = item_pixels(item, writing.reading.options.margin)
    except DatasetError as error:
        writing.reading.problems.add(item.place, error.reason)
        return None, None
    content = encode_png(pixels)
    (writing.folder / path).write_bytes(content)
    row = Row(path, split, label, item.source_id, item.subject, hashlib.sha256(content).hexdigest(), item.votes)
    return row, None if writing.thumbs is None else thumbnail(pixels)


def _split(writing: _Writing, config: ConvertConfig, shares: dict[str, float]) -> None:
    """Give each row its split and move its picture there."""
    splits = assign_splits([row.label for row in writing.rows], _groups(writing, config), shares, config.seed)
    moved = []
    for row, split in zip(writing.rows, splits, strict=True):
        path = f"{split}{row.path.removeprefix(UNSPLIT)}"
        (writing.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (writing.folder / row.path).rename(writing.folder / path)
        moved.append(replace(row, path=path, split=split))
    for folder in sorted((writing.folder / UNSPLIT).iterdir()):
        folder.rmdir()
    (writing.folder / UNSPLIT).rmdir()
    writing.rows = moved


def _groups(writing: _Writing, config: ConvertConfig) -> Any:
    """A group number for each row: what must stay in one split."""
    from deepfer_yolo.data.duplicates import alike, group, near_pairs

    rows = writing.rows
    without = next((row for row in rows if not row.subject), None)
    if config.group_by == "subject" and without is not None:
        raise ConfigError(
            f"--group-by subject: {printable(without.source_id)} has no subject",
            "--group-by duplicate keeps copies together",
        )
    pairs = [np.empty((0, 2), np.int64)]
    if config.group_by in ("auto", "subject"):
        pairs.append(alike([row.subject for row in rows]))
    if writing.thumbs is not None:
        pairs += [alike([row.sha256 for row in rows]), near_pairs(np.stack(writing.thumbs))]
    return group(len(rows), np.concatenate(pairs))


def _describe(writing: _Writing, config: ConvertConfig, source: str, layout: Layout) -> dict[str, Any]:
    rows, reading = writing.rows, writing.reading
    counts = Counter((row.split, row.label) for row in rows)
    labels = sorted({row.label for row in rows})
    options = config.model_dump(mode="json", exclude={"workers"}) | {"layout": layout.name}
    if writing.is_split_anew:
        options["split"] = config.split or DEFAULT
    return {
        "schema_version": 1,
        "name": config.name or reading.title or layout.title or source,
        "source": reading.origin or layout.source or source,
        "licence": reading.licence or layout.licence,
        "labels": labels,
        "counts": {
            split: {label: counts[split, label] for label in labels}
            for split in SPLITS
            if any(row.split == split for row in rows)
        },
        "left_out": dict(reading.left_out) | ({"excluded": len(writing.met)} if writing.met else {}),
        "options": options,
        "fingerprint": fingerprint(rows),
    }
