"""What each image of a source is labelled: an emotion by its spellings, as --map says, from votes, or kept as it is."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from deepfer_yolo.data.ferplus import read_ferplus, voted
from deepfer_yolo.data.layouts.item import Item, Layout, Reading
from deepfer_yolo.data.untrusted import Problems, printable, safe_name
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import ConfigError, DatasetError, listed
from deepfer_yolo.faces.smooth import UNCERTAIN

MAX_LABELS = 1000
"""Kept labels; a column of file names or measurements has more."""


def kept_labels(layout: Layout, reading: Reading, first: Item) -> frozenset[str]:
    """The labels of a source that are kept as they are, since not one of them is an emotion; none where any is, where
    the source states its own, and where one is a mere number, which would hide a code.

    `first` is the first image. Only where its label is not known is the source read a second time, labels alone.
    Raises DatasetError where there are more than MAX_LABELS.
    """
    if reading.labels or _is_known(first.label, reading):
        return frozenset()
    drop = {folded(label) for label in reading.options.drop}
    found: set[str] = set()
    for item in layout.read(Reading(reading.source, reading.options, Problems(excluded=reading.problems.excluded))):
        if item.label in found or folded(item.label) in drop:
            continue
        if _is_known(item.label, reading) or item.label.strip().isdecimal():
            return frozenset()
        found.add(item.label)
        refuse_too_many(found)
    return frozenset(found)


def kept_note(labels: frozenset[str]) -> str:
    """What a reader should know of labels that were kept because none is an emotion."""
    named = listed([printable(label) for label in sorted(labels)])
    return f"no label is an emotion, so all are kept as they are: {named}"


def refuse_too_many(labels: Collection[str]) -> None:
    """Raise DatasetError where there are more than MAX_LABELS."""
    if len(labels) > MAX_LABELS:
        named = ", ".join(printable(label) for label in sorted(labels)[:3])
        reason = f"has more than {MAX_LABELS:,} labels, such as {named}"
        raise DatasetError(reason, "is this what the images are labelled by? --map and --drop make fewer of them")


def folded(label: str) -> str:
    """A label as it is compared: without the difference of case, or of how accents are stored."""
    return unicodedata.normalize("NFC", label).casefold()


def _is_known(label: str, reading: Reading) -> bool:
    mapped = {folded(old): new for old, new in reading.options.map.items()}.get(folded(label), label)
    return canonical_label(mapped) is not None


class Labels:
    """Labels one source after the other; remembers what it left out and what it did not know."""

    def __init__(self, reading: Reading, layout: str) -> None:
        options = reading.options
        self._reading = reading
        self._unknown: Counter[str] = Counter()
        self._used: set[str] = set()
        self._written: dict[str, tuple[str, str]] = {}
        """Of each label that is written, by its folded form: the label, and how the source spells it."""
        self._clashes: dict[str, str] = {}
        self._decided: dict[str, tuple[str | None, str]] = {}
        self._map = {folded(old): new for old, new in options.map.items()}
        for new in options.map.values():
            if safe_name(new) != new:
                raise ConfigError(f"--map: '{new}' cannot be the name of a folder", "letters and digits are safe")
        self._drop = {folded(label) for label in options.drop}
        wants_votes = options.labels.startswith("ferplus") or options.drop_unknown
        if wants_votes and layout != "ferplus-folder" and options.ferplus is None:
            raise ConfigError("FER+ labels need the FER+ file", "--ferplus fer2013new.csv")
        if options.ferplus is not None and not layout.startswith("fer2013"):
            raise ConfigError("--ferplus goes with FER2013 alone: its votes are joined by row", "leave it out")
        if options.ferplus is not None and options.labels == "keep":
            raise ConfigError("--labels keep: FER+ knows FER2013's own labels alone", "leave out one of the two")
        self._votes = read_ferplus(options.ferplus) if options.ferplus else None

    def label(self, item: Item) -> Item | None:
        """`item` with the label that is written; None where it is left out, or its label cannot be used."""
        if item.label not in self._decided:
            self._decided[item.label] = self._decide(item.label)
        label, why = self._decided[item.label]
        if label is None:
            if why:
                return self._leave_out(why)
            self._unknown[item.label] += 1
            return None
        item = replace(item, label=label)
        return item if self._votes is None else self._voted(item, self._votes)

    def _decide(self, spelt: str) -> tuple[str | None, str]:
        """The label that is written for one spelling; else None, and why it is left out, or nothing where it is not
        known.
        """
        if folded(spelt) in self._drop:
            return None, spelt
        self._used.add(folded(spelt))
        label = self._known(spelt)
        if label is None:
            return None, ""
        if folded(label) in self._drop:
            return None, label
        self._used.add(folded(label))
        label = self._map.get(folded(label), label)
        # Names that differ in case alone share a folder on some systems.
        first, first_spelt = self._written.setdefault(folded(label), (label, spelt))
        is_same = folded(spelt) == folded(first_spelt) or self._is_meant(spelt) or self._is_meant(first_spelt)
        if first != label or not is_same or folded(label) == UNCERTAIN:
            self._clashes[spelt] = first_spelt
        refuse_too_many(self._written)
        return label, ""

    def _known(self, spelt: str) -> str | None:
        """What a spelling stands for: as --map says, an emotion, or a label that is kept."""
        keeps_all = self._reading.options.labels == "keep"
        mapped = self._map.get(folded(spelt))
        known = None if keeps_all else canonical_label(spelt if mapped is None else mapped)
        if known is not None or mapped is not None:
            return known or mapped
        is_kept = keeps_all or spelt in self._reading.labels
        return safe_name(unicodedata.normalize("NFC", spelt)) if is_kept else None

    def _is_meant(self, spelt: str) -> bool:
        """Whether a label was changed for a better reason than its unsafe characters."""
        is_emotion = self._reading.options.labels != "keep" and canonical_label(spelt) is not None
        return is_emotion or folded(spelt) in self._map

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
            if label is None or folded(label) in self._drop:
                return self._leave_out(label or text)
            return replace(item, label=self._map.get(folded(label), label), votes=text)
        problems.add(item.place, what)
        return None

    def _leave_out(self, why: str) -> Item | None:
        self._reading.left_out[why] += 1
        return None

    def finish(self) -> list[str]:
        """Report the labels that were not known, with those seen besides, those that would share a folder, and --map
        and --drop that met nothing; return what there is to say of labels that were written otherwise.
        """
        problems, unknown = self._reading.problems, {folded(label) for label in self._unknown}
        known = listed(sorted(self._used - unknown), 20)
        besides = f"; known and seen besides: {known}" if known else "; known are those of the seven emotions"
        for label, count in self._unknown.most_common():
            ways = f"--map '{label}=LABEL', --drop '{label}', or --labels keep, which keeps every label as it is"
            problems.add(f"label '{label}'", f"not a known emotion ({count:,} images); {ways}{besides}")
            besides = ""
        for spelt, other in self._clashes.items():
            if folded(spelt) == UNCERTAIN:
                what = f"is what faces are called that cannot be judged; --map {UNCERTAIN}=LABEL or --drop {UNCERTAIN}"
                problems.add(f"label '{spelt}'", what)
                continue
            what = f"would share a folder with the label '{other}'; --map '{spelt}=LABEL' gives it another name"
            problems.add(f"label '{spelt}'", what)
        met = self._used | {folded(label) for label in self._reading.left_out} | unknown
        for word in sorted((set(self._map) | self._drop) - met):
            problems.add(f"--map or --drop '{word}'", "no image bears this label")
        return [
            f"label '{printable(spelt)}' is written '{label}', which any file system can hold"
            for label, spelt in self._written.values()
            if folded(label) != folded(spelt) and not self._is_meant(spelt)
        ]
