"""Where outputs may be written: nothing that is there is replaced unasked, and what cannot be written is refused before
anything is read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepfer_yolo.errors import ConfigError, DeepferError


def numbered(path: Path, n: int) -> Path:
    """The name of a file's n-th older part: `o.jsonl` becomes `o.1.jsonl`."""
    return path.with_name(f"{path.stem}.{n}{path.suffix}")


def refuse_existing_file(path: Path, *, overwrite: bool, why: str = "") -> None:
    """Raise DeepferError where a file with content is there and `overwrite` was not given; `why` adds what it is for."""
    if path.is_dir():
        raise DeepferError(f"the output's name is that of a folder: {path}", "name a file")
    if path.exists() and path.stat().st_size > 0 and not overwrite:
        raise DeepferError(f"the output exists: {path}{why}", "name another one, or add --overwrite to replace it")


def refuse_unwritable(path: Path) -> None:
    """Raise DeepferError where no file can be written at `path`, whose folders may be missing; leaves nothing behind."""
    try:
        folder = next(parent for parent in path.parents if parent.exists())
        if not folder.is_dir():
            raise NotADirectoryError(None, f"{folder} is not a folder")
        if path.is_file():
            path.open("ab").close()
        elif not path.exists():
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = error.strerror or error
        hint = "name another file, or check who owns the folder"
        raise DeepferError(f"nothing can be written to {path}: {why}", hint) from None


def refuse_source(path: Path, sources: Iterable[str]) -> None:
    """Raise DeepferError where `path` is a source's file: writing would destroy it, whatever `--overwrite` says."""
    if path.exists() and any(Path(source).exists() and path.samefile(source) for source in sources):
        raise DeepferError(f"the output is a source of this run: {path}", "name another file")


def refuse_clashes(outputs: Sequence[Sequence[Path]], sources: Sequence[str]) -> None:
    """Raise ConfigError where two outputs, each a list of files, share one, DeepferError where one has a source's."""
    seen: set[str] = set()
    for files in outputs:
        names = {os.path.realpath(path) for path in files}
        for path in files:
            refuse_source(path, sources)
            if os.path.realpath(path) in seen:
                hint = "give each sink a file of its own"
                raise ConfigError(f"two outputs would write to the same file: {path}", hint)
        seen |= names
