"""Labels as people correct them: `corrections.csv`, one appended line a decision, the data set itself unchanged.

path,sha256,split,old_label,new_label,reviewer,why,how,seconds,time
train/sad/00017.png,9f2c…,train,sad,neutral,Ada,label-error,model,0.8,2026-11-28T02:10:16Z
train/fear/00041.png,07ab…,train,fear,leave-out,Ada,blank,blind,1.3,2026-11-28T02:10:18Z

`new_label` is a label of the data set (the old one where it is kept), or `leave-out`, `unsure` or `undo`. An image is
its path and SHA-256. An `undo` takes back that reviewer's last decision on that image; what then stands last is the
reviewer's answer. A `repeat` only measures consistency and decides nothing. An image is settled by what more than half
of its reviewers say, of two by what both say; `unsure` abstains. Else it is in conflict, and nothing is applied.
Decisions on train and on held-out images (val, test) never share a file.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import IO, Self

from deepfer_yolo.data.dataset import Dataset, Row
from deepfer_yolo.data.decisions import (
    COLUMNS,
    LEAVE_OUT,
    UNDO,
    UNSURE,
    WORDS,
    Decision,
    ImageKey,
    decision_of,
    fault_of,
    line_of,
)
from deepfer_yolo.data.untrusted import csv_rows, printable
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import lock_handle, sync_folder
from deepfer_yolo.records import Json

LOG = logging.getLogger("deepfer.corrections")
FILE, HELD_OUT_FILE = "corrections.csv", "corrections.held-out.csv"
MAX_BYTES = 100_000_000
ENDS_IN_TIME = re.compile(rb",\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\r?$")
HINT = "each line is a decision that `deepfer review` wrote; mend the line, or remove it"


@dataclass(frozen=True, slots=True)
class Conflict:
    """An image of which reviewers say different things: the last decision of each."""

    path: str
    sha256: str
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two reviewers agree on the `n` images that both answered; `kappa` is NaN where chance alone is certain."""

    reviewers: tuple[str, str]
    n: int
    agreement: float
    kappa: float


@dataclass(frozen=True, slots=True)
class Consistency:
    """Of the `n` images that one reviewer was shown twice, how many got the same answer again."""

    reviewer: str
    n: int
    same: int


class Standing:
    """The decisions that stand, undone ones gone: first looks and repeats apart."""

    def __init__(self) -> None:
        self._stacks: dict[ImageKey, dict[tuple[bool, str], list[Decision]]] = defaultdict(dict)

    def add(self, decision: Decision) -> None:
        """Count one more line; an `undo` takes back the reviewer's last decision on that image, of its kind."""
        stack = self._stacks[decision.image].setdefault((decision.is_repeat, decision.reviewer), [])
        if decision.new_label != UNDO:
            stack.append(decision)
        elif stack:
            stack.pop()

    def images(self) -> Iterator[ImageKey]:
        """Every image that a line names, in the order of its first."""
        return iter(self._stacks)

    def of(self, image: ImageKey, *, is_repeat: bool = False) -> dict[str, Decision]:
        """The last decision of each reviewer on an image."""
        stacks = self._stacks.get(image, {})
        return {who: stack[-1] for (kind, who), stack in stacks.items() if stack and kind is is_repeat}


@dataclass(frozen=True)
class Corrections:
    """A file of decisions, in their order. `digest` is the SHA-256 of its bytes; `is_torn` says that its last line was
    cut short, as a kill leaves it, and is not counted.
    """

    path: Path
    decisions: tuple[Decision, ...]
    digest: str
    is_torn: bool = False

    @property
    def is_held_out(self) -> bool:
        """Whether the decisions are on val and test."""
        return any(decision.split != "train" for decision in self.decisions)

    @cached_property
    def standing(self) -> Standing:
        """The decisions that stand."""
        found = Standing()
        for decision in self.decisions:
            found.add(decision)
        return found

    @cached_property
    def answers(self) -> dict[ImageKey, dict[str, Decision]]:
        """The standing decision of each reviewer, by image and reviewer, in the order of the images' first decision."""
        found = ((image, self.standing.of(image)) for image in self.standing.images())
        return {image: of for image, of in found if of}

    def settled(self) -> tuple[Decision, ...]:
        """One decision an image, the last of those that say what more than half of the sure reviewers say; images in
        conflict are left out.
        """
        return tuple(final for of in self.answers.values() if (final := final_of(of.values())) is not None)

    def conflicts(self) -> tuple[Conflict, ...]:
        """The images of which reviewers say different things, and none more than half of them."""
        return tuple(
            Conflict(*image, tuple(_sure(of.values())))
            for image, of in self.answers.items()
            if final_of(of.values()) is None
        )

    def kappa(self) -> tuple[Agreement, ...]:
        """Cohen's kappa (1960) of each two reviewers; `leave-out` and `unsure` are answers like any other."""
        shared: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for of in self.answers.values():
            for one, two in combinations(sorted(of), 2):
                shared[one, two].append((of[one].new_label, of[two].new_label))
        return tuple(Agreement(pair, len(said), *_cohen(said)) for pair, said in sorted(shared.items()))

    def consistency(self) -> tuple[Consistency, ...]:
        """How each reviewer answered the images that were shown twice; an undone answer does not count."""
        n, same = Counter[str](), Counter[str]()
        for image in self.standing.images():
            for who, again in self.standing.of(image, is_repeat=True).items():
                first = self.answers.get(image, {}).get(who)
                if first is not None:
                    n[who] += 1
                    same[who] += again.new_label == first.new_label
        return tuple(Consistency(who, n[who], same[who]) for who in sorted(n))

    def check_against(self, dataset: Dataset) -> dict[str, Decision]:
        """The settled decisions by path in `dataset`, an image found by its path and SHA-256, else by SHA-256 alone.

        Raises DatasetError where an image or a label is not in the data set, or has changed between train and held out.
        """
        by_hash: dict[str, list[Row]] = defaultdict(list)
        for row in dataset.all_rows:
            by_hash[row.sha256].append(row)
        images = {decision.image: decision for decision in self.decisions}
        strangers = sorted(path for path, sha256 in images if sha256 not in by_hash)
        if strangers:
            reason = f"names {len(strangers):,} of {len(images):,} images that are not in {dataset.name}, such as "
            other = ", which has other bytes there" if any(row.path == strangers[0] for row in dataset.all_rows) else ""
            hint = "name the data set that was reviewed, or one converted from it; a new review needs another --out"
            raise DatasetError(f"{reason}'{printable(strangers[0])}'{other}", hint, path=self.path)
        unknown = sorted({d.new_label for d in self.decisions} - {*dataset.labels, *WORDS})
        if unknown:
            reason = f"'{printable(unknown[0])}' is no label of {dataset.name}: {', '.join(dataset.labels)[:200]}"
            raise DatasetError(reason, HINT, path=self.path)
        found: dict[str, Decision] = {}
        for decision in self.settled():
            for row in _rows_of(decision, by_hash[decision.sha256]):
                self._check_row(decision, row, found.get(row.path))
                found[row.path] = decision
        return found

    def _check_row(self, decision: Decision, row: Row, other: Decision | None) -> None:
        if (row.split == "train") != (decision.split == "train"):
            reason = f"'{printable(decision.path)}' was in {decision.split} and is in {row.split} here"
            hint = "corrections of held-out images are kept apart from those of train: review the data set as it is now"
            raise DatasetError(reason, hint, path=self.path)
        if other is not None and other.new_label != decision.new_label:
            reason = f"says {printable(other.new_label)} and {printable(decision.new_label)} of '{printable(row.path)}'"
            raise DatasetError(f"{reason}, which has the bytes of several reviewed images", HINT, path=self.path)

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose answers were shown to those who settled images, as far as lines name them."""
        return tuple(sorted({name for decision in self.settled() for name in decision.models}))

    def counts(self) -> Json:
        """What the decisions come to: of the settled images, those changed, kept, left out, unsure; and conflicts."""
        settled = self.settled()
        words = Counter(decision.new_label for decision in settled if decision.new_label in WORDS)
        changed = sum(decision.is_change for decision in settled)
        return {
            "decisions": len(self.decisions),
            "images": len(self.answers),
            "changed": changed,
            "kept": len(settled) - changed - words.total(),
            "left_out": words[LEAVE_OUT],
            "unsure": words[UNSURE],
            "conflicts": len(self.conflicts()),
            "reviewers": len({who for of in self.answers.values() for who in of}),
            "blind": sum("blind" in decision.how for decision in settled),
            "with_model": sum("model" in decision.how for decision in settled),
        }


def read_corrections(path: Path) -> Corrections:
    """The decisions of a file. Raises DatasetError with line and field where it cannot be used; a last line that was
    cut short is left out.
    """
    if not path.is_file():
        hint = f"deepfer review DATASET --out {path} writes it"
        raise DatasetError("no such file of corrections", hint, path=path)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    return _parse(content, path)


class CorrectionsWriter:
    """A file of corrections that is being written: held by one process, each decision synced before `append` returns.

    `before` is what stood there. Raises DatasetError where another process holds the file, or it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise DatasetError("is no file that decisions can be appended to", "name another --out", path=path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._is_new, self._size = path, not path.exists(), 0
        self._file: IO[bytes] = path.open("a+b", buffering=0)
        try:
            if lock_handle(self._file.fileno()) is False:
                raise DatasetError("another review is writing it", "wait for it, or name another --out", path=path)
            self._file.seek(0)
            content = _read_all(self._file)
            self.before = _parse(content, path) if content else Corrections(path, (), hashlib.sha256(b"").hexdigest())
            whole = content[: content.rfind(b"\n") + 1] if self.before.is_torn else content
            self._size = len(whole)
            self._file.truncate(self._size)
            if not whole:
                self._put(line_of(COLUMNS))
            elif not whole.endswith(b"\n"):
                self._put(b"\n")
            sync_folder(path.parent)
        except BaseException:
            self.close()
            raise
        self._is_held_out: bool | None = self.before.is_held_out if self.before.decisions else None

    def check_kind(self, *, is_held_out: bool) -> None:
        """Raise DatasetError where decisions of the other kind stand in the file."""
        if self._is_held_out not in (None, is_held_out):
            raise DatasetError(_mixes(is_held_out=is_held_out), f"name another file than {self.path}", path=self.path)
        self._is_held_out = is_held_out

    def append(self, *decisions: Decision) -> None:
        """Write decisions and sync them, all or none. Raises DatasetError for one that could not be read again, or
        where another program has touched the file.
        """
        self._check_untouched()
        for decision in decisions:
            if fault := fault_of(decision.cells()):
                raise DatasetError(fault, HINT, path=self.path)
            self.check_kind(is_held_out=decision.split != "train")
        self._put(b"".join(line_of(decision.cells()) for decision in decisions))

    def _check_untouched(self) -> None:
        """What an editor saves is a new file under the old name: a line to the old one would be lost."""
        ours, there = os.fstat(self._file.fileno()), self.path.stat() if self.path.exists() else None
        if there is None or not os.path.samestat(ours, there) or ours.st_size != self._size:
            reason = "another program has changed, moved or removed it since the review began"
            raise DatasetError(reason, "end the review, look at the file, and start it again", path=self.path)

    def _put(self, line: bytes) -> None:
        try:
            rest = line
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._size)  # a full disk leaves no half a line
            raise
        self._size += len(line)

    def close(self) -> None:
        """Let go of the file, which is not there where nothing was decided in a new one."""
        self._file.close()
        if self._is_new and self._size <= len(line_of(COLUMNS)):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_corrections(path: Path, decisions: Sequence[Decision]) -> None:
    """Append many decisions, synced together."""
    with CorrectionsWriter(path) as writer:
        writer.append(*decisions)


def _read_all(file: IO[bytes]) -> bytes:
    parts, size = [], 0
    while size <= MAX_BYTES and (part := file.read(1 << 20)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _parse(content: bytes, path: Path) -> Corrections:
    if len(content) > MAX_BYTES:
        raise DatasetError(f"is larger than {MAX_BYTES // 1_000_000} MB", HINT, path=path)
    end, digest = content.rfind(b"\n") + 1, hashlib.sha256(content).hexdigest()
    if line_of(COLUMNS).startswith(content):  # a kill before the first line was whole
        return Corrections(path, (), digest, end < len(content))
    # A line that ends in a whole time was not cut short, though some editors leave its end away.
    is_torn = 0 < end < len(content) and not ENDS_IN_TIME.search(content, max(end, len(content) - 40))
    decisions = _decisions(content[:end] if is_torn else content, path)
    if is_torn:
        LOG.warning("warning: %s: its last line was cut short, as a kill leaves it, and does not count", path)
    return Corrections(path, tuple(decisions), digest, is_torn)


def _decisions(content: bytes, path: Path) -> list[Decision]:
    rows = csv_rows(io.StringIO(content.decode("utf-8-sig", "surrogateescape"), newline=""), path)
    header = tuple(next(rows, (0, []))[1])
    if header != COLUMNS:
        reason = f"the columns must be {','.join(COLUMNS)}, not {printable(','.join(header)[:200])}"
        raise DatasetError(reason, HINT, path=path, line=1)
    decisions: list[Decision] = []
    for number, cells in rows:
        fault = fault_of(cells)
        if not fault and decisions and (cells[2] == "train") != (decisions[0].split == "train"):
            fault = _mixes(is_held_out=cells[2] != "train")
        if fault:
            raise DatasetError(fault, HINT, path=path, line=number)
        decisions.append(decision_of(cells))
    return decisions


def _mixes(*, is_held_out: bool) -> str:
    here, there = ("held-out", "train") if is_held_out else ("train", "held-out")
    return f"split: decisions on {here} images never share a file with those on {there} ones"


def final_of(answers: Collection[Decision]) -> Decision | None:
    """What the reviewers of one image, one answer each, come to; None where they are in conflict."""
    sure = _sure(answers)
    if not sure:
        return max(answers, key=lambda decision: decision.time)
    label, n = Counter(decision.new_label for decision in sure).most_common(1)[0]
    return [decision for decision in sure if decision.new_label == label][-1] if 2 * n > len(sure) else None


def _sure(answers: Iterable[Decision]) -> list[Decision]:
    return [decision for decision in answers if decision.new_label != UNSURE]


def _cohen(said: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """(share of agreement, kappa) of pairs of answers (Cohen 1960, Educational and Psychological Measurement 20:37)."""
    n = len(said)
    observed = sum(one == two for one, two in said) / n
    ones, twos = Counter(one for one, _ in said), Counter(two for _, two in said)
    expected = sum(ones[answer] * twos[answer] for answer in ones) / n**2
    return observed, (observed - expected) / (1 - expected) if expected < 1 else math.nan


def _rows_of(decision: Decision, same: Sequence[Row]) -> list[Row]:
    """The images of a decision among those with its bytes: the one of its path, else those with the old label or any in
    a data set that names its images otherwise.
    """
    named = [row for row in same if row.path == decision.path]
    return named or [row for row in same if row.label == decision.old_label] or list(same)
