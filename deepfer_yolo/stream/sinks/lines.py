"""Records as lines: JSON Lines and CSV, to files that rotate or to standard output."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import IO, Any, Literal

from deepfer_yolo.stream.records import Output
from deepfer_yolo.stream.sinks.targets import numbered

CSV_FIELDS = (
    *("kind", "source", "epoch", "time_s", "clock", "frame", "age_ms", "track", "x1", "y1", "x2", "y2", "score"),
    *(
        "label",
        "confidence",
        "raw_label",
        "raw_confidence",
        "start_s",
        "end_s",
        "mean_confidence",
        "state",
        "was",
        "reason",
    ),
)


class Rotation:
    """A text file that is renamed to `<stem>.1<suffix>` (then .2, …, up to `keep`) once it holds `max_bytes`; a line is
    never split.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int, header: str = "") -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._header = header
        self._file: IO[str] | None = None
        self._size = 0

    def open(self) -> None:
        """Open a new file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w", encoding="utf-8", newline="")
        self._size = 0
        if self._header:
            self._put(self._header)

    def write(self, lines: str) -> None:
        """Write whole lines and flush them, so that a reader can follow the file."""
        if self._size > len(self._header) and self._size + len(lines) > self._max_bytes:
            self.close()
            self._shift()
            self.open()
        self._put(lines)

    def _put(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text)
            self._file.flush()
            self._size += len(text.encode())

    def _shift(self) -> None:
        numbered(self._path, self._keep).unlink(missing_ok=True)
        for n in range(self._keep - 1, 0, -1):
            if numbered(self._path, n).exists():
                numbered(self._path, n).replace(numbered(self._path, n + 1))
        self._path.replace(numbered(self._path, 1))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class JsonlSink:
    """One JSON record a line."""

    wants: Literal["records", "pictures"] = "records"
    depth = 4096
    is_remote = False

    def __init__(self, target: str, *, max_bytes: int, keep: int) -> None:
        self.name = f"jsonl={target}"
        self._file = None if target == "-" else Rotation(Path(target), max_bytes=max_bytes, keep=keep)

    def open(self, sources: list[str]) -> None:
        """Open the file."""
        if self._file is not None:
            self._file.open()

    def write(self, output: Output) -> None:
        """Write the records."""
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in output.records)
        if self._file is not None:
            self._file.write(lines)
        else:
            sys.stdout.write(lines)
            sys.stdout.flush()

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._file is not None:
            self._file.close()


class CsvSink:
    """One record a row, all kinds in one table; what a kind does not have stays empty, and probabilities get a column a
    label.
    """

    wants: Literal["records", "pictures"] = "records"
    depth = 4096
    is_remote = False

    def __init__(self, target: str, labels: tuple[str, ...], *, max_bytes: int, keep: int) -> None:
        self.name = f"csv={target}"
        self._fields = [*CSV_FIELDS, *(f"p_{label}" for label in labels)]
        self._file = Rotation(Path(target), max_bytes=max_bytes, keep=keep, header=self._line(self._fields))

    def open(self, sources: list[str]) -> None:
        """Open the file and write the header."""
        self._file.open()

    def write(self, output: Output) -> None:
        """Write the records."""
        self._file.write("".join(self._line(self._row(record)) for record in output.records))

    def _row(self, record: dict[str, Any]) -> list[Any]:
        values = dict(record)
        if "box" in values:
            values |= dict(zip(("x1", "y1", "x2", "y2"), values["box"], strict=True))
        values |= {f"p_{label}": p for label, p in values.get("probs", {}).items()}
        return [_safe(values.get(name)) for name in self._fields]

    @staticmethod
    def _line(values: list[Any]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is made plain."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
