"""Records as lines: JSON Lines to a file or to standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Literal

from deepfer_yolo.stream.results import Output


class JsonlSink:
    """One JSON record a line, flushed with each picture so that a reader can follow the file."""

    wants: Literal["records", "pictures"] = "records"
    depth = 4096

    def __init__(self, target: str) -> None:
        self.name = f"jsonl={target}"
        self._path = None if target == "-" else Path(target)
        self._file: IO[str] | None = None

    def open(self, sources: list[str]) -> None:
        """Open the file."""
        if self._path is None:
            self._file = sys.stdout
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w", encoding="utf-8")

    def write(self, output: Output) -> None:
        """Write the records."""
        if self._file is None:
            return
        self._file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in output.records))
        self._file.flush()

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._file is not None and self._path is not None:
            self._file.close()
