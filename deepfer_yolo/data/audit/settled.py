"""What people settled of an audit's findings: what is left of each, and the labels before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from deepfer_yolo.config import FindingKind
from deepfer_yolo.data.corrected import applied, corrected_rows
from deepfer_yolo.data.corrections import Corrections
from deepfer_yolo.data.dataset import Counts, Dataset, counts_of
from deepfer_yolo.data.decisions import LEAVE_OUT, UNSURE, Decision
from deepfer_yolo.records import Json
from deepfer_yolo.runtime.card import AppliedCorrections

Groups = tuple[tuple[str, ...], ...]
OF_LABELS: tuple[FindingKind, ...] = ("conflict", "near-conflict")
OF_COPIES: tuple[FindingKind, ...] = ("duplicate", "near-duplicate", "leak", "near-leak")


@dataclass(frozen=True, slots=True)
class Left:
    """Of the `groups` of images that a finding names, those that are `settled`."""

    groups: int
    settled: int


@dataclass(frozen=True, slots=True, eq=False)
class Settlement:
    """What a file of corrections came to: the standing decisions by path, what is left of each finding, how many images
    went from one label to another, and the images by split and label before and after.
    """

    applied: AppliedCorrections
    decided: Mapping[str, Decision]
    left: Mapping[FindingKind, Left]
    moves: Mapping[tuple[str, str], int]
    before: Counts
    after: Counts

    def to_json(self) -> Json:
        """As `--json` prints it."""
        left = {kind: {"groups": one.groups, "settled": one.settled} for kind, one in self.left.items()}
        moves = [{"from": old, "to": new, "images": n} for (old, new), n in self.moves.items()]
        return {**self.applied.model_dump(mode="json"), "findings": left, "moves": moves, "counts_after": self.after}

    def shown(self, kind: FindingKind) -> str:
        """How much of a finding is settled, for a table; empty for one that names no images."""
        one = self.left.get(kind)
        return "" if one is None else f"{one.settled:,} of {one.groups:,}"

    def move_rows(self) -> list[list[str]]:
        """From, to, and how many images, the most first."""
        return [[old, new, f"{n:,}"] for (old, new), n in self.moves.items()]

    def label_rows(self) -> list[list[str]]:
        """Each label, then all, with its images in each split, before → after."""
        labels = sorted({label for counts in (self.before, self.after) for by in counts.values() for label in by})
        rows = []
        for label in [*labels, "all"]:
            cells = []
            for split in self.before:
                old, new = (_count(counts.get(split, {}), label) for counts in (self.before, self.after))
                cells.append(f"{old:,}" if old == new else f"{old:,} → {new:,}")
            rows.append([label, *cells])
        return rows


def _count(by_label: Mapping[str, int], label: str) -> int:
    return sum(by_label.values()) if label == "all" else by_label.get(label, 0)


def settle(groups: Mapping[FindingKind, Groups], before: Counts, dataset: Dataset, found: Corrections) -> Settlement:
    """What `found` settles of the `groups` of images that an audit of `dataset` found, by kind.

    Raises DatasetError, see `check_against`.
    """
    decided = found.check_against(dataset)
    changes = list(corrected_rows(dataset.all_rows, decided))
    moves = Counter((was.label, LEAVE_OUT if new is None else new.label) for was, new in changes if new is not was)
    now = {was.path: None if new is None else new.label for was, new in changes}
    after = counts_of((new.split, new.label) for _, new in changes if new is not None)
    left = {
        kind: Left(len(some), sum(_is_settled(kind, group, decided, now) for group in some))
        for kind, some in groups.items()
        if any(key in now for group in some for key in group)
    }
    ordered = dict(sorted(moves.items(), key=lambda move: (-move[1], move[0])))
    return Settlement(applied(found), decided, left, ordered, before, after)


def _is_settled(
    kind: FindingKind, group: tuple[str, ...], decided: Mapping[str, Decision], now: Mapping[str, str | None]
) -> bool:
    """Whether every image of a group is decided, or nothing is left to decide: copies bear one label, or are gone."""
    if all(key in decided and decided[key].new_label != UNSURE for key in group):
        return True
    labels = [now[key] for key in group if now.get(key) is not None]
    if kind in OF_LABELS:
        return len(set(labels)) < 2
    return kind in OF_COPIES and len(labels) < 2
