"""Files and folders that no kill leaves half done or locked: written beside their final name, then renamed once."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepfer_yolo.errors import DeepferError

STAGING_MARK = ".deepfer-part-"
"""Part of the name of every unfinished file and folder; whatever bears it may be deleted when no run is under way."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; synced and renamed to `path` on success, removed on failure.

    The temporary name keeps the suffix, since writers choose their format by it.
    """
    part = _beside(path)
    with _blaming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A new name in the folder of `path` for what is unfinished."""
    return path.parent / f".{path.stem}{STAGING_MARK}{os.urandom(4).hex()}{path.suffix}"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole small file so that a kill leaves the old content or the new."""
    with atomic_path(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield an empty folder beside a path, closed to other users; what is still in it at the end is removed."""
    folder = _beside(beside)
    with _blaming(beside):
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_tree(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty sibling folder to fill; on success it is synced and renamed to `target`, on failure removed.

    With `overwrite` the old tree is moved aside first and removed last. Raises DeepferError where `target` is not
    empty.
    """
    refuse_existing(target, overwrite=overwrite)
    old = _beside(target)
    with scratch_folder(target) as scratch, _blaming(target):
        staging = scratch / "tree"
        staging.mkdir()
        yield staging
        os.sync()
        if target.exists():
            target.rename(old)
        staging.rename(target)
        sync_folder(target.parent)
        if old.exists():
            shutil.rmtree(old)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Let errors of the disk name `path`, where they name nothing or the part beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and STAGING_MARK not in str(error.filename)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raise DeepferError where `target` is a file, or a folder that is not empty and `overwrite` was not given."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise DeepferError(f"the destination is not a folder: {target}", "name another destination")
    if target.is_dir() and not overwrite and any(target.iterdir()):
        hint = "name another one, or add --overwrite to replace it"
        raise DeepferError(f"the destination exists and is not empty: {target}", hint)


@contextmanager
def locked(path: Path, busy: DeepferError | None = None, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`; the system frees it when the process ends, however it ends.

    Raises `busy` where another process still holds it after `wait_s`; without `busy` it waits as long as that takes.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if busy is None else wait_s)
    except Timeout:
        if busy is None:
            raise
        raise busy from None
    try:
        yield
    finally:
        lock.release()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable; does nothing where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


OS_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, then run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, then run the same command again"),
    errno.EROFS: ("the file system is read-only", "name a destination that can be written"),
    errno.EACCES: ("permission denied", "check who owns it, or name another path"),
    errno.EPERM: ("operation not permitted", "check who owns it, or name another path"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.EISDIR: ("this is a folder, not a file", "name a file"),
    errno.EEXIST: ("a file stands where a folder is needed", "name another path"),
    errno.EBUSY: ("this is the current folder or a mount point", "name a folder inside it"),
    errno.ENOTDIR: ("part of the path is not a folder", "check the path"),
    errno.ENAMETOOLONG: ("the file name is too long", "use a shorter name"),
    errno.EIO: ("the device reported an input/output error", "check the disk"),
}
"""What goes wrong with disks and paths: the reason in plain words, and a hint."""


def explain_os_error(error: OSError) -> DeepferError | None:
    """The clear error for what goes wrong with disks and paths; None for anything else."""
    if error.errno not in OS_REASONS:
        return None
    reason, hint = OS_REASONS[error.errno]
    return DeepferError(f"{reason}: {error.filename}" if error.filename else reason, hint)


def os_reason(error: OSError) -> str:
    """Why, without the path, for whoever says the path already."""
    return OS_REASONS[error.errno][0] if error.errno in OS_REASONS else str(error)
