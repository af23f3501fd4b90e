"""Files and folders that no kill leaves half done or locked: written beside their final name, then renamed once."""

from __future__ import annotations

import errno
import glob
import hashlib
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path

from deepfer_yolo.errors import DeepferError

LOG = logging.getLogger("deepfer.files")

STAGING_MARK = ".deepfer-part-"
"""Part of the name of every unfinished file and folder. What a killed run left is removed by the next that writes into
the same folder on the same machine."""
REPLACED_MARK = ".deepfer-old-"
"""Part of the name of a tree that is being replaced where the system cannot exchange two folders in one step."""
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:4]
"""Begins the number in a part's name: locks of other machines cannot be trusted on every shared disk."""
MOMENT_S = 1.0
"""How long whoever takes a lock waits for those that only look whether it is held."""
_swept: set[Path] = set()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; synced and renamed to `path` on success, removed on failure.

    The temporary name keeps the suffix, since writers choose their format by it.
    """
    part = _beside(path)
    with _blaming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        with _new_part(path, lambda part: part.touch(exist_ok=False)) as part:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            sync_folder(path.parent)


@contextmanager
def _new_part(beside: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make an unfinished file or folder beside a path, hold it, and remove what is left of it at the end."""
    handle = None
    while True:
        part = _beside(beside)
        make(part)
        with suppress(BlockingIOError, FileNotFoundError):  # another run took it for a dead one before it was held
            handle = hold(part)
            if part.exists():
                break
            _close(handle)
        _remove(part)
    try:
        yield part
    finally:
        _remove(part)
        _close(handle)


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _beside(path: Path, mark: str = STAGING_MARK) -> Path:
    """A new name in the folder of `path` for what is unfinished."""
    return path.parent / f".{path.stem}{mark}{HOST}{os.urandom(4).hex()}{path.suffix}"


def _parts_of(path: Path, mark: str = STAGING_MARK) -> list[Path]:
    """What stands beside `path` under such names."""
    return list(path.parent.glob(f".{glob.escape(path.stem)}{mark}{'?' * 12}{glob.escape(path.suffix)}"))


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole small file so that a kill leaves the old content or the new."""
    with atomic_path(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield an empty folder beside a path, closed to other users; what is still in it at the end is removed."""
    with ExitStack() as stack:
        with _blaming(beside):
            beside.parent.mkdir(parents=True, exist_ok=True)
            _sweep_once(beside.parent)
            folder = stack.enter_context(_new_part(beside, lambda part: part.mkdir(mode=0o700)))
        yield folder


@contextmanager
def held(part: Path, *, wait_s: float = MOMENT_S) -> Iterator[None]:
    """Hold a file's or folder's own lock, which tells others that this process lives, also after it was renamed."""
    handle = hold(part, wait_s=wait_s)
    try:
        yield
    finally:
        _close(handle)


def hold(part: Path, *, wait_s: float = 0.0, is_shared: bool = False) -> int | None:
    """The handle that holds the lock of a file or folder until it is closed, or the process ends; None where the system
    has no such locks (Windows, some network disks).

    Raises BlockingIOError where another still holds it after `wait_s`.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(part, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    deadline = time.monotonic() + wait_s
    while (is_ours := lock_handle(handle, is_shared=is_shared)) is False and time.monotonic() < deadline:
        time.sleep(0.01)
    if is_ours:
        return handle
    os.close(handle)
    if is_ours is None:
        return None
    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(part))


def lock_handle(handle: int, *, is_shared: bool = False) -> bool | None:
    """Lock an open file or folder until it is closed; False where another process holds it, None where the system has
    no such locks.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_held(part: Path) -> bool | None:
    """Whether a living process holds `part`; None where that cannot be known."""
    try:
        handle = hold(part, is_shared=True)  # of two that look at once, neither sees the other
    except BlockingIOError:
        return True
    except OSError:  # gone, or not ours to open
        return None
    _close(handle)
    return None if handle is None else False


def dead_parts(folder: Path) -> list[Path]:
    """Unfinished files and folders in `folder` that killed runs of this machine left behind."""
    return [path for path in folder.glob(f".*{STAGING_MARK}{HOST}*") if is_held(path) is False]


def _sweep_once(folder: Path) -> None:
    """Remove the dead parts in `folder`, the first time that this process writes into it."""
    folder = folder.absolute()
    if folder in _swept:
        return
    _swept.add(folder)
    for part in dead_parts(folder):
        with suppress(OSError):
            handle = hold(part)
            if handle is not None:
                _remove(part)
                os.close(handle)


@contextmanager
def staged_tree(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty sibling folder to fill; on success it is synced and takes the place of `target` in one step, on
    failure it is removed.

    The destination is judged at the start and again at the end: what came into it meanwhile is never removed. Raises
    DeepferError where `target` is not empty and `overwrite` was not given, where another run is writing it, or where
    something came into it meanwhile.
    """
    restore_replaced(target)
    refuse_existing(target, overwrite=overwrite)
    if target.resolve() == Path.cwd():
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(target))
    if any(is_held(part) for part in _parts_of(target)):
        raise DeepferError(f"another run is writing this destination: {target}", "wait for it, or name another one")
    judged = _names_in(target)
    with scratch_folder(target) as scratch, _blaming(target):
        staging = scratch / "tree"
        staging.mkdir()
        yield staging
        os.sync()
        refuse_existing(target, overwrite=overwrite)
        new = _names_in(target) - judged
        if new:
            reason = f"'{min(new)}' came into the destination meanwhile; it was left as it is: {target}"
            raise DeepferError(reason, "name another destination, or empty this one")
        _replace_tree(staging, target, judged)
        sync_folder(target.parent)


def _replace_tree(staging: Path, target: Path, judged: set[str]) -> None:
    """Put `staging` where `target` is. The old tree is then removed, unless it holds what was not `judged`."""
    if not judged:
        try:
            staging.rename(target)  # the system refuses where it is not empty
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            refuse_existing(target, overwrite=False)
            raise
        return
    old = staging
    if not _exchange(staging, target):
        old = _beside(target, REPLACED_MARK)
        with held(target):
            target.rename(old)
            staging.rename(target)
    if _names_in(old) - judged:
        kept = target.parent / f"{target.name}.replaced-{os.urandom(4).hex()}"
        old.rename(kept)
        LOG.warning("warning: something came into %s while it was replaced; the old one is kept as %s", target, kept)
    else:
        shutil.rmtree(old)


def _names_in(folder: Path) -> set[str]:
    """The paths of all that is in a folder, relative to it; none where there is no folder."""
    walked = ((Path(at).relative_to(folder), kinds) for at, *kinds in os.walk(folder))
    return {(inside / name).as_posix() for inside, kinds in walked for name in chain(*kinds)}


def _exchange(one: Path, two: Path) -> bool:
    """Exchange two paths of one file system in one step; False where the system or the file system cannot.

    renameat2(2) of Linux with RENAME_EXCHANGE; Python has no call for it.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(two), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(two))


def restore_replaced(target: Path) -> None:
    """Put back the tree that a run was replacing when it was killed between its two steps, where there were two."""
    if target.exists() or target.is_symlink() or not target.parent.is_dir():
        return
    for old in _parts_of(target, REPLACED_MARK):
        if not is_held(old):
            old.rename(target)
            LOG.warning("warning: a run was killed while it replaced %s; the old one is back in its place", target)
            return


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Let errors of the disk name `path`, where they name nothing or the part beside it."""
    try:
        yield
    except OSError as error:
        named = _blamed(error)
        if error.errno is None or (named is not None and STAGING_MARK not in str(named)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _blamed(error: OSError) -> str | bytes | int | None:
    """The path that an error of the disk is about: of a copy from one disk to another, the one that is full."""
    is_written = error.filename2 is not None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    found: str | bytes | int | None = error.filename2 if is_written else error.filename
    return found


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
    errno.ENOMEM: ("there is not enough memory", "free some memory, or raise the limit (ulimit -v)"),
    errno.EMFILE: ("too many files are open", "raise the limit: ulimit -n 4096"),
    errno.EFBIG: ("the file is larger than it may be", "raise the limit (ulimit -f), then run the same command again"),
    errno.ELOOP: ("a link leads back to itself", "check the path"),
    errno.EISDIR: ("this is a folder, not a file", "name a file"),
    errno.EEXIST: ("a file stands where a folder is needed", "name another path"),
    errno.EBUSY: ("this is the current folder or a mount point", "name a folder inside it"),
    errno.ENOTDIR: ("part of the path is not a folder", "check the path"),
    errno.ENAMETOOLONG: ("the file name is too long", "use a shorter name"),
    errno.ENOLCK: ("this disk has no file locks", "name a folder on another disk"),
    errno.EOPNOTSUPP: ("this disk cannot do that, file locks among them", "name a folder on another disk"),
    errno.EIO: ("the device reported an input/output error", "check the disk"),
}
"""What goes wrong with disks and paths: the reason in plain words, and a hint."""


def explain_os_error(error: OSError) -> DeepferError | None:
    """The clear error for what goes wrong with disks and paths; None for anything else."""
    if error.errno not in OS_REASONS:
        return None
    reason, hint = OS_REASONS[error.errno]
    named = _blamed(error)
    return DeepferError(f"{reason}: {named!s}" if named else reason, hint)


def os_reason(error: OSError) -> str:
    """Why, without the path, for whoever says the path already."""
    return OS_REASONS[error.errno][0] if error.errno in OS_REASONS else str(error)
