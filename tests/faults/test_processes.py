"""The process itself: full disks, closed folders, limits of the system, output that nobody reads, interrupts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

kind = pytest.mark.fault
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and devices of Linux")

INTERRUPTED = """
import importlib.abc, os, signal, sys
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *rest):
        if name == "numpy":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
from deepfer_yolo.__main__ import main
main()
"""


@kind("disk: full, standard output", "`predict … > /dev/full`", "one clear line")
def test_full_output(fault: Any, model: Path, face: Path) -> None:
    fault.see(shell=f"$DEEPFER predict faces -m {model.name} > /dev/full")


@kind("disk: full, convert", "a data set onto a disk of 300 kB", "one clear line; nothing of it stays")
def test_full_convert(fault: Any, full_disk: str) -> None:
    from deepfer_yolo.painted import paint_csv

    paint_csv(fault.folder / "faces.csv", 1, 210, 70)
    line = f"{full_disk} && ($DEEPFER convert faces.csv disk/data; code=$?; ls -A disk; exit $code)"
    assert fault.see(shell=f"unshare -m bash -c '{line}'", new=["disk"]).stdout == ""


@kind("disk: full, a run", "`evaluate` in a folder on a full disk", "one clear line; no run stays")
def test_full_run(fault: Any, full_disk: str, data: Path, model: Path) -> None:
    fill = "head -c 400000 /dev/zero > disk/fill 2> /dev/null; mkdir -p disk/x; cd disk/x"
    line = (
        f"{full_disk}; {fill}; $DEEPFER evaluate ../../data -m ../../model.onnx --name x; code=$?; ls runs; exit $code"
    )
    assert fault.see(shell=f"unshare -m bash -c '{line}'", new=["disk"]).stdout.count("metrics.json") == 0


@pytest.mark.slow
@kind(
    "disk: full, export --triton", "a model repository onto a disk of 300 kB", "the full disk is named; a rerun works"
)
def test_full_triton(fault: Any, full_disk: str, checkpoint: Path) -> None:
    for path in (checkpoint, checkpoint.with_suffix(".json")):
        shutil.copy(path, fault.folder / path.name)
    words = "$DEEPFER export best.pt --pictures 32 --out best.onnx --triton disk/repository"
    line = f"{full_disk} && head -c 290000 /dev/zero > disk/fill; {words}; code=$?; rm disk/fill; "
    line += f"umount disk && mount -t tmpfs none disk && {words} --overwrite > /dev/null 2>&1 || exit 99; exit $code"
    fault.see(shell=f"unshare -m bash -c '{line}'", new=["disk", "best.onnx"])


@pytest.mark.slow
@kind("disk: full, tune", "a search on a disk with 40 kB left", "one clear line")
def test_full_tune(fault: Any, full_disk: str, data: Path) -> None:
    fill = "mkdir disk/x; head -c 260000 /dev/zero > disk/fill; cd disk/x"
    line = f"{full_disk}; {fill}; $DEEPFER tune ../../data --trials 1 --name x"
    fault.see(shell=f"unshare -m bash -c '{line}'", new=["disk"])


@kind("folder: may not be written", "`convert` into a folder without the right to write", "one clear line")
def test_read_only_folder(fault: Any, table: Path, bound: list[str]) -> None:
    (fault.folder / "locked").mkdir(mode=0o555)
    fault.see("convert", table.name, "locked/out", prefix=bound)


@kind(
    "folder: may not be entered", "a closed sub-folder, `predict` on the whole", "named; the rest is answered; exit 4"
)
def test_closed_folder(fault: Any, model: Path, face: Path, bound: list[str]) -> None:
    if not os.access(fault.folder.parent, os.X_OK):
        pytest.skip("the folder of the tests is closed itself")
    (face.parent / "closed").mkdir()
    shutil.copy(face, face.parent / "closed" / "a.png")
    (face.parent / "closed").chmod(0)
    try:
        fault.see("predict", "faces", "-m", model.name, code=4, prefix=bound)
    finally:
        (face.parent / "closed").chmod(0o700)


@kind("limit: size of a file", "`ulimit -f 1`, `convert`", "one clear line; nothing of it stays")
def test_file_size_limit(fault: Any, table: Path) -> None:
    fault.see(shell="ulimit -f 1; $DEEPFER convert faces.csv out")


@kind("limit: address space", "`ulimit -v 400000`, `evaluate`", "one clear line")
def test_address_space(fault: Any, data: Path, model: Path) -> None:
    environ = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    fault.see(shell=f"ulimit -v 400000; $DEEPFER evaluate data -m {model.name}", environ=environ, says="memory")


@kind("output: stdout closed", "`predict … >&-`", "the work is done; exit 0")
def test_closed_stdout(fault: Any, model: Path, face: Path) -> None:
    fault.see(shell=f"$DEEPFER predict faces -m {model.name} >&-", code=0)


@kind("output: stderr closed", "`convert … 2>&-`", "the data set is made; exit 0")
def test_closed_stderr(fault: Any, table: Path) -> None:
    fault.see(shell="$DEEPFER convert faces.csv out 2>&-", code=0, new=["out"])


@kind("output: reader gone", "`predict …` into a program that has ended", "no traceback, and not exit 0")
def test_reader_gone(fault: Any, model: Path, face: Path) -> None:
    fault.see(shell=f"$DEEPFER predict faces -m {model.name} > >(exec 0<&-)")


@kind("output: Latin-1", "a terminal that knows no arrow", "the data set is made; the arrow is spelt out; exit 0")
def test_latin_output(fault: Any, table: Path) -> None:
    done = fault.see("convert", "faces.csv", "out", code=0, new=["out"], environ={"PYTHONIOENCODING": "latin-1"})
    assert "\\u2192" in done.stdout


@kind("interrupt: while it starts", "Ctrl-C while numpy is imported", "no traceback; exit 130; nothing of it stays")
def test_early_interrupt(fault: Any, table: Path) -> None:
    (fault.folder / "start.py").write_text(INTERRUPTED)
    fault.see(shell=f"{sys.executable} start.py convert faces.csv out", code=130)


@kind("memory: none left", "an allocation fails in the middle of `convert`", "one clear line; nothing of it stays")
def test_no_memory(fault: Any, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("deepfer_yolo.data.convert.encode_png", fail)
    fault.see("convert", "faces.csv", "out")
