"""Lines and csv rows of files from strangers, bounded, so that a file without line breaks cannot fill the memory."""

from __future__ import annotations

import csv
import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from deepfer_yolo.errors import DatasetError

MAX_LINE = 100_000
"""Characters; the longest row of FER2013 has about 9,300."""


def bounded_lines(text: IO[str], file: Path, first: int = 1) -> Iterator[str]:
    """Lines of at most MAX_LINE characters; `first` is the number of the next one.

    Raises DatasetError at a longer one.
    """
    number = first - 1
    while line := text.readline(MAX_LINE):
        number += 1
        if len(line) >= MAX_LINE:
            raise DatasetError(
                f"longer than {MAX_LINE:,} characters", "is this the right file?", path=file, line=number
            )
        yield line


def csv_rows(text: IO[str], file: Path, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, values) of each row that is not empty; `text` opened with newline=''.

    Raises DatasetError where it is no csv.
    """
    reader = csv.reader(bounded_lines(text, file, first))
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise DatasetError(
                str(error), "is a quotation mark left open?", path=file, line=reader.line_num + first - 1
            ) from None
        if values is None:
            return
        if values:
            yield reader.line_num + first - 1, values


MAX_BYTES = 80
UNSAFE = frozenset('<>:"/\\|?*')
WINDOWS_NAMES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}
)


def safe_name(wish: str) -> str:
    """`wish` where every file system takes it; else what is unsafe becomes %hex, and what is too long or reserved bears
    a hash of it.
    """
    name = "".join(
        c if c.isprintable() and c not in UNSAFE and not "\ud800" <= c <= "\udfff" else f"%{ord(c):x}" for c in wish
    )
    name = name.strip(" .") or "picture"
    if len(name.encode()) > MAX_BYTES or name.lower().split(".")[0] in WINDOWS_NAMES:
        name = f"{name[:20]}-{hashlib.sha256(wish.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    return name


def unique_name(wish: str, taken: set[str], suffix: str = "") -> str:
    """A safe name with `suffix` that differs from all `taken` by more than case, and is added to them."""
    stem = safe_name(wish)
    name, number = stem + suffix, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name.casefold())
    return name


SHOWN = 20
KEPT = 100_000


@dataclass(slots=True)
class Problems:
    """Everything found wrong so far, each with its place (`file, line 7`); the first KEPT are remembered, all are
    counted.

    `excluded` are places that a quarantine list names, `met` those of them that came by.
    """

    found: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    excluded: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)

    def add(self, place: str, what: str) -> None:
        """Note one problem, unless its place is `excluded`."""
        if place in self.excluded:
            self.met.add(place)
            return
        self.count += 1
        if len(self.found) < KEPT:
            self.found.append((place, what))

    def raise_if_any(self, hint: str) -> None:
        """Raise one DatasetError that lists the problems, SHOWN of them at most, with their number."""
        if not self.count:
            return
        lines = [printable(f"{place}: {what}") for place, what in self.found[:SHOWN]]
        if self.count == 1:
            raise DatasetError(lines[0], hint)
        if self.count > SHOWN:
            lines.append(f"… and {self.count - SHOWN:,} more")
        raise DatasetError("\n  ".join([f"{self.count:,} problems", *lines]), hint)


def printable(text: str) -> str:
    """`text` without line breaks, control characters or broken bytes, so that a hostile file name cannot write to the
    terminal.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


MAX_DEPTH = 32


def walk_files(folder: Path, problems: Problems) -> Iterator[Path]:
    """Regular files under `folder`, sorted; links are followed, and each folder is read once; hidden names are skipped.

    What is neither file nor folder is a problem and never opened; so is a link that leads nowhere, or to a folder that
    was read before.
    """
    yield from _walk(folder, problems, seen=set(), depth=0)


def _walk(folder: Path, problems: Problems, seen: set[tuple[int, int]], depth: int) -> Iterator[Path]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in seen or depth > MAX_DEPTH:
        problems.add(
            str(folder), "a link leads to this folder a second time" if identity in seen else "folders nested too deep"
        )
        return
    seen.add(identity)
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__MACOSX")):
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            problems.add(str(path), "a link that leads nowhere" if path.is_symlink() else str(error.strerror))
            continue
        if stat.S_ISDIR(mode):
            yield from _walk(path, problems, seen, depth + 1)
        elif stat.S_ISREG(mode):
            yield path
        else:
            problems.add(str(path), "not a regular file")
