"""Reading what strangers wrote: bounded lines and csv rows, folders walked once, safe names, problems collected."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import os_reason

MAX_LINE = 100_000
"""Characters; the longest row of FER2013 has about 9,300. A file without line breaks must not fill the memory."""
MAX_NAME_BYTES = 80
MAX_RATIO, RATIO_FROM = 100, 256 << 20
"""What unpacks to more than so many times its size is refused, from so many bytes on: small texts may shrink more."""
MAX_DEPTH = 32
MAX_SHOWN, MAX_KEPT = 20, 100_000
UNSAFE = frozenset('<>:"/\\|?*')
WINDOWS_NAMES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}
)


@dataclass(slots=True)
class Problems:
    """Everything found wrong so far, each with its place (`file, line 7`): all are counted, MAX_KEPT remembered.

    `excluded` are places that a quarantine list names, `met` those of them that came by. `unread` are folders and files
    that stand there and could not be looked at, each a problem too.
    """

    found: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    excluded: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)
    unread: list[Path] = field(default_factory=list)

    def excludes(self, place: str) -> bool:
        """True where the quarantine list names `place`, which it then has met."""
        if place not in self.excluded:
            return False
        self.met.add(place)
        return True

    def add(self, place: str, what: str) -> None:
        """Note one problem, unless its place is excluded."""
        if self.excludes(place):
            return
        self.count += 1
        if len(self.found) < MAX_KEPT:
            self.found.append((place, printable(what)))

    def add_unread(self, path: Path, why: str) -> None:
        """Note a folder or file that could not be looked at, unless it is excluded."""
        if not self.excludes(str(path)):
            self.unread.append(path)
            self.add(str(path), f"cannot be read ({why})")

    def raise_if_any(self, hint: str) -> None:
        """Raise one DatasetError that lists the problems, MAX_SHOWN of them at most, with their number."""
        if not self.count:
            return
        lines = [printable(f"{place}: {what}") for place, what in self.found[:MAX_SHOWN]]
        if self.count == 1:
            raise DatasetError(lines[0], hint)
        if self.count > MAX_SHOWN:
            lines.append(f"… and {self.count - MAX_SHOWN:,} more")
        raise DatasetError("\n  ".join([f"{self.count:,} problems", *lines]), hint)


def printable(text: str) -> str:
    """`text` with line breaks, control characters and broken bytes spelt out, so that none reaches the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def open_list(file: Path) -> IO[str]:
    """A text file for `bounded_lines` or `csv_rows`; bytes that are not UTF-8 stay what they are in file names."""
    return file.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def bounded_lines(text: IO[str], file: Path, first: int = 1) -> Iterator[str]:
    """Lines of `text`, `first` being the number of the next one. Raises DatasetError at one longer than MAX_LINE."""
    number = first - 1
    while line := text.readline(MAX_LINE):
        number += 1
        if len(line) >= MAX_LINE:
            reason = f"longer than {MAX_LINE:,} characters"
            raise DatasetError(reason, "is this the right file?", path=file, line=number)
        yield line


def csv_rows(text: IO[str], file: Path, first: int = 1, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, values) of each row that is not empty. Raises DatasetError where it is no csv."""
    reader = csv.reader(bounded_lines(text, file, first), delimiter=delimiter)
    try:
        for values in reader:
            if values:
                yield reader.line_num + first - 1, values
    except csv.Error as error:
        line = reader.line_num + first - 1
        raise DatasetError(str(error), "is a quotation mark left open?", path=file, line=line) from None


def delimiter_of(line: str) -> str:
    """What parts the columns of a csv that begins with `line`: a comma, ; or a tab, whichever stands there most."""
    return max(",;\t", key=line.count)


def small_number(text: str) -> int:
    """A whole number of at most three ASCII digits; -1 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1


def leaves_folder(path: str) -> bool:
    """True for a listed path that is absolute or leads upwards."""
    return path.startswith("/") or ".." in path.split("/")


def is_file_name(name: str) -> bool:
    """True for a name without folders."""
    return "/" not in name and "\\" not in name and name not in ("", ".", "..")


def safe_name(wish: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """`wish` with what is unsafe on any file system as %hex; what is too long or reserved bears a hash of it."""
    name = "".join(
        c if c.isprintable() and c not in UNSAFE and not "\ud800" <= c <= "\udfff" else f"%{ord(c):x}" for c in wish
    )
    name = name.strip(" .") or "image"
    if len(name.encode()) > max_bytes or name.lower().split(".")[0] in WINDOWS_NAMES:
        name = f"{name[:20]}-{hashlib.sha256(wish.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
    return name


def unique_name(wish: str, taken: set[str], suffix: str = "", max_bytes: int = MAX_NAME_BYTES) -> str:
    """A safe name with `suffix` that differs from all `taken` by more than case, and is added to them."""
    stem = safe_name(wish, max_bytes)
    name, number = stem + suffix, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name.casefold())
    return name


def listing(folder: Path) -> list[Path]:
    """What stands in a folder, sorted. Raises DatasetError with its name where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, links to folders too, without hidden ones; as `listing`, with no look at each
    file.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith((".", "__")) and entry.is_dir()]
    except OSError as error:
        raise unreadable(folder, error) from None
    return [folder / name for name in sorted(names)]


def unreadable(path: Path, error: OSError) -> DatasetError:
    """The error for a file or folder that stands there and cannot be looked at."""
    return DatasetError(f"cannot be read ({os_reason(error)})", "check who may read it, or leave it out", path=path)


def walk_files(folder: Path, problems: Problems) -> Iterator[Path]:
    """Regular files under `folder`, sorted, links followed, each folder read once, hidden names skipped.

    What is neither file nor folder is a problem and never opened; so is a link to nowhere, or to a folder read before,
    and what cannot be read.
    """
    yield from _walk(folder, problems, seen=set(), depth=0)


def _walk(folder: Path, problems: Problems, seen: set[tuple[int, int]], depth: int) -> Iterator[Path]:
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:  # a Path each, of a million, would be 250 MB
            is_file = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except OSError as error:
        problems.add_unread(folder, os_reason(error))
        return
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        problems.add(str(folder), "a link leads to this folder a second time")
        return
    if depth > MAX_DEPTH:
        problems.add_unread(folder, "folders nested too deep")
        return
    seen.add(identity)
    may_enter = os.access(folder, os.X_OK)
    for name in sorted(is_file):
        if name.startswith((".", "__MACOSX")):
            continue
        path = folder / name
        if is_file[name] and may_enter:  # asking again would take a tenth of a small image's time
            yield path
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                problems.add(str(path), "a link that leads nowhere")
            else:
                problems.add_unread(path, os_reason(error))
            continue
        if stat.S_ISDIR(mode):
            yield from _walk(path, problems, seen, depth + 1)
        elif stat.S_ISREG(mode):
            yield path
        else:
            problems.add(str(path), "not a regular file")
