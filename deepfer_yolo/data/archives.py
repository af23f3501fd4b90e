"""Archives from strangers: regular files only, inside the target only, with caps; on any doubt nothing of it stays."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from deepfer_yolo.data.layouts import fer2013_csv
from deepfer_yolo.data.untrusted import MAX_DEPTH, Problems, printable, safe_name, unique_name
from deepfer_yolo.errors import SENTENCE, DatasetError
from deepfer_yolo.files import STAGING_MARK

SUFFIXES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
MAX_MEMBERS = 1_500_000
MAX_BYTES = 128 << 30
MAX_MEMBER_BYTES = 4 << 30
MAX_RATIO = 100
RATIO_FROM = 256 << 20
"""Bytes unpacked before the ratio counts: small archives of text may shrink a hundredfold."""
MAX_HEADER = 1 << 20
PIECE = 1 << 20
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@contextmanager
def unpacked(source: Path, beside: Path) -> Iterator[Path]:
    """`source` itself where it is no archive; else a folder beside `beside` with its files, removed at the end.

    A zip with one FER2013 csv is left alone: that layout reads it as it is. One folder that holds all is entered.
    """
    if not source.is_file() or not source.name.lower().endswith(SUFFIXES) or fer2013_csv.matches(source):
        yield source
        return
    beside.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{beside.name}{STAGING_MARK}unpack-", dir=beside.parent))
    try:
        unpack(source, folder)
        yield _only_child(folder)
    except DatasetError as error:  # the folder of the moment says nothing to whoever named the archive
        if error.path is None or not Path(error.path).is_relative_to(folder):
            raise
        raise error.at(source / Path(error.path).relative_to(folder)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unpack(source: Path, folder: Path) -> None:
    """Unpack a zip or tar into the empty `folder`. Raises DatasetError that lists every refused member."""
    unpacking = _Unpacking(source, folder, source.stat().st_size)
    try:
        if source.name.lower().endswith(".zip"):
            _unpack_zip(unpacking)
        else:
            _unpack_tar(unpacking)
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DatasetError(
            f"the archive is broken ({error})", "fetch it again and compare its checksum", path=source
        ) from None
    unpacking.problems.raise_if_any("this archive is not safe to unpack; nothing of it was kept")


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

    def count(self) -> None:
        self.n_members += 1
        if self.n_members > MAX_MEMBERS:
            raise self.too_much(f"has more than {MAX_MEMBERS:,} members")

    def too_much(self, what: str) -> DatasetError:
        return DatasetError(what, "unpack it yourself, if you trust it", path=self.source, form=SENTENCE)

    def refuse(self, name: str, why: str) -> None:
        self.problems.add(f"{self.source.name}: {printable(name)}", why)

    def place(self, name: str) -> Path | None:
        """Where a member goes: every part of its name made safe and told from those that differ by case alone.

        None: refused.
        """
        path = PurePosixPath(name)
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in name
            or "\0" in name
            or (path.parts and path.parts[0].endswith(":"))
        ):
            self.refuse(name, "the path leaves the archive")
            return None
        if len(path.parts) > MAX_DEPTH:
            self.refuse(name, "folders nested too deep")
            return None
        target = self.folder
        for depth, part in enumerate(path.parts):
            inside = PurePosixPath(*path.parts[: depth + 1])
            if inside not in self.renamed:
                stem, suffix = inside.stem, inside.suffix
                if safe_name(f"x{suffix}") != f"x{suffix}":
                    stem, suffix = part, ""
                self.renamed[inside] = unique_name(stem, self.taken.setdefault(target, set()), suffix)
            target = target / self.renamed[inside]
        return target

    def write(self, name: str, content: IO[bytes]) -> None:
        """Copy one regular file, counting what really comes out."""
        if name in self.given:
            self.refuse(name, "the same name stands there twice")
            return
        self.given.add(name)
        target = self.place(name)
        if target is None:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with target.open("xb") as file:
            while piece := content.read(PIECE):
                size += len(piece)
                self.n_bytes += len(piece)
                if (
                    size > MAX_MEMBER_BYTES
                    or self.n_bytes > MAX_BYTES
                    or self.n_bytes > max(RATIO_FROM, MAX_RATIO * self.packed_bytes)
                ):
                    raise self.too_much("unpacks to more than it may: a decompression bomb?")
                file.write(piece)


def _unpack_zip(unpacking: _Unpacking) -> None:
    with zipfile.ZipFile(unpacking.source) as archive:
        for info in archive.infolist():
            unpacking.count()
            kind = stat.S_IFMT(info.external_attr >> 16)
            if _is_junk(info.filename):
                continue
            if info.flag_bits & 1:
                unpacking.refuse(info.filename, "encrypted")
            elif info.is_dir():
                folder = unpacking.place(info.filename)
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
            elif kind not in (0, stat.S_IFREG):
                unpacking.refuse(info.filename, "a link or device")
            else:
                with archive.open(info) as content:
                    unpacking.write(info.filename, content)


def _unpack_tar(unpacking: _Unpacking) -> None:
    with tarfile.open(unpacking.source, "r|*", tarinfo=_BoundedInfo) as archive:
        for info in archive:
            unpacking.count()
            if _is_junk(info.name):
                continue
            if info.isdir():
                folder = unpacking.place(info.name)
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
            elif not info.isreg() or info.issparse():
                unpacking.refuse(info.name, "a link, a device or a sparse file")
            else:
                content = archive.extractfile(info)
                assert content is not None
                unpacking.write(info.name, content)


class _BoundedInfo(tarfile.TarInfo):
    """A member whose long-name and extension headers are bounded: tarfile reads those into memory whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        extended = (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if self.type in extended and self.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def _is_junk(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not parts or "__MACOSX" in parts or parts[-1] in {".DS_Store", "Thumbs.db"}


def _only_child(folder: Path) -> Path:
    """The innermost folder that stands alone: archives often wrap everything in one."""
    children = list(folder.iterdir())
    if len(children) != 1:
        return folder
    if children[0].is_file():
        return children[0]
    names = {path.name for path in children[0].iterdir()}
    return _only_child(children[0]) if len(names) == 1 else children[0]
