"""Files of a folder that nobody has checked: link loops, dangling links and pipes in it do no harm."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.problems import Problems

MAX_DEPTH = 32


def walk_files(folder: Path, problems: Problems) -> Iterator[Path]:
    """Regular files under `folder`, sorted; links are followed, and each folder is read once; hidden names are skipped.

    What is neither file nor folder is a problem and never opened; so is a link that leads nowhere, or to a folder that was read before.
    """
    yield from _walk(folder, problems, seen=set(), depth=0)


def _walk(folder: Path, problems: Problems, seen: set[tuple[int, int]], depth: int) -> Iterator[Path]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in seen or depth > MAX_DEPTH:
        problems.add(str(folder), "a link leads to this folder a second time" if identity in seen else "folders nested too deep")
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
