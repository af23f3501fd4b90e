"""Tars from strangers, read as a stream from the first byte to the last: cut and damaged ones are found out."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

MAX_HEADER = 1 << 20
MAX_PADDING = 64 << 20
"""Zeros behind the end of a tar; a tape's block is far smaller."""
PIECE = 1 << 20
BROKEN_TAR = (tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError)
"""What reading a broken tar may raise."""


def tar_members(source: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], IO[bytes] | None]]]:
    """The members, each with what opens it, and then all that is behind them: a checksum stands at the very end, where
    tarfile never looks.
    """
    with _stream(source) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_CheckedInfo) as archive:
        for info in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # or it keeps every one
            yield info, partial(archive.extractfile, info)
        n_padding = 0
        while piece := archive.fileobj.read(PIECE):
            n_padding += len(piece)
            if piece.strip(b"\0") or n_padding > MAX_PADDING:
                raise tarfile.ReadError("there is more behind its end")


def _stream(source: Path) -> IO[bytes]:
    """A tar as it was before it was packed; by its content, since names are often wrong."""
    with source.open("rb") as file:
        head = file.read(8)
    for mark, opened in STREAMS.items():
        if head.startswith(mark):
            return opened(source, "rb")
    return source.open("rb")


STREAMS: dict[bytes, Callable[[Path, str], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,  # type: ignore[dict-item]
    b"\xfd7zXZ": lzma.open,  # type: ignore[dict-item]
}
"""What reads a packed file to its end and checks it, by the file's first bytes."""


class _CheckedInfo(tarfile.TarInfo):
    """A member whose long-name and extension headers are bounded, since tarfile reads those into memory whole; a header
    that is broken or not there is an error, since tarfile takes it for the end.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the mark of the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no end mark: {error}") from None

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        names = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *names) and self.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]
