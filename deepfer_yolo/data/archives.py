"""Archives from strangers: regular files only, inside the target only, with caps; on any doubt nothing of it stays."""

from __future__ import annotations

import errno
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from deepfer_yolo.data.layouts import fer2013, webdataset
from deepfer_yolo.data.layouts.registry import entered
from deepfer_yolo.data.tars import BROKEN_TAR, tar_members
from deepfer_yolo.data.untrusted import (
    MAX_DEPTH,
    MAX_RATIO,
    RATIO_FROM,
    Problems,
    leaves_folder,
    printable,
    safe_name,
    unique_name,
)
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.files import scratch_folder

SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
MAX_MEMBERS = 1_500_000
MAX_BYTES = 128 << 30
MAX_MEMBER_BYTES = 4 << 30
PIECE = 1 << 20
MAX_ZIP_END = 22 + 65_535
"""Bytes of a zip's end record with the longest comment."""
MAX_STEM_BYTES = 200
"""Of a name that is unpacked as it is: lists call images by their names, and Roboflow's are long."""
MAX_ARCHIVES = 2
"""An archive, and one that stands alone in it."""
BROKEN = (
    *(zipfile.BadZipFile, *BROKEN_TAR, RuntimeError),
    *(ValueError, OverflowError, struct.error),  # of heads that tell nonsense, as OSError with EINVAL is
)
AS_THEY_ARE = (fer2013.matches_csv, webdataset.matches)
"""Layouts that read an archive without unpacking it."""


@contextmanager
def unpacked(source: Path, beside: Path | None = None, layout: str = "auto") -> Iterator[Path]:
    """Where the data of `source` begins: a folder, or a file that is no archive.

    An archive is unpacked into a folder beside `beside`, or in the system's folder for temporary files, which is
    removed at the end. What stands alone in other folders is entered, an archive in there too. A zip with one FER2013
    csv and a shard of WebDataset are left alone: their layouts read them as they are.
    """
    with ExitStack() as stack:
        root = named = entered(source, layout)
        for _ in range(MAX_ARCHIVES):
            if not _is_archive(root):
                break
            folder = stack.enter_context(scratch_folder(beside or Path(tempfile.gettempdir()) / source.name))
            stack.enter_context(_naming(named, folder))
            unpack(root, folder)
            root = entered(folder, layout)
            named /= root.relative_to(folder)
        yield root


def _is_archive(file: Path) -> bool:
    is_packed = file.is_file() and file.name.lower().endswith(SUFFIXES)
    return is_packed and not any(matches(file) for matches in AS_THEY_ARE)


@contextmanager
def _naming(source: Path, folder: Path) -> Iterator[None]:
    """Let errors about a folder of the moment, which says nothing to anybody, name the archive that is in it."""
    try:
        yield
    except DatasetError as error:
        if error.path is None or not Path(error.path).is_relative_to(folder):
            raise
        raise error.at(source / Path(error.path).relative_to(folder)) from None


@dataclass(frozen=True, slots=True)
class _Member:
    """One member of an archive: `refusal` says why it is not a regular file or folder."""

    name: str
    is_folder: bool
    refusal: str
    open: Callable[[], IO[bytes] | None]


def unpack(source: Path, folder: Path) -> None:
    """Unpack a zip or tar into the empty `folder`. Raises DatasetError that lists every refused member."""
    unpacking = _Unpacking(source, folder, source.stat().st_size)
    try:
        for member in _zip_members(source) if source.name.lower().endswith(".zip") else _tar_members(source):
            unpacking.take(member)
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        hint = "fetch it again and compare its checksum"
        raise DatasetError(f"the archive is broken ({error})", hint, path=source) from None
    unpacking.problems.raise_if_any("this archive is not safe to unpack; nothing of it was kept")


def _zip_members(source: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(source) as archive:
        _check_count(source, len(archive.infolist()))
        for info in archive.infolist():
            name = info.filename.replace("\\", "/")  # some programs for Windows write its own separator
            is_folder = name.endswith("/")
            is_plain = is_folder or stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            refusal = "encrypted" if info.flag_bits & 1 else "" if is_plain else "a link or device"
            yield _Member(name, is_folder, refusal, partial(archive.open, info))


def _check_count(source: Path, n: int) -> None:
    """Raise BadZipFile where the end of a zip counts other than `n` members: one wrong length in the list swallows all
    that follow, and zipfile does not count.
    """
    with source.open("rb") as file:
        file.seek(max(0, source.stat().st_size - MAX_ZIP_END))
        end = file.read()
    at = end.rfind(b"PK\5\6")
    said = int.from_bytes(end[at + 10 : at + 12], "little")
    if said not in (n & 0xFFFF, 0xFFFF):  # the last: a zip of more members counts them elsewhere
        raise zipfile.BadZipFile(f"it counts {said:,} members, and lists {n:,}")


def _tar_members(source: Path) -> Iterator[_Member]:
    for info, opened in tar_members(source):
        is_plain = info.isdir() or (info.isreg() and not info.issparse())
        refusal = "" if is_plain else "a link, a device or a sparse file"
        yield _Member(info.name, info.isdir(), refusal, opened)


@dataclass(slots=True)
class _Unpacking:
    source: Path
    folder: Path
    packed_bytes: int
    problems: Problems = field(default_factory=Problems)
    n_members: int = 0
    n_bytes: int = 0
    given: set[str] = field(default_factory=set)
    renamed: dict[PurePosixPath, str] = field(default_factory=dict)
    taken: dict[Path, set[str]] = field(default_factory=dict)

    def take(self, member: _Member) -> None:
        """Unpack one member, or note why not. Raises DatasetError where the archive passes a cap."""
        self.n_members += 1
        if self.n_members > MAX_MEMBERS:
            raise self._too_much(f"has more than {MAX_MEMBERS:,} members")
        parts = PurePosixPath(member.name).parts
        is_hidden = any(part.startswith(".") and part != ".." for part in parts)  # passed over in folders too
        if not parts or is_hidden or "__MACOSX" in parts or parts[-1] == "Thumbs.db":
            return
        refusal = member.refusal
        if not member.is_folder:
            name = str(PurePosixPath(member.name))
            refusal = refusal or ("the same name stands there twice" if name in self.given else "")
            self.given.add(name)
        refusal = refusal or _bad_path(member.name)
        if refusal:
            self.problems.add(f"{self.source.name}: {printable(member.name)}", refusal)
            return
        target = self._place(PurePosixPath(member.name))
        try:
            if member.is_folder:
                target.mkdir(parents=True, exist_ok=True)
            else:
                self._write(member, target)
        except (FileExistsError, NotADirectoryError):
            self.problems.add(f"{self.source.name}: {printable(member.name)}", "its name is both a file and a folder")

    def _place(self, path: PurePosixPath) -> Path:
        """Where a member goes: every part of its name made safe and told from those that differ by case alone."""
        target = self.folder
        for depth, part in enumerate(path.parts):
            inside = PurePosixPath(*path.parts[: depth + 1])
            if inside not in self.renamed:
                stem, suffix = inside.stem, inside.suffix
                if safe_name(f"x{suffix}") != f"x{suffix}":
                    stem, suffix = part, ""
                self.renamed[inside] = unique_name(stem, self.taken.setdefault(target, set()), suffix, MAX_STEM_BYTES)
            target = target / self.renamed[inside]
        return target

    def _write(self, member: _Member, target: Path) -> None:
        """Copy one regular file, counting what really comes out."""
        target.parent.mkdir(parents=True, exist_ok=True)
        content = member.open()
        assert content is not None
        allowed = min(MAX_MEMBER_BYTES, min(MAX_BYTES, max(RATIO_FROM, MAX_RATIO * self.packed_bytes)) - self.n_bytes)
        with content, target.open("xb") as file:
            while piece := content.read(PIECE):
                allowed -= len(piece)
                if allowed < 0:
                    raise self._too_much("unpacks to more than it may: a decompression bomb?")
                self.n_bytes += len(piece)
                file.write(piece)

    def _too_much(self, reason: str) -> DatasetError:
        return DatasetError(reason, "unpack it yourself, if you trust it", path=self.source)


def _bad_path(name: str) -> str:
    """Why a member's path is refused; empty for one that may stand in a folder."""
    parts = PurePosixPath(name).parts
    if leaves_folder(name) or "\\" in name or "\0" in name or parts[0].endswith(":"):
        return "the path leaves the archive"
    return "folders nested too deep" if len(parts) > MAX_DEPTH else ""
