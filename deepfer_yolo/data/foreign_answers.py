"""Answers that people gave in other programs, as decisions: Label Studio's exports (JSON, JSON-MIN, CSV), a table that
`review --export csv` wrote and somebody filled in, and what Roboflow exports of a classification (a zip or folder by
label, or `_classes.csv`).
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.archives import unpacked
from deepfer_yolo.data.corrections import Corrections
from deepfer_yolo.data.dataset import Dataset, Row
from deepfer_yolo.data.decisions import (
    COLUMNS,
    LEAVE_OUT,
    MAX_CHARS,
    MAX_SECONDS,
    UNSURE,
    Decision,
    now,
    shown_by,
    text_of_cell,
)
from deepfer_yolo.data.exchange import ANSWER, IMAGE
from deepfer_yolo.data.layouts.item import Reading, read_table
from deepfer_yolo.data.layouts.registry import find_layout
from deepfer_yolo.data.layouts.roboflow import MULTI_LABEL, NO_LABEL
from deepfer_yolo.data.untrusted import Problems, printable
from deepfer_yolo.emotions import meeting
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.records import parse_json

MAX_BYTES = 500_000_000
HINT = "deepfer review DATASET --export label-studio|csv writes what can be read again (docs/formats.md)"
LABEL_STUDIO, ROBOFLOW = "Label Studio", "Roboflow"
UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of a file that was uploaded."""
RENAMED = re.compile(r"(?P<stem>.+)_(?P<suffix>png|jpe?g|bmp|webp|PNG|JPE?G|BMP|WEBP)\.rf\.[0-9A-Za-z]+\.[a-z]+")
"""What Roboflow calls an image."""
SKIPPED, NO_ANSWER, TWICE = "skipped there", "without an answer, or with several", "that stand twice in it"


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody said of one image, and what is known of which that is; `place` is for error messages."""

    place: str
    label: str
    path: str = ""
    sha256: str = ""
    name: str = ""
    reviewer: str = ""
    time: str = ""
    seconds: float | None = None
    saw_model: bool = False
    model: str = ""


@dataclass(slots=True)
class Imported:
    """The decisions of a file, without a time where it has none, and how many of its rows said nothing, by reason."""

    decisions: list[Decision] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    _first: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """By image and reviewer the label and place of the first answer."""

    def take(self, decision: Decision, answer: Answer, problems: Problems) -> None:
        """Take a decision. Of two by one reviewer of one image the later one counts; where no time says which that is,
        they must be the same.
        """
        key, said = (decision.path, decision.reviewer), decision.new_label
        label, place = self._first.get(key, ("", ""))
        if not place or answer.time:
            self._first.setdefault(key, (said, answer.place))
            self.decisions.append(decision)
        elif label == said:
            self.passed_over[TWICE] += 1
        else:
            problems.add(answer.place, f"says {said} of an image of which the same reviewer says {label}, {place}")

    def new_to(self, known: Corrections) -> list[Decision]:
        """The decisions that do not stand in a file yet; those without a time get that of now, where no line says the
        same, so that a table which comes a second time takes nothing back.
        """
        there = {(one.image, one.reviewer, one.new_label, time) for one in known.decisions for time in ("", one.time)}
        new = [one for one in self.decisions if (one.image, one.reviewer, one.new_label, one.time) not in there]
        return [one if one.time else replace(one, time=now()) for one in new]


def read_answers(file: Path, dataset: Dataset, *, held_out: bool) -> Imported:
    """The answers of `file` to images of `dataset`, as decisions: those on val and test with `held_out`, else those on
    train; the others are passed over and counted.

    Raises DatasetError that lists images that are not in the data set, unknown labels and rows that cannot be read.
    """
    found, problems = Imported(), Problems()
    images = _Images(dataset)
    for answer in _answers(file, found.passed_over, problems, dataset.labels):
        row, label = images.find(answer, problems), images.label(answer.label)
        if row is None:
            continue
        if label is None:
            problems.add(answer.place, f"'{answer.label[:80]}' is no label of {dataset.name}")
        elif (row.split != "train") is not held_out:
            found.passed_over[f"of {row.split}"] += 1
        elif answer.reviewer == ROBOFLOW and label == row.label:
            found.passed_over["with the label that they have"] += 1
        else:
            found.take(_decision(row, label, answer), answer, problems)
    problems.raise_if_any("nothing was imported: mend them, or leave those rows out")
    found.decisions.sort(key=lambda one: one.time)  # an annotator's last answer counts, and Label Studio's stands first
    return found


def _decision(row: Row, label: str, answer: Answer) -> Decision:
    how = (*(shown_by(answer.model) if answer.saw_model else ()), "import")
    who = printable(answer.reviewer)[: MAX_CHARS["reviewer"]]
    return Decision(row.path, row.sha256, row.split, row.label, label, who, "", how, answer.seconds, answer.time)


@dataclass(slots=True)
class _Images:
    """The images of a data set, found by path and SHA-256, or by a name that no two of them have."""

    dataset: Dataset
    _by_path: dict[str, Row] = field(default_factory=dict)
    _by_name: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    _labels: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.dataset.all_rows:
            self._by_path[row.path] = row
            self._by_name[_plain(posixpath.basename(row.path))].append(row)

    def find(self, answer: Answer, problems: Problems) -> Row | None:
        """The image that an answer is about; None, and a problem, where it is not known."""
        row = self._by_path.get(answer.path)
        if row is not None and answer.sha256 in ("", row.sha256):
            return row
        if row is not None:
            problems.add(answer.place, f"'{answer.path[:200]}' has other bytes here: the data set has changed")
            return None
        named = answer.name or posixpath.basename(answer.path)
        same = self._by_name.get(_plain(named), []) if not answer.sha256 else []
        if len(same) == 1:
            return same[0]
        several = f", which {len(same)} images bear" if same else ""
        problems.add(answer.place, f"'{(answer.path or named)[:200]}' is not in {self.dataset.name}{several}")
        return None

    def label(self, said: str) -> str | None:
        """The data set's name of what was said in any known spelling, or `leave-out` or `unsure`; else None."""
        if said not in self._labels:
            known = said in (LEAVE_OUT, UNSURE) or said in self.dataset.labels
            self._labels[said] = said if known else meeting([said], self.dataset.labels).get(said)
        return self._labels[said]


def _plain(name: str) -> str:
    """A file name as programs agree on it, who replace characters that they do not like."""
    return re.sub(r"[^0-9a-z]+", "-", name.lower())


def _answers(file: Path, passed: Counter[str], problems: Problems, labels: Sequence[str]) -> Iterator[Answer]:
    if not file.exists():
        raise DatasetError("no such file of answers", HINT, path=file)
    if file.is_file() and file.suffix.lower() == ".json":
        yield from _from_json(file, passed, problems)
    elif file.is_file() and file.suffix.lower() == ".csv" and file.name != "_classes.csv":
        rows = read_table(file, Reading(file, problems=problems))
        cells = ((place, {name: text_of_cell(cell) for name, cell in row.items()}) for place, row in rows)
        yield from _from_records(cells, passed, problems, file)
    else:
        yield from _from_roboflow(file, passed, problems, labels)


def _from_json(file: Path, passed: Counter[str], problems: Problems) -> Iterator[Answer]:
    if file.stat().st_size > MAX_BYTES:
        raise DatasetError(f"is larger than {MAX_BYTES // 1_000_000} MB", "export it in parts", path=file)
    try:
        tasks = parse_json(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DatasetError(f"is no JSON that can be used ({str(error)[:200]})", HINT, path=file) from None
    tasks = tasks if isinstance(tasks, list) else [tasks]
    if not all(isinstance(task, dict) for task in tasks):
        raise DatasetError("is not what Label Studio exports: a list of tasks", HINT, path=file)
    placed = ((f"{file.name}, task {number}", task) for number, task in enumerate(tasks, 1))
    if any("annotations" in task or "completions" in task for task in tasks):
        for place, task in placed:
            yield from _from_task(place, task, passed, problems)
    else:
        yield from _from_records(placed, passed, problems, file)


def _from_task(place: str, task: dict[str, Any], passed: Counter[str], problems: Problems) -> Iterator[Answer]:
    """One task of Label Studio's JSON."""
    data, given = task.get("data"), task.get("annotations", task.get("completions"))
    if not isinstance(data, dict) or not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        problems.add(place, "is no task of Label Studio: it has no data or no list of annotations")
        return
    if not given:
        passed[NO_ANSWER] += 1
    for one in given:
        if one.get("was_cancelled") or one.get("skipped"):
            passed[SKIPPED] += 1
            continue
        who = one.get("completed_by")
        about = {**data, "annotator": who.get("id") if isinstance(who, dict) else who}
        about |= {name: one.get(name) for name in ("created_at", "updated_at", "lead_time")}
        about[ANSWER] = _choice(one.get("result"))
        yield from _from_record(place, about, passed, problems)


def _choice(result: object) -> object:
    """What was chosen in an annotation; None where nothing, or more than one thing, was."""
    parts = [part for part in result if isinstance(part, dict)] if isinstance(result, list) else []
    own = [part for part in parts if part.get("from_name") == ANSWER] or parts
    values = [part.get("value") for part in own if str(part.get("type", "choices")).lower() == "choices"]
    chosen = [value.get("choices") for value in values if isinstance(value, dict)]
    return chosen[0][0] if len(chosen) == 1 and isinstance(chosen[0], list) and len(chosen[0]) == 1 else None


def _from_records(
    rows: Iterator[tuple[str, Any]], passed: Counter[str], problems: Problems, file: Path
) -> Iterator[Answer]:
    """Flat rows: Label Studio's JSON-MIN and CSV, and the table of `--export csv`."""
    is_known = False
    for place, record in rows:
        if not is_known and set(COLUMNS) <= set(record):
            hint = f"give it as --corrections {file}, or go on with it as --out {file}"
            raise DatasetError("is a file of decisions already", hint, path=file)
        if not is_known and ANSWER not in record:
            hint = "of a table the column new_label counts; " + HINT
            raise DatasetError(f"has no '{ANSWER}': {', '.join(map(str, record))[:200]}", hint, path=file)
        is_known = True
        yield from _from_record(place, record, passed, problems)


def _from_record(place: str, record: Mapping[str, Any], passed: Counter[str], problems: Problems) -> Iterator[Answer]:
    label = record.get(ANSWER)
    if label is None or label == "":
        passed[NO_ANSWER] += 1
        return
    path, sha256, image = (record.get(name) or "" for name in ("path", "sha256", IMAGE))
    texts = (label, path, sha256, image)
    if not all(isinstance(text, str) for text in texts) or not (path or image):
        problems.add(place, "says not in text which image it is, or what it shows")
        return
    annotator = record.get("annotator")
    who = str(record.get("reviewer") or (f"{LABEL_STUDIO} {annotator}" if annotator not in (None, "") else ""))
    when, seconds = _time(record.get("updated_at") or record.get("created_at")), _seconds(record.get("lead_time"))
    name = "" if path else UPLOADED.sub("", posixpath.basename(unquote(image)), count=1)
    saw, model = bool(record.get("model_label")), str(record.get("model") or "")
    yield Answer(place, label, path or _local(image), sha256, name, who, when, seconds, saw, model)


def _local(image: str) -> str:
    """The path that an address of Label Studio's local files names; empty for another one."""
    before, mark, path = unquote(image).partition("?d=")
    return path if mark and before.endswith("local-files/") else ""


def _time(text: object) -> str:
    """A time stamp as decisions bear it; empty where it is none."""
    try:
        found = datetime.fromisoformat(str(text))
        return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if found.tzinfo else ""
    except (ValueError, OverflowError):
        return ""


def _seconds(value: object) -> float | None:
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0 <= found <= MAX_SECONDS else None


def _from_roboflow(source: Path, passed: Counter[str], problems: Problems, labels: Sequence[str]) -> Iterator[Answer]:
    """What Roboflow exports, found by the names that it gave the images."""
    options = ConvertConfig(labels="keep", drop=(MULTI_LABEL, NO_LABEL))
    with unpacked(source) as root:
        reading = Reading(root, options, problems, labels=frozenset(labels))
        try:
            layout = find_layout(root, "auto")
        except DatasetError as error:
            raise DatasetError("is nothing that can be imported", HINT, path=source) from error
        for item in layout.read(reading):
            found = RENAMED.fullmatch(item.file.name if item.file is not None else item.name)
            if found is None:
                problems.add(item.place, "is not named as Roboflow names images: NAME_png.rf.HASH.jpg")
                continue
            yield Answer(item.place, item.label, name=f"{found['stem']}.{found['suffix']}", reviewer=ROBOFLOW)
        passed.update({why: reading.left_out[why] for why in (MULTI_LABEL, NO_LABEL) if reading.left_out[why]})
