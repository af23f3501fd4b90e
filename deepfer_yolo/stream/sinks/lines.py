"""Records as lines: JSON Lines and CSV, to files that rotate or to standard output."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.data.untrusted import MAX_LINE, csv_rows, open_list
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.files import atomic_path, lock_handle
from deepfer_yolo.records import JsonValue
from deepfer_yolo.stream.records import Output, Record, State
from deepfer_yolo.stream.sinks.worker import ReaderGoneError, Sink

CSV_FIELDS = (
    "kind", "run", "source", "epoch", "time_s", "clock", "frame", "age_ms", "track", "x1", "y1", "x2", "y2", "score",
    "label", "confidence", "raw_label", "raw_confidence", "start_s", "end_s", "decided_s", "mean_confidence", "state",
    "was", "reason", "complete", "size_px", "brightness", "contrast", "sharpness",
)  # fmt: skip


FORMULA = ("=", "+", "-", "@")


class LineSink(Sink):
    """Writes each record as a line, to a file or, for the target `-`, to standard output.

    A file that holds `max_bytes` is renamed, once, to `<stem>.000001<suffix>`, the next to `.000002` and so on: names
    sort by age, the open file last. Full files stay, unless `keep` says how many. A line is never split, and each file
    begins with `header`. What is no ordinary file, such as a FIFO, is never renamed.
    """

    def __init__(self, kind: str, target: str, config: StreamConfig, header: str = "") -> None:
        self._path = None if target == "-" else Path(target)
        parts = full_files(self._path) if self._path is not None else []
        super().__init__(f"{kind}={target}", [self._path, *parts] if self._path is not None else [])
        self._max_bytes, self._keep, self._resumes = config.max_bytes, config.keep, config.resume
        self._header = header.encode()
        self._file: IO[bytes] | None = None
        self._held: IO[bytes] | None = None
        self._size = self._n_lines = self._n_parts = 0
        self._full: deque[tuple[Path, int]] = deque()

    def owns(self, path: Path) -> bool:
        """Whether a full file may get this name."""
        return self._path is not None and _number(self._path, path) is not None

    def open(self) -> None:
        """Open a new file, or to resume, the one that is there; else full files are of a run that this one replaces."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._begin(self._path, appends=self._resumes)
        for part in full_files(self._path):
            if self._resumes:  # names go on sorting by age, and `keep` counts these too
                self._full.append((part, 0))
                self._n_parts = _number(self._path, part) or 0
            else:
                part.unlink()

    def _begin(self, path: Path, *, appends: bool = False) -> None:
        self._let_go()
        self._file = path.open("ab")
        handle = self._file.fileno()
        if lock_handle(handle) is False or not os.path.samestat(os.fstat(handle), path.stat()):
            raise _busy(path)
        self._size, self._n_lines = os.fstat(self._file.fileno()).st_size, 0
        if self._size and not appends:
            self._file.truncate(0)
            self._size = 0
        if not self._size:
            self._put(self._header)

    def write(self, output: Output) -> None:
        """Write the records and flush, so that a reader can follow. Raises ReaderGoneError where it is gone."""
        # A file's name may hold bytes that are no text: as \udc80 they are JSON.
        lines = "".join(self.line(record) for record in output.records).encode("utf-8", "backslashreplace")
        is_full = self._size > len(self._header) and self._size + len(lines) > self._max_bytes
        if is_full and self._path is not None and stat.S_ISREG(self._path.lstat().st_mode):
            self._put_aside(self._path)
        try:
            self._put(lines)
        except BrokenPipeError:
            raise ReaderGoneError(f"the reader of {self.name} has gone") from None
        self._n_lines += len(output.records)
        if self._file is not None and any(isinstance(record, State) and record.complete for record in output.records):
            os.fsync(self._file.fileno())

    def _put_aside(self, path: Path) -> None:
        """Give the full file its name for good, delete what `keep` does not keep, and begin a new one."""
        self.close()
        self._n_parts += 1
        while os.path.lexists(part := path.with_name(f"{path.stem}.{self._n_parts:06d}{path.suffix}")):
            self._n_parts += 1
        path.rename(part)
        self._full.append((part, self._n_lines))
        while self._keep is not None and len(self._full) > self._keep:
            oldest, n_lines = self._full.popleft()
            oldest.unlink(missing_ok=True)
            self.n_deleted += n_lines
        self._begin(path)

    def _put(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            self._file.flush()
        else:
            sys.stdout.write(data.decode())
            sys.stdout.flush()
        self._size += len(data)

    def close(self) -> None:
        """Close the file; standard output stays open."""
        self._let_go()
        if self._file is not None:
            self._file.close()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def line(self, record: Record) -> str:
        """A record as a line, with its end."""
        raise NotImplementedError

    def lines_of(self, path: Path) -> Iterator[Line]:
        """The whole lines of a file of this kind. Raises DeepferError where it holds others."""
        raise NotImplementedError

    def contents(self) -> list[Part]:
        """What the files hold that are there; until it is opened to go on, no other run may write to the last of them.
        Raises DeepferError where another does.
        """
        if self._path is not None and self._path.is_file():
            self._held = self._path.open("rb")
            if lock_handle(self._held.fileno()) is False:
                self._let_go()
                raise _busy(self._path)
        parts = []
        for path in self.files:
            if path.is_file():
                part = Part(path)
                for line in self.lines_of(path):
                    part.n_bytes += len(line.text)
                    part.sources.add(line.source)
                    part.complete |= {line.source} if line.is_complete else set()
                parts.append(part)
        return parts

    def forget(self, sources: set[str], parts: Sequence[Part]) -> None:
        """Drop the lines of `sources`, and half a line that a kill left, from files that hold these `parts`."""
        for part in reversed(parts):  # the one last by whose lock the others are ours
            if part.sources.isdisjoint(sources) and part.n_bytes == part.path.stat().st_size:
                continue
            with atomic_path(part.path) as fresh, fresh.open("wb") as file:
                for line in self.lines_of(part.path):
                    if line.source not in sources:
                        file.write(line.text)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: its bytes, its source ("" for a header), and whether it says that the source is complete."""

    text: bytes
    source: str
    is_complete: bool = False


@dataclass(slots=True)
class Part:
    """What one file holds: the sources of its lines, those that they call complete, and how long the lines are."""

    path: Path
    sources: set[str] = field(default_factory=set)
    complete: set[str] = field(default_factory=set)
    n_bytes: int = 0


def full_files(path: Path) -> list[Path]:
    """The full files beside `path` that a rotation put aside, oldest first."""
    if not path.parent.is_dir():
        return []
    numbered = [(number, other) for other in path.parent.iterdir() if (number := _number(path, other)) is not None]
    return [other for _, other in sorted(numbered)]


def _number(path: Path, other: Path) -> int | None:
    """Which of the full files of `path` is called as `other`; None where that is another name."""
    found = re.fullmatch(rf"{re.escape(path.stem)}\.(\d{{6,18}}){re.escape(path.suffix)}", other.name, re.ASCII)
    is_beside = found is not None and os.path.realpath(path.parent) == os.path.realpath(other.parent)
    return int(found[1]) if found is not None and is_beside else None


class JsonlSink(LineSink):
    """One JSON record a line."""

    def __init__(self, target: str, config: StreamConfig) -> None:
        super().__init__("jsonl", target, config)
        self.is_ledger = target != "-"

    def line(self, record: Record) -> str:
        """The record as JSON."""
        return json.dumps(record.to_json(self.run), ensure_ascii=False) + "\n"

    def lines_of(self, path: Path) -> Iterator[Line]:
        """The whole lines of a jsonl file. Raises DeepferError for one that is no record."""
        with path.open("rb") as file:
            for number, text in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
                if not text.endswith(b"\n") and len(text) < MAX_LINE:
                    return
                try:
                    record = json.loads(text)
                    yield Line(text, plain(str(record["source"])), record.get("complete") is True)
                except (ValueError, TypeError, KeyError, RecursionError):
                    raise _foreign(path, number) from None


class CsvSink(LineSink):
    """One record a row, all kinds in one table: what a kind does not have stays empty; each label has a column."""

    def __init__(self, target: str, config: StreamConfig, labels: tuple[str, ...]) -> None:
        self._fields = [*CSV_FIELDS, *(f"p_{label}" for label in labels)]
        super().__init__("csv", target, config, _row(self._fields))

    def line(self, record: Record) -> str:
        """The record as a row; the box and the probabilities are spread over columns."""
        values: dict[str, JsonValue] = {}
        for key, value in record.to_json(self.run).items():
            if isinstance(value, list):
                values |= dict(zip(("x1", "y1", "x2", "y2"), value, strict=True))
            elif isinstance(value, Mapping):
                values |= {f"p_{label}": p for label, p in value.items()}
            else:
                values[key] = value
        return _row([_safe(values.get(name)) for name in self._fields])

    def lines_of(self, path: Path) -> Iterator[Line]:
        """The whole rows of a csv file. Raises DeepferError where its columns are others."""
        is_cut = not _ends_a_line(path)
        with open_list(path) as file:
            rows = csv_rows(file, path)
            row, is_first = next(rows, None), True
            while row is not None:
                (number, values), row = row, next(rows, None)
                is_whole = len(values) == len(self._fields)
                if row is None and (is_cut or not is_whole):
                    return
                if not is_whole or (is_first and values != self._fields):
                    raise _foreign(path, number)
                source = "" if is_first else values[self._fields.index("source")]
                yield Line(_row(values).encode("utf-8", "surrogateescape"), _unsafe(source))
                is_first = False


def _busy(path: Path) -> DeepferError:
    return DeepferError(f"another run is writing to {path}", "wait until it ends, or name another output")


def _foreign(path: Path, number: int) -> DeepferError:
    return DeepferError(f"{path}, line {number}: no record of deepfer stream", "name another output")


def _row(values: list[str] | list[JsonValue]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def plain(name: str) -> str:
    """A source's name as files hold it: bytes that are no text are spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        return file.read(1) == b"\n"


def _unsafe(text: str) -> str:
    """What `_safe` was given."""
    return text[1:] if text[:1] == "'" and text[1:2] in FORMULA else text


def _safe(value: JsonValue) -> JsonValue:
    """Text that a spreadsheet would run as a formula is made plain; true and false are those of JSON."""
    if isinstance(value, bool):
        return json.dumps(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
