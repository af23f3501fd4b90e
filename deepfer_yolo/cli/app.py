"""The `deepfer` program: its commands, each imported when it is called, and the one handler that turns errors into two
lines and an exit code.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import inspect
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Annotated, Any, NoReturn

import typer
import typer.main
from typer.core import TyperGroup

from deepfer_yolo.errors import DeepferError, explain_import_error

COMMANDS = {
    "Start here": ("demo", "doctor"),
    "Data": ("convert", "audit", "review"),
    "Train": ("train", "tune"),
    "Measure": ("evaluate", "gate", "compare", "runs"),
    "Models": ("export", "verify", "parity", "benchmark", "card", "predict", "models"),
    "Watch": ("stream", "serve"),
}
"""Panels of the help page, and the modules of `deepfer_yolo.cli` that hold one command each."""


class Commands(TyperGroup):
    """The commands as their list shows them; the one that is called takes the place of its entry."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The entry of a command, with what the command says of itself: the list of them asks for all, a start for
        one.
        """
        entry = super().get_command(ctx, cmd_name)
        if entry is not None:
            entry.help = _filled(_docstring(cmd_name))
        return entry

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that `args` begin with, imported, and what follows it."""
        name, entry, rest = super().resolve_command(ctx, args)
        return name, entry and load(str(entry.name)), rest


app = typer.Typer(
    name="deepfer",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, prove, export and stream YOLO classifiers of apparent facial expression.",
    epilog="Try: deepfer demo",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from deepfer_yolo import __version__

        typer.echo(f"deepfer {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that stand before the command."""
    if debug:
        os.environ["DEEPFER_DEBUG"] = "1"


def load(name: str) -> Any:
    """A command, or a group of them, from its module."""
    found = getattr(importlib.import_module(f"deepfer_yolo.cli.{name}"), name)
    if not gc.isenabled():  # as `__main__` has left it; a program that calls this one keeps its own way
        gc.freeze()
        gc.enable()
    group = found if isinstance(found, typer.Typer) else typer.Typer(add_completion=False)
    if group is not found:
        group.command(name)(found)
    for command in group.registered_commands:
        command.help = _filled(command.callback.__doc__ or "")
    return typer.main.get_command(group)


def _filled(docstring: str) -> str:
    """A docstring with each paragraph on one line, for the terminal to wrap; Typer would keep the line breaks."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(part if part.startswith("Example") else " ".join(part.split()) for part in paragraphs)


def _docstring(name: str) -> str:
    """What a command's function, or else its module, says of itself, read from the compiled file without running it."""
    spec = importlib.util.find_spec(f"deepfer_yolo.cli.{name}")
    module = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    codes = {part.co_name: part for part in module.co_consts if isinstance(part, CodeType)}
    text = codes.get(name, module).co_consts[0]
    return text if isinstance(text, str) else ""


def _entry() -> None:
    """Stand in the list for a command that is not imported yet."""


for panel, names in COMMANDS.items():
    for name in names:
        app.command(name, rich_help_panel=panel)(_entry)


def main() -> NoReturn:
    """The program as a process of its own: the command, then the end of the process; the console script."""
    from deepfer_yolo.cli.standard_files import end_process, open_standard_files

    open_standard_files()
    try:
        run()
    except SystemExit as ended:
        end_process(ended)


def run() -> NoReturn:
    """Run the command that the arguments name; its end is a SystemExit with the exit code."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        app()
    except DeepferError as error:
        _fail(error, error)
    except ImportError as error:
        missing = explain_import_error(error)
        if missing is None:
            raise
        _fail(missing, error)
    except OSError as error:
        from deepfer_yolo.files import explain_os_error

        explained = explain_os_error(error)
        if explained is None:
            raise
        _fail(explained, error)
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # pathlib's, up to Python 3.12
            raise
        _fail(DeepferError(f"a link leads back to itself: {str(error).split('from ')[-1]}", "check the path"), error)
    except MemoryError as error:
        from deepfer_yolo.errors import MEMORY_HINT

        _fail(DeepferError("there is not enough memory", MEMORY_HINT), error)
    sys.exit(0)


def _fail(shown: DeepferError, cause: BaseException) -> NoReturn:
    if os.environ.get("DEEPFER_DEBUG"):
        raise cause
    print(f"error: {shown.message}", file=sys.stderr)
    if shown.hint:
        print(f"hint: {shown.hint}", file=sys.stderr)
    sys.exit(shown.exit_code)


_signals: list[int] = []


def _on_sigterm(signum: int, frame: Any) -> NoReturn:
    _signals.append(signum)
    sys.exit(128 + signum)


@contextmanager
def signals_noted() -> Iterator[None]:
    """Note SIGINT and SIGTERM in the body, which asks by `end_where_signalled`: raised anywhere, they would also
    interrupt what closes files. A second SIGINT is raised all the same.
    """

    def note(signum: int, frame: Any) -> None:
        _signals.append(signum)
        if _signals.count(signal.SIGINT) > 1:
            sys.exit(128 + signum)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_where_signalled() -> None:
    """Exit where a signal came before; a library that was being imported then may have swallowed the exit that it asked
    for.
    """
    if _signals:
        sys.exit(128 + _signals[0])
