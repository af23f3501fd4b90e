"""Files and trees that a failure cannot leave half done."""

from __future__ import annotations

import errno
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deepfer_yolo.errors import DeepferError
from deepfer_yolo.files import (
    STAGING_MARK,
    atomic_path,
    locked,
    refuse_existing,
    scratch_folder,
    sha256_of,
    staged_tree,
    write_atomic,
)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if STAGING_MARK in path.name]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def fail_half_way() -> None:
        with atomic_path(path) as part:
            part.write_text("half")
            raise OSError("interrupted")

    with pytest.raises(OSError, match="interrupted"):
        fail_half_way()
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_new_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    write_atomic(tmp_path / "ours", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert sha256_of(tmp_path / "ours") == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_a_tree_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "data"

    def fail_half_way() -> None:
        with staged_tree(target) as staging:
            (staging / "a").write_text("1")
            assert not target.exists()
            raise OSError("interrupted")

    with pytest.raises(OSError, match="interrupted"):
        fail_half_way()
    assert not target.exists()
    assert leftovers(tmp_path) == []
    with staged_tree(target) as staging:
        (staging / "a").write_text("1")
    assert (target / "a").read_text() == "1"


def test_a_scratch_folder_is_closed_to_others_and_goes(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new" / "set.zip") as folder:
        (folder / "a").write_text("1")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.parent == tmp_path / "new"
    assert leftovers(tmp_path) == []


def test_overwrite_replaces_the_whole_tree_and_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(DeepferError, match="not empty") as refusal, staged_tree(target):
        pass
    assert "--overwrite" in str(refusal.value.hint)
    with staged_tree(target, overwrite=True) as staging:
        (staging / "new").write_text("new")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_or_a_link_is_no_destination(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(DeepferError, match="not a folder"):
            refuse_existing(tmp_path / name, overwrite=True)


def test_errors_of_the_disk_name_the_file_that_was_wanted(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        with atomic_path(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as full:
        fill(tmp_path / "a.json")
    assert full.value.filename == str(tmp_path / "a.json")
    with pytest.raises(OSError, match="No space") as full, staged_tree(tmp_path / "data"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "data")


HOLD = """
import sys, time
from pathlib import Path
from deepfer_yolo.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_goes_with_a_killed_process(tmp_path: Path) -> None:
    lock, busy = tmp_path / "new folder" / ".lock", DeepferError("it is held")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DeepferError, match="it is held"), locked(lock, busy):
            pass
        holder.kill()
        with locked(lock, busy, wait_s=30):
            pass
    with locked(lock):
        pass
