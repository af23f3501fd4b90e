"""The process around a command: stdin, stdout and stderr that may be closed at any time, and an end without a crash."""

from __future__ import annotations

import atexit
import io
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def open_standard_files() -> None:
    """Open what is closed of stdin, stdout and stderr onto nothing, and let stderr outlive its reader.

    The next file that is opened would take the place of a closed one, and receive what libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _lead_nowhere(number)
            opened = os.fdopen(number, "r" if number == 0 else "w", closefd=False)
            setattr(sys, name, opened)
            setattr(sys, f"__{name}__", opened)
    stdout, stderr = sys.stdout, sys.stderr
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors == "strict":
        stdout.reconfigure(errors="backslashreplace")  # an arrow that Latin-1 has not must not fail what is done
    if isinstance(stderr, io.TextIOWrapper) and stderr is sys.__stderr__:
        sys.stderr = Chatter(stderr.buffer, stderr.encoding, stderr.errors, line_buffering=True, write_through=True)


class Chatter(io.TextIOWrapper):
    """Stderr: what nobody reads any more goes nowhere, and never stops the work."""

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        try:
            return super().write(text)
        except OSError:
            _lead_nowhere(self.fileno())
            return len(text)

    def flush(self) -> None:
        """Write what waits, or drop it."""
        try:
            super().flush()
        except OSError:
            _lead_nowhere(self.fileno())


def _lead_nowhere(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
    os.set_inheritable(number, True)


def end_process(ended: SystemExit) -> NoReturn:
    """End the process as the interpreter does; where a daemon thread is left, without taking the interpreter apart.

    A thread in native code that comes back to an interpreter which is gone is ended by force, and with it, by
    `terminate called without an active exception`, the process.
    """
    for number, file in ((1, sys.stdout), (2, sys.stderr)):
        try:
            file.flush()
        except (OSError, ValueError):  # the interpreter would try again, complain, and exit with 120
            _lead_nowhere(number)
    if not any(thread.daemon for thread in threading.enumerate()):
        raise ended
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            file.flush()
    os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
