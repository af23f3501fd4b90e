"""From a source's own labels to ours: spellings, --map, --drop, and FER+ votes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from deepfer_yolo.data.ferplus import is_unknown, majority, plurality, read_ferplus, votes_text
from deepfer_yolo.data.layouts.item import Item, Reading
from deepfer_yolo.data.names import safe_name
from deepfer_yolo.emotions import canonical_label
from deepfer_yolo.errors import ConfigError


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
        if label is None and (item.label.casefold() in self._map or (wanted in self._reading.labels and safe_name(wanted) == wanted)):
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
            problems.add(f"label '{label}'", f"not a known emotion ({count:,} pictures); --map '{label}=LABEL' or --drop '{label}'{besides}")
            besides = ""
        met = self._used | {label.casefold() for label in self.left_out} | {label.casefold() for label in self._unknown}
        for word in sorted((set(self._map) | self._drop) - met):
            problems.add(f"--map or --drop '{word}'", "no picture bears this label")

    def _voted(self, item: Item) -> Item | None:
        assert self._votes is not None
        options = self._reading.options
        if not item.source_id.isdigit():
            self._reading.problems.add(item.place, "FER+ votes are joined by row, and this picture's name does not say its row")
            return None
        row = int(item.source_id)
        if row >= len(self._votes):
            self._reading.problems.add(item.place, f"row {row} is not in {options.ferplus}, which has {len(self._votes):,}")
            return None
        split, votes = self._votes[row]
        if item.split and item.split != split:
            self._reading.problems.add(item.place, f"{item.split} here and {split} in {options.ferplus}: not the same rows")
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
