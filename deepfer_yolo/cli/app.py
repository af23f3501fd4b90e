"""The `deepfer` program: its commands, and the one handler that turns errors into two lines and an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer

from deepfer_yolo.errors import DeepferError, explain_import_error

COMMANDS = {
    "Start here": ("demo", "doctor"),
    "Data": ("convert", "audit"),
    "Train": ("train", "tune"),
    "Measure": ("evaluate", "gate", "compare", "runs"),
    "Models": ("export", "verify", "parity", "benchmark", "card", "predict", "models"),
    "Watch": ("stream", "serve"),
}
"""Panels of the help page, and the modules of `deepfer_yolo.cli` that hold one command each."""

app = typer.Typer(
    name="deepfer",
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


for panel, names in COMMANDS.items():
    for name in names:
        module = importlib.import_module(f"deepfer_yolo.cli.{name}")
        command = getattr(module, name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)


def main() -> NoReturn:
    """Run the program and exit; the console script."""
    signal.signal(signal.SIGTERM, _on_sigterm)
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


def end_where_signalled() -> None:
    """Exit where a signal came before; a library that was being imported then may have swallowed the exit that it asked
    for.
    """
    if _signals:
        sys.exit(128 + _signals[0])
