"""The one handler: errors become two lines and an exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from deepfer_yolo.cli import app as program
from deepfer_yolo.errors import ConfigError, DeepferError, ParityError, explain_import_error, install_line


def run_main(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def failing_app() -> None:
        raise error

    monkeypatch.setattr(program, "app", failing_app)
    monkeypatch.delenv("DEEPFER_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigError("the key is wrong", "try another"), 1, ["error: the key is wrong", "hint: try another"]),
        (ParityError("they differ"), 3, ["error: they differ"]),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, ["error: the disk is full: /data/x"]),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), 1, ["error: the file system is read-only: /data/x"]),
        (OSError(errno.EFBIG, "File too large", "/data/x"), 1, ["error: the file is larger than it may be: /data/x"]),
        (OSError(errno.EMFILE, "Too many open files", "/data/x"), 1, ["hint: raise the limit: ulimit -n 4096"]),
        (RuntimeError("Symlink loop from '/data/x'"), 1, ["error: a link leads back to itself: '/data/x'"]),
        (MemoryError(), 1, ["error: there is not enough memory"]),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            1,
            ["error: a library does not fit into memory: libtorch_cpu.so"],
        ),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            1,
            ["error: ", f"hint: {install_line('train')}"],
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file"),
            1,
            ["error: a system library is missing: libGL.so.1"],
        ),
    ],
)
def test_errors_become_lines_and_a_code(
    error: BaseException,
    code: int,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main(monkeypatch, error) == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    for line in lines:
        assert line in shown


def test_what_is_unexpected_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_app() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(program, "app", failing_app)
    with pytest.raises(ZeroDivisionError):
        program.main()
    assert explain_import_error(ModuleNotFoundError("No module named 'surprise'", name="surprise")) is None


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_app() -> None:
        raise DeepferError("broken")

    monkeypatch.setattr(program, "app", failing_app)
    monkeypatch.setenv("DEEPFER_DEBUG", "1")
    with pytest.raises(DeepferError):
        program.main()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["--help"], 0), ([], 2), (["nonsense"], 2), (["doctor", "--nonsense"], 2)],
)
def test_the_program_as_a_process(arguments: list[str], code: int) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "deepfer_yolo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert answer.returncode == code
    assert max((len(line) for line in (answer.stdout + answer.stderr).splitlines()), default=0) <= 80


def test_the_list_says_what_each_command_says_of_itself() -> None:
    group = program.typer.main.get_command(program.app)
    names = group.list_commands(None)  # type: ignore[attr-defined]
    said = {name: group.get_command(None, name).help for name in names}  # type: ignore[attr-defined]
    assert said == {name: program.load(name).help for name in names}


def test_what_a_start_has_imported_is_not_looked_through_again() -> None:
    code = (
        "import atexit, gc, sys\n"
        "from deepfer_yolo.__main__ import main\n"
        "atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 10_000))\n"
        "sys.argv = ['deepfer', 'models', 'list']\n"
        "import deepfer_yolo.cli.standard_files as files\n"
        "files.end_process = lambda ended: sys.exit(ended.code)\n"  # it would end before what is registered
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True True"
    code = (
        "import gc; from deepfer_yolo.cli.app import load; load('models'); print(gc.isenabled(), gc.get_freeze_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "0"]


def test_a_call_imports_the_module_of_its_command_alone() -> None:
    code = (
        "import sys, contextlib\n"
        "from deepfer_yolo.cli.app import app\n"
        "with contextlib.suppress(SystemExit):\n"
        "    app(['runs', 'list', '--help'])\n"
        "loaded = [name for name in sys.modules if name.startswith('deepfer_yolo.cli.')]\n"
        "assert 'deepfer_yolo.cli.runs' in loaded and 'deepfer_yolo.cli.train' not in loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("deepfer st", ["stream"]),
        ("deepfer train --epo", ["--epochs"]),
        ("deepfer stream --max-a", ["--max-age"]),
        ("deepfer runs s", ["show"]),
    ],
)
def test_the_shell_completes_commands_and_flags(words: str, answers: list[str]) -> None:
    asked = {"_DEEPFER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    code = "from deepfer_yolo.cli.app import app; app(prog_name='deepfer')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **asked}
    )
    assert done.stdout.split() == answers
