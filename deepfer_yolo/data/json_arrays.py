"""The arrays of a JSON object, one element at a time: a file of any size is read in the memory of one element."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deepfer_yolo.data.untrusted import open_list
from deepfer_yolo.errors import DatasetError

PIECE = 1 << 16
MAX_ELEMENT = 1 << 22
"""Characters of one element, such as an annotation with its outline."""
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def array_elements(file: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Any, float]]:
    """(name, element, part of the file that is read, 0 to 1) of the arrays so named in the object that `file` holds.

    Raises DatasetError where it is no JSON object, or an element is longer than MAX_ELEMENT.
    """
    size = max(1, file.stat().st_size)
    with open_list(file) as text:
        cursor = _Cursor(text, file)
        cursor.take("{")
        while cursor.peek() != "}":
            key = cursor.value()
            if not isinstance(key, str):
                raise cursor.fault("a key is no text")
            cursor.take(":")
            if cursor.peek() != "[":
                cursor.value()
            else:
                for element in cursor.elements():
                    if key in names:
                        yield key, element, min(1.0, cursor.done / size)
            if cursor.peek() != "}":
                cursor.take(",")


@dataclass(slots=True)
class _Cursor:
    """A place in a text of JSON, of which `buffer` holds what is being read."""

    text: IO[str]
    file: Path
    buffer: str = ""
    at: int = 0
    done: int = 0

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            match = _BLANKS.match(self.buffer, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.buffer) or not self._fill():
                return self.buffer[self.at : self.at + 1]

    def take(self, wanted: str) -> None:
        """Go past the character `wanted`. Raises DatasetError where another one stands there."""
        found = self.peek()
        if found != wanted:
            raise self.fault(f"'{found}' where '{wanted}' belongs" if found else "ends in the middle")
        self.at += 1

    def elements(self) -> Iterator[Any]:
        """The elements of the array that begins here."""
        self.take("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self.take(",")
        self.take("]")

    def value(self) -> Any:
        """The value that begins here, which may end in a piece that is not read yet."""
        self.peek()
        while True:
            why = "ends in the middle"
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
            except RecursionError:
                raise self.fault("nested too deep") from None
            except ValueError as error:
                why = getattr(error, "msg", "a number is too long")
            else:
                if end < len(self.buffer):  # what ends with the buffer, as a number may, perhaps goes on
                    self.at = end
                    return value
            if len(self.buffer) - self.at > MAX_ELEMENT:
                raise self.fault(f"a value is longer than {MAX_ELEMENT:,} characters or broken ({why})")
            if not self._fill():
                raise self.fault(why)

    def fault(self, what: str) -> DatasetError:
        """The error about the place that is being read."""
        place = self.done - len(self.buffer) + self.at
        reason = f"is not the JSON it should be: {what}, at character {place:,}"
        return DatasetError(reason, "fetch or export it again", path=self.file)

    def _fill(self) -> bool:
        piece = self.text.read(PIECE)
        self.buffer = self.buffer[self.at :] + piece
        self.at = 0
        self.done += len(piece)
        return bool(piece)
