"""The campaign of faults: each test does one kind of harm, and what is seen stands in docs/reliability.md.

    DEEPFER_UPDATE_RELIABILITY=1 python -m pytest tests/faults -m "slow or not slow"

writes the tables anew; without it a test fails where what it sees is not what the table says.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deepfer_yolo.files import STAGING_MARK, locked, write_atomic

ROOT = Path(__file__).resolve().parent.parent.parent
RIGHTS = "-dac_override,-dac_read_search"
PAGE = ROOT / "docs" / "reliability.md"
UPDATE = os.environ.get("DEEPFER_UPDATE_RELIABILITY") == "1"


def listing(folder: Path) -> dict[str, str]:
    """All that is in a folder: files by their SHA-256, everything else by its kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        kind = f"{stat.S_IFMT(mode):o}" + (str(path.readlink()) if stat.S_ISLNK(mode) else "")
        is_open = stat.S_ISREG(mode) and os.access(path, os.R_OK)
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest() if is_open else kind
    return found


def table_of(text: str, name: str) -> tuple[str, dict[str, tuple[str, ...]], str]:
    """What stands before a table of the page, its rows by their first cell, and what stands behind it."""
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    table, _, behind = rest.partition(f"<!-- end of {name} -->")
    rows = [re.split(r" (?<!\\)\| ", line[2:-2]) for line in table.splitlines()[2:]]
    return before, {row[0]: tuple(row[1:]) for row in rows}, behind


def write_row(name: str, key: str, cells: Sequence[str], header: Sequence[str]) -> None:
    """Write one row into a table of the page; rows are sorted."""
    with locked(Path(tempfile.gettempdir()) / "deepfer-reliability.lock"):
        before, rows, behind = table_of(PAGE.read_text(encoding="utf-8"), name)
        rows[key] = tuple(cells)
        lines = [header, ["---"] * len(header), *([key, *rows[key]] for key in sorted(rows))]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        write_atomic(PAGE, f"{before}<!-- {name} -->\n{table}<!-- end of {name} -->{behind}")


@dataclass(slots=True)
class Fault:
    """One kind of fault, done in `folder`, which is the working directory; the marker of its test declares it."""

    kind: str
    done: str
    expected: str
    folder: Path
    run: Callable[..., Any]

    def see(self, *words: object, code: int = 1, new: Sequence[str] = (), says: str = "", **how: Any) -> Any:
        """Run `deepfer` on the words, in a child process where one of `how` is said, and record what is seen.

        Whatever was in the folder must be there still, and of new names at its top only `new`. Where what is said
        differs from machine to machine, only that it `says` something is recorded.
        """
        before = listing(self.folder)
        ended = self.child(*words, **how) if how else self.run(*words)
        assert ended.returncode == code, ended.stderr
        lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        first = next((line for line in lines if line.startswith("error:")), lines[0] if lines else "no word")
        if first.endswith(":") and first != lines[-1]:
            first += f" {lines[lines.index(first) + 1]}"
        if says:
            assert says in ended.stdout + ended.stderr
            first = f"… {says} …"
        assert "Traceback" not in ended.stdout + ended.stderr
        self.note(f"exit {code}, `{self.shown(first)}`", before, new)
        return ended

    def child(
        self, *words: object, prefix: Sequence[str] = (), shell: str = "", environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`deepfer` as a process, behind the words of `prefix`, or as `$DEEPFER` in a line of the shell."""
        program = [sys.executable, "-m", "deepfer_yolo"]
        command = ["bash", "-c", shell] if shell else [*prefix, *program, *map(str, words)]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "DEEPFER": " ".join(program), "PYTHONPATH": str(ROOT), **(environ or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=300,
        )

    def shown(self, text: str) -> str:
        """A line for the table: paths, addresses and hashes are the same everywhere."""
        text = text.replace(f"{self.folder}/", "").replace(str(self.folder), ".")
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
        text = re.sub(r"\b[0-9a-f]{12}\b", "0123456789ab", text).replace("|", "\\|").replace("`", "'")
        return text if len(text) <= 200 else f"{text[:199]}…"

    def note(self, seen: str, before: dict[str, str], new: Sequence[str] = ()) -> None:
        """Hold what is left of `before` against it, and what was `seen` against the table, or write it there."""
        after = listing(self.folder)
        assert {name: after.get(name) for name in before} == before, "something is lost"
        tops = {name.partition("/")[0] for name in after if name not in before} - set(new)
        assert tops - {name.partition("/")[0] for name in before} == set(), "something half done is left"
        assert not [name for name in after if STAGING_MARK in name and name not in before]
        row = (self.done, self.expected, f"{seen}; nothing lost")
        if UPDATE:
            write_row("faults", self.kind, row, ("kind", "what is done", "expected", "seen"))
        assert table_of(PAGE.read_text(encoding="utf-8"), "faults")[1].get(self.kind) == row, (
            "not what docs/reliability.md says; DEEPFER_UPDATE_RELIABILITY=1 writes it anew"
        )


@pytest.fixture
def fault(
    request: pytest.FixtureRequest, tmp_path: Path, deepfer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Fault:
    """The fault that the test's marker declares, in an empty folder; the test must record what it sees."""
    # A power failure is no part of these tests, and a busy disk takes seconds for each of hundreds.
    monkeypatch.setattr("os.sync", lambda: None)
    monkeypatch.setattr("os.fsync", lambda _: None)
    declared = request.node.get_closest_marker("fault")
    what, done, expected = declared.args
    return Fault(what, done, expected, tmp_path, deepfer)


@pytest.fixture
def bound(tmp_path: Path) -> list[str]:
    """What takes root's right to read and write all from a child process; nothing where this is not root."""
    if os.geteuid():
        return []
    words = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"]
    (tmp_path / "closed").mkdir(mode=0)
    if (
        shutil.which("setpriv") is None
        or not subprocess.run([*words, "ls", tmp_path / "closed"], check=False).returncode
    ):
        pytest.skip("this is root, and nothing here takes root's rights from a child process")
    (tmp_path / "closed").rmdir()
    return words


@pytest.fixture
def full_disk(tmp_path: Path) -> str:
    """A line of the shell that mounts a disk of 300 kB at `disk`, for it and its children alone."""
    line = "mkdir -p disk && mount -t tmpfs -o size=300k none disk"
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-m", "bash", "-c", line], cwd=tmp_path, capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no file system may be mounted here")
    shutil.rmtree(tmp_path / "disk")
    return line


@pytest.fixture
def put_row() -> Callable[..., None]:
    """`write_row`, for what is no `fault`."""
    return write_row


@pytest.fixture(scope="session")
def mutations() -> ModuleType:
    """The module `mutations.py` beside this one."""
    spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutations"] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from deepfer_yolo.config import ConvertConfig
    from deepfer_yolo.data.convert import convert
    from deepfer_yolo.painted import paint_csv

    folder = tmp_path_factory.mktemp("small")
    paint_csv(folder / "faces.csv", seed=3, n_train=14, n_val=14)
    convert(folder / "faces.csv", folder / "data", ConvertConfig())
    return folder


@pytest.fixture
def table(_small: Path, tmp_path: Path) -> Path:
    """`faces.csv` in the folder: 28 painted faces in FER2013's form."""
    path = tmp_path / "faces.csv"
    path.write_bytes((_small / "faces.csv").read_bytes())
    return path


@pytest.fixture
def data(_small: Path, tmp_path: Path) -> Path:
    """`data` in the folder: the data set of `table`, 14 images in train and in val."""
    for path in (path for path in (_small / "data").rglob("*") if path.is_file()):
        target = tmp_path / "data" / path.relative_to(_small / "data")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "data"


@pytest.fixture
def model(linear_model: Path, tmp_path: Path) -> Path:
    """`model.onnx` in the folder, which knows the labels of `data`."""
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model.read_bytes())
    return path


@pytest.fixture
def face(data: Path, tmp_path: Path) -> Path:
    """`faces/face.png` in the folder: one face."""
    path = tmp_path / "faces" / "face.png"
    path.parent.mkdir()
    path.write_bytes(next((data / "val").rglob("*.png")).read_bytes())
    return path
