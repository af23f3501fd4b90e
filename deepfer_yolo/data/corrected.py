"""A data set under the labels that people corrected, and a judged split under both: those of now and those of before.

A file of corrections is applied to what its decisions name by SHA-256: settled decisions change a label or leave an
image out; conflicts between reviewers, and what they were unsure of, change nothing. A data set that was converted with
corrections says in labels-before.csv what they changed, so that its labels of before are known too.

path,label
test/happy/00017.png,sad
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Self

from deepfer_yolo.data.corrections import HELD_OUT_FILE, MAX_BYTES, Corrections, read_corrections
from deepfer_yolo.data.dataset import Dataset, Description, Row, csv_bytes, fingerprint, read_description
from deepfer_yolo.data.decisions import LEAVE_OUT, UNSURE, Decision
from deepfer_yolo.data.untrusted import csv_rows, printable
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Json, plain
from deepfer_yolo.runtime.card import AppliedCorrections, TrainedOn

LABELS_BEFORE = "labels-before.csv"
LEARNED, HELD_OUT = "train", "val and test"
FLATTERS = "labels that a model's answers helped to correct flatter that model"


def applied(found: Corrections) -> AppliedCorrections:
    """What a record, a card or dataset.json says of a file of corrections."""
    counts = {name: int(str(n)) for name, n in found.counts().items()}
    return AppliedCorrections(
        file=found.path.name, sha256=found.digest, held_out=found.is_held_out, counts=counts, models=found.models
    )


def read_for(file: Path, *, held_out: bool) -> Corrections:
    """The decisions of a file; those on val and test only where they are asked for on purpose. Raises ConfigError."""
    found = read_corrections(file)
    if found.is_held_out and not held_out:
        reason = f"{file} corrects held-out images: {FLATTERS}"
        raise ConfigError(reason, "to apply it all the same, add --held-out")
    return found


def with_corrections(dataset: Dataset, found: Corrections) -> Dataset:
    """`dataset` as the decisions say, its fingerprint taken again. Raises DatasetError, see `check_against`."""
    rows = tuple(new for _, new in corrected_rows(dataset.all_rows, found.check_against(dataset)) if new is not None)
    known = (*dataset.corrections, applied(found))
    return replace(dataset, all_rows=rows, fingerprint=fingerprint(rows), corrections=known, before=dataset)


def corrected_rows(rows: Iterable[Row], decisions: Mapping[str, Decision]) -> Iterator[tuple[Row, Row | None]]:
    """Each row and what a decision makes of it, None where it is left out."""
    for row in rows:
        said = decisions.get(row.path)
        label = row.label if said is None or said.new_label == UNSURE else said.new_label
        yield row, None if label == LEAVE_OUT else row if label == row.label else replace(row, label=label)


def taught_by(dataset: Dataset) -> TrainedOn:
    """What the card of a model says that learned from `dataset`."""
    return TrainedOn(name=dataset.name, fingerprint=dataset.fingerprint, corrections=dataset.corrections)


def corrections_line(one: AppliedCorrections) -> str:
    """What a file of corrections came to, in words."""
    n = defaultdict(int, one.counts)
    did = f"{n['changed']:,} labels changed, {n['kept']:,} kept, {n['left_out']:,} images left out"
    rest = f"not applied: {n['conflicts']:,} in conflict, {n['unsure']:,} unsure"
    return f"{printable(one.file)} ({one.sha256[:12]}): {did}; {rest}"


@dataclass(frozen=True, slots=True)
class SplitCorrections:
    """How the labels of a judged split were corrected: by which files, and of how many of its images."""

    files: tuple[AppliedCorrections, ...]
    changed: int
    left_out: int

    def lines(self, split: str) -> list[str]:
        """What a reader must know of it, a sentence each."""
        gone = f", {self.left_out:,} images left out" if self.left_out else ""
        lines = [f"The {split} labels were corrected: {self.changed:,} changed{gone}."]
        for one in self.files:
            n = defaultdict(int, one.counts)
            settled = n["changed"] + n["kept"] + n["left_out"] + n["unsure"]
            whose = f"the answer of {' or '.join(one.models)}" if one.models else "a model's answer"
            how = f"{n['with_model']:,} with {whose} shown, {n['blind']:,} blind, by {n['reviewers']:,}"
            who = "reviewer" if n["reviewers"] == 1 else "reviewers"
            lines.append(f"{corrections_line(one)}. Of {settled:,} decisions {how} {who}.")
        if any(one.counts.get("with_model") for one in self.files):
            lines.append(f"{FLATTERS[0].upper()}{FLATTERS[1:]}.")
        return lines

    def to_json(self) -> Json:
        """The files and both numbers."""
        return dict(plain({"files": [one.model_dump(mode="json") for one in self.files]})) | {
            "changed": self.changed,
            "left_out": self.left_out,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A data set whose `split` is judged. `how` is None, and `original` the data set itself, where nobody corrected
    that split; else `original` has its labels of before, and every image that `dataset` has.
    """

    dataset: Dataset
    original: Dataset
    how: SplitCorrections | None = None

    @classmethod
    def of(cls, dataset: Dataset, split: str) -> Self:
        """Both labels of a split, where corrections changed it just now or when the data set was converted.

        Raises DatasetError where the copy of such a file is not what it was.
        """
        files = tuple(one for one in dataset.corrections if one.held_out == (split != "train"))
        if not files:
            return cls(dataset, dataset)
        start = dataset.before or dataset
        before = (
            read_labels_before(start.root, read_description(start.root))
            if any(one in files for one in start.corrections)
            else {}
        )
        rows = tuple(replace(row, label=before.get(row.path, row.label)) for row in start.all_rows)
        original = replace(start, all_rows=rows, fingerprint=fingerprint(rows), before=None)
        now = {row.path: row.label for row in dataset.all_rows}
        then = [row for row in rows if row.split == split]
        changed = sum(row.path in now and now[row.path] != row.label for row in then)
        gone = sum(one.counts.get("left_out", 0) for one in start.corrections if one in files)
        left_out = sum(row.path not in now for row in then) + gone
        return cls(dataset, original, SplitCorrections(files, changed, left_out))


def write_labels_before(labels: Mapping[str, str], folder: Path) -> str:
    """Write what the labels of images were before corrections changed them, by path; returns the file's SHA-256."""
    content = csv_bytes(("path", "label"), labels.items())
    write_atomic(folder / LABELS_BEFORE, content)
    return sha256(content).hexdigest()


def read_labels_before(folder: Path, description: Description) -> dict[str, str]:
    """The labels of before, by path, of a data set that was converted with corrections.

    Raises DatasetError where the file is not what was written.
    """
    path = folder / LABELS_BEFORE
    content = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_BYTES else b""
    if sha256(content).hexdigest() != description.labels_before:
        raise DatasetError("is not what was written when the data set was converted", "convert it again", path=path)
    rows = csv_rows(io.StringIO(content.decode("utf-8", "surrogateescape"), newline=""), path)
    return {values[0]: values[1] for _, values in islice(rows, 1, None)}


def open_to_judge(dataset: Dataset, split: str, file: Path | None, *, held_out: bool) -> Dataset:
    """`dataset` with the corrections of `file`, which must be of the split that is judged. Raises ConfigError."""
    if file is None:
        if held_out:
            raise ConfigError("--held-out says that --corrections may change val and test", "name --corrections FILE")
        return dataset
    found = read_for(file, held_out=held_out)
    if found.decisions and found.is_held_out != (split != "train"):
        about = HELD_OUT if found.is_held_out else LEARNED
        hint = f"deepfer review --held-out writes {HELD_OUT_FILE}" if split != "train" else "name corrections.csv"
        raise ConfigError(f"{file} corrects {about}, and {split} is judged: nothing of it would count", hint)
    return with_corrections(dataset, found)
