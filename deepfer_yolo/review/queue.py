"""Which images come up for review and why, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from deepfer_yolo.data.corrections import Corrections
from deepfer_yolo.data.dataset import Dataset, Row
from deepfer_yolo.data.decisions import MAX_CHARS, WORDS, is_plain_text
from deepfer_yolo.data.ferplus import Votes, parse_votes
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import ConfigError, DatasetError, did_you_mean
from deepfer_yolo.review.doubts import KINDS, WORST_FIRST, Doubt, Doubts
from deepfer_yolo.servers import ReviewConfig

HELD_OUT = ("val", "test")
CONFLICT = "reviewers disagree"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the queue: `kinds` of doubt that it comes under, `why` in words, what the model and voters say."""

    row: Row
    kinds: tuple[str, ...]
    why: tuple[str, ...]
    probs: Mapping[str, float]
    votes: Votes
    copies: tuple[tuple[Row, bool], ...]

    @property
    def is_conflict(self) -> bool:
        """Whether it came up because reviewers disagree."""
        return any(words.startswith(CONFLICT) for words in self.why)


def check_choice(dataset: Dataset, config: ReviewConfig, *, has_answers: bool) -> None:
    """Raise ConfigError or DatasetError where such a review cannot be."""
    if config.split is not None and (config.split in HELD_OUT) is not config.held_out:
        hint = "add --held-out: their corrections are kept apart" if not config.held_out else "leave out --held-out"
        raise ConfigError(f"--split {config.split} is {'not ' if config.held_out else ''}held out", hint)
    if not set(_splits(config)) & set(dataset.splits):
        hint = f"it has {', '.join(dataset.splits)}; val and test need --held-out"
        raise DatasetError(f"has no images in {' or '.join(_splits(config))}", hint, path=dataset.root)
    if config.blind and config.label:
        raise ConfigError("--blind hides the label, and --label would tell it", "leave out one of them")
    if config.only == "uncertain" and not has_answers:
        raise ConfigError("--only uncertain needs a model", "add --with-model MODEL or --predictions FILE")
    if config.reviewer is not None and not is_plain_text(config.reviewer):
        raise ConfigError("--reviewer has control characters", "a name is letters of any script")
    unknown = sorted(set(config.label) - set(dataset.labels))
    if unknown:
        raise ConfigError(
            f"'{printable(unknown[0])}' is no label of {dataset.name}{did_you_mean(unknown[0], dataset.labels)}",
            f"its labels: {printable(', '.join(dataset.labels)[:300])}",
        )
    taken = sorted(set(dataset.labels) & set(WORDS))
    if taken:
        reason = f"has a label '{taken[0]}', which is a word of corrections.csv"
        raise DatasetError(reason, f"deepfer convert DATASET DEST --map {taken[0]}=other", path=dataset.root)
    for row in dataset.all_rows:
        if not (is_plain_text(row.path + row.label) and row.sha256) or len(row.path) > MAX_CHARS["path"]:
            reason = f"'{printable(row.path[:200])}' cannot stand in corrections.csv: its name has control characters, "
            reason += "is too long, or has no SHA-256"
            raise DatasetError(reason, "convert the data set again: it gets safe names", path=dataset.root)


def build(dataset: Dataset, doubts: Doubts, config: ReviewConfig, decided: Corrections) -> tuple[Entry, ...]:
    """The images to review, the worst first, whether they are decided already or not."""
    rows = {row.path: row for row in dataset.all_rows}
    why: dict[str, list[str]] = {}
    kinds: dict[str, list[str]] = {}
    for kind, path, words in _doubted(dataset, doubts, config, decided):
        row = rows.get(path)
        if row is not None and _is_wanted(row, config):
            if words and words not in why.setdefault(path, []):
                why[path].append(words)
            if kind not in kinds.setdefault(path, []):
                kinds[path].append(kind)
    paths = list(kinds)[: config.limit]
    probs, copies = doubts.probs or {}, doubts.copies()
    return tuple(
        Entry(
            rows[path],
            tuple(kinds[path]),
            tuple(why.get(path, ())),
            {label: float(share) for label, share in zip(doubts.labels, probs.get(path, ()), strict=False)},
            parse_votes(rows[path].votes),
            tuple((rows[other], exact) for other, exact in copies.get(path, ()) if other in rows),
        )
        for path in paths
    )


def _is_wanted(row: Row, config: ReviewConfig) -> bool:
    return row.split in _splits(config) and (not config.label or row.label in config.label)


def _splits(config: ReviewConfig) -> tuple[str, ...]:
    """The splits to review."""
    return (config.split,) if config.split else HELD_OUT if config.held_out else ("train",)


def _doubted(
    dataset: Dataset, doubts: Doubts, config: ReviewConfig, decided: Corrections
) -> Iterator[tuple[str, str, str]]:
    """(kind of doubt, path, why in words), the worst first; a path may come several times."""
    kind_of = {finding: kind for kind, findings in KINDS.items() for finding in findings}
    if config.only in (None, "conflicts"):
        for conflict in decided.conflicts():
            said = (f"{printable(one.reviewer) or 'no name'} says {one.new_label}" for one in conflict.decisions)
            yield "conflicts", conflict.path, f"{CONFLICT}: {', '.join(said)}"
    for finding in WORST_FIRST:
        for doubt in doubts.found if config.only in (None, kind_of[finding]) else ():
            if doubt.kind == finding:
                yield from ((kind_of[finding], path, words) for path, words in _words(doubt))
    if config.only == "uncertain":
        yield from (("uncertain", path, words) for path, words in _uncertain(doubts))
    if config.only == "all":
        yield from (("all", row.path, "") for row in dataset.all_rows)


def _words(doubt: Doubt) -> Iterator[tuple[str, str]]:
    for place, group in enumerate(doubt.groups):
        note = doubt.notes[place] if place < len(doubt.notes) else ""
        for path in group:
            yield path, f"{doubt.kind}: {note}" if note else doubt.kind


def _uncertain(doubts: Doubts) -> Iterator[tuple[str, str]]:
    """The images of which the model's two likeliest labels are closest first."""
    probs = doubts.probs or {}
    if not probs:
        return
    top = np.sort(np.stack(list(probs.values())), axis=1)[:, -2:]
    paths, margins = list(probs), top[:, 1] - top[:, 0]
    for place in np.argsort(margins, kind="stable").tolist():
        yield paths[place], f"uncertain: {100 * margins[place]:.0f} points between the two likeliest labels"
