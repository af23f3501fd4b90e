"""Answers of any other program: csv files, joined with the images of a split and scored as a model's.

    path,prob_angry,prob_happy,…     test/angry/00001.png,0.81,0.02,…
    path,label                       test/angry/00001.png,sad

Images are named by their path in the manifest or a longer one that ends in it, else by a file name or SHA-256 that only
one image of the data set has. Probabilities stand in columns `prob_LABEL`, `p_LABEL` or LABEL, logits in `logit_LABEL`;
of `predict` and `evaluate` the csv is read as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepfer_yolo.config import ScoringConfig
from deepfer_yolo.data.dataset import COLUMNS, Dataset, Row
from deepfer_yolo.data.untrusted import Problems, csv_rows, open_list, printable
from deepfer_yolo.emotions import meeting
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.evaluate.metrics import Floats
from deepfer_yolo.evaluate.predictions import INTERSECT_HINT, Scores, columns, common_labels
from deepfer_yolo.files import sha256_of

MAX_BYTES = 2_000_000_000
NAMES = ("path", "file", "filename", "file_name", "image", "picture", "sha256")
"""What the column that names the images may be called."""
ANSWERS = ("answer", "prediction", "predicted", "pred")
PREFIXES = ("prob_", "p_", "logit_")
# What `predict`, `evaluate` and a manifest say of an image besides; no label is called so.
OTHERS = {
    *("label", "confidence", "error", "x1", "y1", "x2", "y2", "score", "reason"),
    *("size_px", "brightness", "contrast", "sharpness", *COLUMNS),
}
SUMS_TO_ONE = 0.01
"""How far from 1 probabilities may sum: twenty of them, written with three decimals."""
TIE = 2e-6
"""Probabilities this close, written with six decimals, may be either one's the largest."""
FORM_HINT = "it needs a column path, and label or one prob_LABEL a label: path,prob_angry,prob_happy,…"


@dataclass(frozen=True, slots=True)
class AnswersFile:
    """A file of answers, and how many it holds."""

    path: Path
    sha256: str
    n: int

    def __str__(self) -> str:
        return f"answers of {self.path}, sha256 {self.sha256[:12]}"


@dataclass(frozen=True, slots=True)
class _Header:
    """Which column of a file is what; `labels` is empty where it says labels alone."""

    name: int
    said: int | None
    error: int | None
    labels: dict[str, int]
    is_logits: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """One row: where it stands, the image as it is named there, the label said, and a number a label."""

    place: str
    name: str
    said: str
    numbers: tuple[float, ...]


def read_answers(
    files: Sequence[Path], dataset: Dataset, config: ScoringConfig, whole: Dataset | None = None
) -> tuple[Scores, tuple[AnswersFile, ...]]:
    """The answers of `files`, shards of one result, to the images of `config.split`, in the manifest's order.

    Answers to other images of `whole`, the data set before images were left out, are passed over. Raises DatasetError
    that names what is missing, double or unknown, and numbers that are no probabilities.
    """
    problems, images = Problems(), _Images((whole or dataset).all_rows)
    found: dict[str, _Answer] = {}
    read: list[AnswersFile] = []
    labels: tuple[str, ...] = ()
    is_logits = False
    for file in files:
        _check_file(file)
        with open_list(file) as text:
            lines = csv_rows(text, file)
            header = _header(file, next(lines, (1, []))[1], dataset.labels)
            if read and (set(header.labels), header.is_logits) != (set(labels), is_logits):
                here, there = (", ".join(names) or "none" for names in (header.labels, labels))
                reason = f"has other label columns than {files[0]}: {here}, not {there}"
                raise DatasetError(reason, "name shards of one result", path=file, line=1)
            labels, is_logits = labels or tuple(header.labels), header.is_logits
            before = len(found)
            for answer in _answers(file, lines, header, labels, problems):
                path = images.find(answer, problems)
                if path in found:
                    problems.add(answer.place, f"{path} has an answer already, in {found[path].place}")
                elif path:
                    found[path] = answer
        read.append(AnswersFile(file, sha256_of(file), len(found) - before))
    problems.raise_if_any("docs/formats.md says what a file of answers may hold")
    known = labels or dataset.labels
    scored = common_labels([known], dataset.labels, config.labels, INTERSECT_HINT, who="the file")
    rows = tuple(row for row in dataset.rows(config.split) if row.label in scored)
    for row in rows:
        if row.path not in found:
            problems.add(row.path, "has no answer")
    problems.raise_if_any(f"each image of the '{config.split}' split needs one answer; name every shard of them")
    given = [found[row.path] for row in rows]
    probs = _probabilities(given, labels, is_logits=is_logits) if labels else _certain(given, scored)
    targets = np.array([scored.index(row.label) for row in rows], np.int64)
    scores = Scores(rows, scored, targets, columns(probs.astype(np.float32), known, scored), has_probs=bool(labels))
    if labels:
        own = {row.path: row.label for row in (whole or dataset).all_rows}
        _check_said(given, [own[row.path] for row in rows], scores.labels, labels, probs)
    return scores, tuple(read)


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise DatasetError("no such file of answers", "check the path", path=file)
    if file.stat().st_size > MAX_BYTES:
        hint = "split it, and name each part with --predictions"
        raise DatasetError(f"is larger than {MAX_BYTES / 1e9:.0f} GB", hint, path=file)


def _header(file: Path, names: Sequence[str], wanted: Sequence[str]) -> _Header:
    """What the columns called `names` are. Raises DatasetError where the image or its answer is in none of them."""
    place = {name.strip().lower(): i for i, name in reversed(list(enumerate(names)))}
    fault = ""
    if tuple(names) == COLUMNS:
        fault = "is a manifest: its labels are the truth, no answers"
    elif len(place) < len(names):
        fault = "has two columns of one name"
    named = [place[name] for name in NAMES if name in place]
    said = next((place[name] for name in (*ANSWERS, "label") if name in place), None)
    labels: dict[str, int] = {}
    kind = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in place)), "")
    for i, name in enumerate(map(str.strip, names)):
        if name.lower().startswith(kind) and name.lower() not in {*NAMES, *ANSWERS, *OTHERS}:
            labels[name[len(kind) :]] = i
    if not kind and not meeting(wanted, labels):
        labels = {}
    if not named:
        fault = fault or f"has no column that names the images: {', '.join(map(printable, names))[:200]}"
    elif said is None and not labels:
        fault = fault or f"has no answers: {', '.join(map(printable, names))[:200]}"
    if fault:
        raise DatasetError(fault, FORM_HINT, path=file, line=1)
    return _Header(named[0], said, place.get("error"), labels, is_logits=kind == "logit_")


def _answers(
    file: Path, lines: Iterator[tuple[int, list[str]]], header: _Header, labels: Sequence[str], problems: Problems
) -> Iterator[_Answer]:
    """The rows of a file that can be read; of the others the reason goes to `problems`."""
    order = [header.labels[label] for label in labels]
    width = max([header.name, header.said or 0, header.error or 0, *order])
    for number, values in lines:
        place = f"{file}, line {number}"
        if len(values) <= width:
            problems.add(place, f"{len(values)} values where more than {width} belong")
        elif header.error is not None and values[header.error]:
            problems.add(place, f"{values[header.name]} has no answer but an error: {values[header.error]}")
        else:
            numbers = tuple(_number(values[i]) for i in order)
            fault = _fault(numbers, is_logits=header.is_logits) if order else ""
            if fault:
                problems.add(place, fault)
            else:
                said = "" if header.said is None else values[header.said].strip()
                yield _Answer(place, values[header.name].strip(), said, numbers)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _fault(numbers: Sequence[float], *, is_logits: bool) -> str:
    """What is wrong with an image's numbers; empty where nothing is."""
    if not all(map(math.isfinite, numbers)):
        return "a number is missing, or is none"
    if is_logits or (min(numbers) >= 0 and abs(sum(numbers) - 1) <= SUMS_TO_ONE):
        return ""
    if min(numbers) < 0 or max(numbers) > 1:
        return "these are logits, not probabilities: call the columns logit_LABEL, or give their softmax"
    return f"the probabilities sum to {sum(numbers):.4g}, not to 1"


class _Images:
    """The images of a data set by the names that a program may give them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._paths = {row.path for row in rows}
        self._others: dict[str, list[str]] = {}
        """Paths by file name and by SHA-256."""
        for row in rows:
            for name in (row.path.rpartition("/")[2], row.sha256):
                self._others.setdefault(name, []).append(row.path)

    def find(self, answer: _Answer, problems: Problems) -> str:
        """The path in the manifest of the image that an answer names; "" where that is none or several, a problem."""
        parts = answer.name.replace("\\", "/").split("/")
        for start in range(len(parts)):
            if (path := "/".join(parts[start:])) in self._paths:
                return path
        same = self._others.get(parts[-1], []) if parts[-1] else []
        if len(same) == 1:
            return same[0]
        several = f"{len(same)} images of the data set are called so, such as {same[:1]}: give the path"
        problems.add(answer.place, f"{answer.name}: {several if same else 'no such image in the data set'}")
        return ""


def _probabilities(given: Sequence[_Answer], labels: Sequence[str], *, is_logits: bool) -> Floats:
    """The numbers as probabilities (n, C) that sum to 1."""
    numbers = np.array([answer.numbers for answer in given], np.float64).reshape(len(given), len(labels))
    if is_logits:
        numbers = np.exp(numbers - numbers.max(1, keepdims=True))
    return np.asarray(numbers / numbers.sum(1, keepdims=True), np.float64)


def _certain(given: Sequence[_Answer], labels: Sequence[str]) -> Floats:
    """The labels said as probabilities (n, C) of 0 and 1."""
    names, problems = meeting({answer.said for answer in given}, labels), Problems()
    for answer in given:
        if answer.said not in names:
            problems.add(answer.place, f"the label '{answer.said}' is none of {', '.join(labels)}")
    problems.raise_if_any("convert the data with --map OLD=NEW, so that labels bear the same names")
    return np.eye(len(labels))[[labels.index(names[answer.said]) for answer in given]]


def _check_said(
    given: Sequence[_Answer], truth: Sequence[str], scored: Sequence[str], labels: Sequence[str], probs: Floats
) -> None:
    """Raise DatasetError where a label column is neither the most probable label nor the `truth`, which are the labels
    of the manifest, whatever corrections make of them.
    """
    names = meeting({answer.said for answer in given}, labels)
    said = np.array([labels.index(names[answer.said]) if answer.said in names else -1 for answer in given])
    if not any(answer.said for answer in given):
        return
    meant = meeting(labels, scored)
    is_truth = all(i >= 0 and meant.get(labels[i]) == label for i, label in zip(said, truth, strict=True))
    is_answer = (said >= 0) & (probs[np.arange(len(said)), said] >= probs.max(1) - TIE)
    if not is_truth and not is_answer.all():
        first = int(np.flatnonzero(~is_answer)[0])
        likely = labels[int(probs[first].argmax())]
        raise DatasetError(
            f"{given[first].place}: the label is '{printable(given[first].said)}', but the most probable one {likely}",
            "leave out the column of labels, or those of probabilities: which of them is the answer?",
        )
