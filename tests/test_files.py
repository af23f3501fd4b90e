"""Files and trees that a failure cannot leave half done."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deepfer_yolo import files
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.files import (
    STAGING_MARK,
    atomic_path,
    dead_parts,
    held,
    hold,
    is_held,
    locked,
    refuse_existing,
    restore_replaced,
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


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_into_the_destination_meanwhile_is_left_there(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "data"
    if overwrite:
        (target / "train").mkdir(parents=True)
        (target / "train" / "old").write_text("old")

    def fill_meanwhile() -> None:
        with staged_tree(target, overwrite=overwrite) as staging:
            (staging / "new").write_text("new")
            (target / "train").mkdir(parents=True, exist_ok=True)
            (target / "train" / "thesis.txt").write_text("years of work")

    with pytest.raises(DeepferError, match="not empty" if not overwrite else "'train/thesis.txt' came into"):
        fill_meanwhile()
    assert (target / "train" / "thesis.txt").read_text() == "years of work"
    assert (target / "train" / "old").exists() == overwrite
    assert leftovers(tmp_path) == []


def test_what_comes_in_at_the_last_moment_is_kept_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").write_text("old")
    exchange = files._exchange

    def fill_and_exchange(one: Path, two: Path) -> bool:
        (two / "thesis.txt").write_text("years of work")
        return exchange(one, two)

    monkeypatch.setattr(files, "_exchange", fill_and_exchange)
    with staged_tree(target, overwrite=True) as staging:
        (staging / "new").write_text("new")
    (kept,) = tmp_path.glob("data.replaced-*")
    assert (kept / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in target.iterdir()] == ["new"]
    assert str(kept) in caplog.text


def test_two_runs_never_write_one_destination(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with staged_tree(target) as first:
        (first / "a").write_text("1")
        with pytest.raises(DeepferError, match="another run is writing"), staged_tree(target):
            pass
        with staged_tree(tmp_path / "data 2") as other:
            (other / "b").write_text("2")
    assert (target / "a").read_text() == "1"
    assert (tmp_path / "data 2" / "b").read_text() == "2"


WATCH = """
import sys
from pathlib import Path
target = Path(sys.argv[1])
print("ready", flush=True)
missing = 0
while not (target / "last").exists():
    missing += not (target / "n").exists()
print(missing)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux exchanges folders in one step")
def test_overwrite_never_leaves_a_moment_without_a_tree(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with staged_tree(target) as staging:
        (staging / "n").write_text("0")
    watcher = [sys.executable, "-c", WATCH, str(target)]
    with subprocess.Popen(watcher, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in range(30):
            with staged_tree(target, overwrite=True) as staging:
                (staging / "n").write_text(str(number))
                if number == 29:
                    (staging / "last").touch()
        assert process.stdout.readline() == "0\n"


DIE = """
import os, signal, sys
from pathlib import Path
from deepfer_yolo import files
how, target = sys.argv[1], Path(sys.argv[2])
if how == "between":
    files._exchange = lambda one, two: False
    rename = Path.rename
    def die_at_the_second(self, to):
        if to == target:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, to)
    Path.rename = die_at_the_second
with files.staged_tree(target, overwrite=True) as staging:
    (staging / "n").write_text("new")
    if how == "inside":
        with files.atomic_path(target.parent / "model.onnx"):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def die(how: str, target: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", DIE, how, str(target)], check=False)
    assert killed.returncode == -9


def test_a_kill_between_two_renames_is_put_right_by_the_next_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "data"
    with staged_tree(target) as staging:
        (staging / "n").write_text("old")
    die("between", target)
    assert not target.exists()
    restore_replaced(target)
    assert (target / "n").read_text() == "old"
    assert str(target) in caplog.text


def test_what_a_killed_run_left_is_known_and_removed_by_the_next(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "living") as living:
        die("inside", tmp_path / "data")
        dead = [part for part in leftovers(tmp_path) if part != living]
        assert len(dead) == 2
        assert sorted(dead_parts(tmp_path)) == sorted(dead)
    files._swept.clear()
    write_atomic(tmp_path / "any.json", "1")
    assert leftovers(tmp_path) == []


def test_no_sweep_takes_a_part_that_is_being_written(tmp_path: Path) -> None:
    """Another run's first write, again and again, beside files and folders that are made and renamed meanwhile."""
    is_over = threading.Event()

    def sweep() -> None:
        while not is_over.is_set():
            files._swept.clear()
            files._sweep_once(tmp_path)
            any(is_held(part) for part in tmp_path.glob(f".*{STAGING_MARK}*"))

    others = [threading.Thread(target=sweep) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for number in range(150):
            write_atomic(tmp_path / "a.json", str(number))
            assert (tmp_path / "a.json").read_text() == str(number)
            with scratch_folder(tmp_path / "b") as folder:
                (folder / "c").write_text("1")
                assert (folder / "c").read_text() == "1"
    finally:
        is_over.set()
        for other in others:
            other.join()


def test_looking_at_a_lock_takes_it_from_nobody(tmp_path: Path) -> None:
    (tmp_path / "part").touch()
    with held(tmp_path / "part"):
        assert is_held(tmp_path / "part") is True
    handle = hold(tmp_path / "part", is_shared=True)  # in the middle of another's look
    assert handle is not None
    assert is_held(tmp_path / "part") is False
    looker = threading.Timer(0.1, os.close, (handle,))
    looker.start()
    with held(tmp_path / "part"):
        pass
    looker.join()
