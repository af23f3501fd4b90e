"""Where outputs may be written: nothing is replaced unasked, and what cannot be written is refused at the start."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepfer_yolo.errors import ConfigError, DeepferError


def check_outputs(outputs: Iterable[tuple[str, Sequence[Path]]], sources: Sequence[Path], *, overwrite: bool) -> None:
    """Raise ConfigError where two outputs, each a name and its files, share a file.

    Raise DeepferError where a file is there already and `overwrite` was not given, where it is a source, which writing
    would destroy, or where it cannot be written.
    """
    taken: set[str] = set()
    for name, files in outputs:
        for path in files:
            if path.is_dir():
                raise DeepferError(f"the output's name is that of a folder: {path}", "name a file")
            if path.exists() and path.stat().st_size > 0 and not overwrite:
                why = "" if path == files[0] else f", which {name} may write as well"
                hint = "name another one, or add --overwrite to replace it"
                raise DeepferError(f"the output exists: {path}{why}", hint)
            if path.exists() and any(path.samefile(source) for source in sources):
                raise DeepferError(f"the output is a source of this run: {path}", "name another file")
            if os.path.realpath(path) in taken:
                hint = "give each sink a file of its own"
                raise ConfigError(f"two outputs would write to the same file: {path}", hint)
        taken |= {os.path.realpath(path) for path in files}
        for path in files[:1]:
            refuse_unwritable(path)


def refuse_unwritable(path: Path) -> None:
    """Raise DeepferError where no file can be written at `path`, whose folders may be missing; leave nothing behind."""
    try:
        folder = next(parent for parent in path.parents if parent.exists())
        if not folder.is_dir():
            raise NotADirectoryError(None, f"{folder} is not a folder")
        if path.is_file():
            path.open("ab").close()
        elif not path.exists():
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        hint = "name another file, or check who owns the folder"
        raise DeepferError(f"nothing can be written to {path}: {error.strerror or error}", hint) from None
