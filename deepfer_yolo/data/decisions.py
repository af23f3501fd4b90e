"""What a reviewer decided of one image: the record, and the line of `corrections.csv` that holds it."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from deepfer_yolo.data.dataset import SPLITS
from deepfer_yolo.data.untrusted import leaves_folder, printable

COLUMNS = ("path", "sha256", "split", "old_label", "new_label", "reviewer", "why", "how", "seconds", "time")
# `time` stands last: a line that a kill has cut short never ends in a whole time.
LEAVE_OUT, UNSURE, UNDO = "leave-out", "unsure", "undo"
WORDS = (LEAVE_OUT, UNSURE, UNDO)
"""What `new_label` may be besides a label; no label of a data set under review may be called so."""
HOW = ("blind", "model", "repeat", "import")
"""blind: neither label nor model's answer was shown before; model: the model's answer was shown; repeat: shown a second
time to measure consistency; import: decided in another program."""
BY = "by:"
"""Begins the word of `how` that names the model whose answer was shown."""
MAX_CHARS = {"path": 1000, "old_label": 200, "new_label": 200, "reviewer": 80, "why": 500}
MAX_SECONDS = 86_400.0
ImageKey = tuple[str, str]
"""What tells images apart: path and SHA-256."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
_MODEL = re.compile(r"by:[A-Za-z0-9._-]{1,60}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMULA = re.compile(r"'*[=+\-@]")
"""How a cell begins that a spreadsheet would run, or that was made plain by a leading apostrophe."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One line: what a reviewer said of one image. `time` is UTC, ISO 8601 with Z; `seconds` is how long it took."""

    path: str
    sha256: str
    split: str
    old_label: str
    new_label: str
    reviewer: str = ""
    why: str = ""
    how: tuple[str, ...] = ()
    seconds: float | None = None
    time: str = ""

    @property
    def image(self) -> ImageKey:
        """The image that it is about."""
        return self.path, self.sha256

    @property
    def is_repeat(self) -> bool:
        """Whether the image was shown a second time."""
        return "repeat" in self.how

    @property
    def models(self) -> list[str]:
        """The models whose answer was shown, as far as the line names them."""
        return [word.removeprefix(BY) for word in self.how if word.startswith(BY)]

    @property
    def is_change(self) -> bool:
        """Whether it gives the image another label."""
        return self.new_label not in (*WORDS, self.old_label)

    def cells(self) -> list[str]:
        """The values of its line, with nothing in them that a spreadsheet would run."""
        seconds = "" if self.seconds is None else f"{self.seconds:.1f}"
        texts = (self.path, self.sha256, self.split, self.old_label, self.new_label, self.reviewer, self.why)
        return [plain_cell(text) for text in (*texts, " ".join(self.how), seconds, self.time)]


def now() -> str:
    """The time as a decision bears it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown_by(model: str) -> tuple[str, ...]:
    """The words of `how` for an answer that was shown, of a model by this name, which may be unknown."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model)[:60]
    return ("model", *((f"{BY}{name}",) if name else ()))


def is_plain_text(text: str) -> bool:
    """True for text without control characters, line breaks and broken bytes; letters of any script may stand in it."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def decision_of(cells: Sequence[str]) -> Decision:
    """The decision of a line in which `fault_of` finds nothing."""
    path, sha256, split, old, new, reviewer, why, how, seconds, time = map(text_of_cell, cells)
    took = float(seconds) if seconds else None
    return Decision(path, sha256, split, old, new, reviewer, why, tuple(how.split()), took, time)


def fault_of(cells: Sequence[str]) -> str:
    """What is wrong with the values of a line, by field; empty where nothing is."""
    if len(cells) != len(COLUMNS):
        return f"{len(cells)} values where {len(COLUMNS)} belong"
    values = dict(zip(COLUMNS, map(text_of_cell, cells), strict=True))
    for name, value in values.items():
        if len(value) > MAX_CHARS.get(name, 100):
            return f"{name} is longer than {MAX_CHARS.get(name, 100):,} characters"
        if not is_plain_text(value):
            return f"{name} holds control characters or broken bytes: '{printable(value[:60])}'"
    checks = {
        "path": bool(values["path"]) and not leaves_folder(values["path"]),
        "sha256": _SHA256.fullmatch(values["sha256"]) is not None,
        "split": values["split"] in SPLITS,
        "old_label": bool(values["old_label"]) and values["old_label"] not in WORDS,
        "new_label": bool(values["new_label"]),
        "how": all(word in HOW or _MODEL.fullmatch(word) for word in values["how"].split()),
        "seconds": not values["seconds"] or _is_seconds(values["seconds"]),
        "time": _is_time(values["time"]),
    }
    wanted = {
        "path": "a path inside the data set",
        "sha256": "64 hexadecimal digits",
        "split": f"one of {', '.join(SPLITS)}",
        "how": f"of {', '.join(HOW)} and {BY}MODEL",
        "seconds": "a number",
        "time": "UTC such as 2026-11-28T02:10:16Z",
    }
    bad = next((name for name, is_good in checks.items() if not is_good), "")
    return f"{bad} must be {wanted.get(bad, 'a label')}, not '{printable(values[bad][:60])}'" if bad else ""


def _is_seconds(text: str) -> bool:
    return re.fullmatch(r"\d{1,5}(\.\d{1,3})?", text, re.ASCII) is not None and float(text) <= MAX_SECONDS


def _is_time(text: str) -> bool:
    if not (text.isascii() and _TIME.fullmatch(text)):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def line_of(cells: Sequence[str]) -> bytes:
    """The bytes of a line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def plain_cell(text: str) -> str:
    """`text` as a cell that no spreadsheet runs as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def text_of_cell(cell: str) -> str:
    """What `plain_cell` was given."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell
