"""Records as lines: JSON Lines and CSV, to files that rotate or to standard output."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.records import JsonValue
from deepfer_yolo.stream.records import Output, Record
from deepfer_yolo.stream.sinks.targets import numbered
from deepfer_yolo.stream.sinks.worker import Sink

CSV_FIELDS = (
    "kind", "source", "epoch", "time_s", "clock", "frame", "age_ms", "track", "x1", "y1", "x2", "y2", "score", "label",
    "confidence", "raw_label", "raw_confidence", "start_s", "end_s", "mean_confidence", "state", "was", "reason",
)  # fmt: skip


class Rotation:
    """A text file that is renamed to `<stem>.1<suffix>` (then .2, …, up to `keep`) once it holds `max_bytes`.

    A line is never split; each file begins with `header`.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int, header: str = "") -> None:
        self.files = [path, *(numbered(path, n) for n in range(1, keep + 1))]
        self._max_bytes = max_bytes
        self._header = header
        self._file: IO[str] | None = None
        self._size = 0

    def open(self) -> None:
        """Open a new file."""
        self.files[0].parent.mkdir(parents=True, exist_ok=True)
        self._file = self.files[0].open("w", encoding="utf-8", newline="")
        self._size = 0
        if self._header:
            self._put(self._header)

    def write(self, lines: str) -> None:
        """Write whole lines and flush them, so that a reader can follow the file."""
        if self._size > len(self._header) and self._size + len(lines) > self._max_bytes:
            self.close()
            for older, newer in zip(self.files[:0:-1], self.files[-2::-1], strict=True):
                if newer.exists():
                    newer.replace(older)
            self.open()
        self._put(lines)

    def _put(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text)
            self._file.flush()
            self._size += len(text.encode())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class LineSink(Sink):
    """A sink that writes each record as a line, to a file that rotates or, for the target `-`, to standard output."""

    def __init__(self, name: str, target: str, config: StreamConfig, header: str = "") -> None:
        self._file = None
        if target != "-":
            self._file = Rotation(Path(target), max_bytes=config.max_bytes, keep=config.keep, header=header)
        super().__init__(f"{name}={target}", self._file.files if self._file is not None else ())

    def open(self, sources: list[str]) -> None:
        """Open the file."""
        if self._file is not None:
            self._file.open()

    def write(self, output: Output) -> None:
        """Write the records."""
        lines = "".join(self.line(record) for record in output.records)
        if self._file is not None:
            self._file.write(lines)
        else:
            sys.stdout.write(lines)
            sys.stdout.flush()

    def line(self, record: Record) -> str:
        """A record as a line, with its end."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._file is not None:
            self._file.close()


class JsonlSink(LineSink):
    """One JSON record a line."""

    def __init__(self, target: str, config: StreamConfig) -> None:
        super().__init__("jsonl", target, config)

    def line(self, record: Record) -> str:
        """The record as JSON."""
        return json.dumps(record.to_json(), ensure_ascii=False) + "\n"


class CsvSink(LineSink):
    """One record a row, all kinds in one table: what a kind does not have stays empty; each label has a column."""

    def __init__(self, target: str, config: StreamConfig, labels: tuple[str, ...]) -> None:
        self._fields = [*CSV_FIELDS, *(f"p_{label}" for label in labels)]
        super().__init__("csv", target, config, _row(self._fields))

    def line(self, record: Record) -> str:
        """The record as a row; the box and the probabilities are spread over columns."""
        values: dict[str, JsonValue] = {}
        for key, value in record.to_json().items():
            if isinstance(value, list):
                values |= dict(zip(("x1", "y1", "x2", "y2"), value, strict=True))
            elif isinstance(value, Mapping):
                values |= {f"p_{label}": p for label, p in value.items()}
            else:
                values[key] = value
        return _row([_safe(values.get(name)) for name in self._fields])


def _row(values: list[str] | list[JsonValue]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _safe(value: JsonValue) -> JsonValue:
    """Text that a spreadsheet would run as a formula is made plain."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
