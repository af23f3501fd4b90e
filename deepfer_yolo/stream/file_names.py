"""Names that stand for many files: lists (`@list.txt`), glob patterns and numbered sequences (`frame_%04d.png`)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from deepfer_yolo.data.image_formats import is_image
from deepfer_yolo.data.untrusted import bounded_lines, open_list
from deepfer_yolo.errors import SourceError, redact

T = TypeVar("T")
MAX_FILES = 1_000_000
"""What a pattern may name; a pattern that matches a whole disk is a mistake."""
MAX_LINES = 100_000
NUMBER = re.compile(r"%0?(\d*)d")
URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(text: str) -> bool:
    """Whether a source is a URL; a file of that name, which only its path can have, is not."""
    return URL.match(text) is not None


def is_list(text: str) -> bool:
    """Whether a source is `@FILE`, and not a file that is really called so."""
    return text.startswith("@") and not os.path.lexists(text)


def expanded(texts: Sequence[str]) -> Iterator[str]:
    """The texts, with the lines of FILE in place of `@FILE`, as if they stood on the command line.

    Blank lines and those that begin with # are left out. Raises SourceError for a list that is not there, is too long
    or names another.
    """
    for text in texts:
        if is_list(text):
            yield from listed(text)
        else:
            yield text


def listed(text: str) -> list[str]:
    """The lines of `@FILE` that name something."""
    file = Path(text[1:])
    if not file.exists() or file.is_dir():
        raise SourceError(f"no such list: {redact(str(file))}", "@FILE names a file with one source a line")
    found: list[str] = []
    with open_list(file) as lines:
        for number, line in enumerate(bounded_lines(lines, file), 1):
            word = line.strip()
            if number > MAX_LINES:
                raise SourceError(f"{file} has more than {MAX_LINES:,} lines", "name a folder or a pattern instead")
            if "\0" in word:
                raise SourceError(f"{file}, line {number}: no name holds a NUL character", "is it a text file?")
            if is_list(word):
                raise SourceError(f"{file}, line {number}: a list names no other list", "name the files themselves")
            if word and not word.startswith("#"):
                found.append(word)
    return found


def as_line(text: str) -> str | None:
    """The line of a list that names this file or pattern; None where no line can."""
    if text != text.strip() or is_list(text) or any(mark in text for mark in "\n\r\0"):
        return None
    return f"./{text}" if text[:1] in "#@-" or text.isdecimal() else text


def matching(text: str) -> list[Path] | None:
    """The files that a pattern names: of a glob sorted by name, of a numbered one by number; None where it is none."""
    if os.path.lexists(text) or is_url(text):
        return None
    folder, name = Path(text).parent, Path(text).name
    if glob.has_magic(text):
        names = _bounded(glob.iglob(text, recursive=True), text)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        return sorted(path for path in map(Path, names) if path.is_file())
    number = NUMBER.search(name)
    if number is None or NUMBER.search(name, number.end()):
        return None
    head, tail = re.escape(name[: number.start()]), re.escape(name[number.end() :])
    wanted = re.compile(rf"{head}(\d{{{int(number[1] or 1)},18}}){tail}")
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        numbered = [found for entry in _bounded(entries, text) if (found := wanted.fullmatch(entry.name))]
    return [folder / found[0] for found in sorted(numbered, key=lambda found: int(found[1]))]


def closed_folders(text: str) -> list[Path]:
    """The folders that a glob pattern leads through and that cannot be read: glob passes over them in silence."""
    if os.path.lexists(text) or is_url(text) or not glob.has_magic(text):
        return []
    found: set[Path] = set()
    part = os.path.dirname(text)  # noqa: PTH120 (Path would swallow what a pattern means)
    while True:
        folders = glob.iglob(os.path.join(part or ".", ""), recursive=True)  # noqa: PTH118, PTH207
        found |= {Path(folder) for folder in folders if not os.access(folder, os.R_OK | os.X_OK)}
        if not glob.has_magic(part):
            return sorted(found)
        part = os.path.dirname(part)  # noqa: PTH120


def _bounded(items: Iterator[T], text: str) -> Iterator[T]:
    yield from islice(items, MAX_FILES)
    if next(items, None) is not None:
        raise SourceError(f"{text} names more than {MAX_FILES:,} files", "name a narrower pattern")


def sequence(text: str) -> list[Path]:
    """The images that one source consists of, in their order: those of a pattern, or of a list; else none."""
    files = [Path(line) for line in listed(text)] if is_list(text) else matching(text) or []
    if not files or not all(is_image(file) and file.suffix.lower() != ".gif" for file in files):
        return []
    if is_list(text) and any(matching(str(file)) is not None for file in files):
        return []  # each pattern is a source of its own
    return files if is_list(text) or NUMBER.search(text) else sorted(files, key=_in_words_and_numbers)


def _in_words_and_numbers(path: Path) -> list[tuple[int, str]]:
    """A sort key by which `2.png` comes before `10.png`."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part[:18]), "") if place % 2 else (0, part) for place, part in enumerate(parts)]
