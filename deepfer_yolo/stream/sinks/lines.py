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
from deepfer_yolo.stream.sinks.worker import Sink

CSV_FIELDS = (
    "kind", "source", "epoch", "time_s", "clock", "frame", "age_ms", "track", "x1", "y1", "x2", "y2", "score", "label",
    "confidence", "raw_label", "raw_confidence", "start_s", "end_s", "decided_s", "mean_confidence", "state", "was",
    "reason", "size_px", "brightness", "contrast", "sharpness",
)  # fmt: skip


class LineSink(Sink):
    """Writes each record as a line, to a file or, for the target `-`, to standard output.

    Once the file holds `max_bytes` it is renamed to `<stem>.1<suffix>` (then .2, …, up to `keep`); a line is never
    split, and each file begins with `header`.
    """

    def __init__(self, kind: str, target: str, config: StreamConfig, header: str = "") -> None:
        path = Path(target)
        parts = [path, *(path.parent / f"{path.stem}.{n}{path.suffix}" for n in range(1, config.keep + 1))]
        super().__init__(f"{kind}={target}", parts if target != "-" else [])
        self._max_bytes = config.max_bytes
        self._header = header
        self._file: IO[str] | None = None
        self._size = 0

    def open(self) -> None:
        """Open a new file."""
        if self.files:
            self.files[0].parent.mkdir(parents=True, exist_ok=True)
            self._file = self.files[0].open("w", encoding="utf-8", newline="")
            self._size = 0
            self._put(self._header)

    def write(self, output: Output) -> None:
        """Write the records and flush, so that a reader can follow."""
        lines = "".join(self.line(record) for record in output.records)
        if self._file is not None and self._size > len(self._header) and self._size + len(lines) > self._max_bytes:
            self.close()
            for older, newer in zip(self.files[:0:-1], self.files[-2::-1], strict=True):
                if newer.exists():
                    newer.replace(older)
            self.open()
        self._put(lines)

    def _put(self, text: str) -> None:
        out = self._file or sys.stdout
        out.write(text)
        out.flush()
        self._size += len(text.encode())

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._file is not None:
            self._file.close()

    def line(self, record: Record) -> str:
        """A record as a line, with its end."""
        raise NotImplementedError


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
