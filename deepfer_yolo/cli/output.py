"""Printing: results to stdout, progress and chatter to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from deepfer_yolo.records import JsonValue


def stdout() -> Console:
    """The console for results; 80 columns wide where the terminal does not say."""
    return Console(highlight=False)


def stderr() -> Console:
    """The console for progress and chatter."""
    return Console(stderr=True, highlight=False)


def print_json(result: JsonValue) -> None:
    """One JSON document on stdout."""
    json.dump(result, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


def progress() -> Progress:
    """A progress bar on stderr; silent where stderr is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr(), transient=True, disable=not sys.stderr.isatty())


def tracked(bar: Progress, name: str) -> Callable[[int, int], None]:
    """A new line of `bar`; what it is called with is (done, in all)."""
    task = bar.add_task(name, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


def say_all(lines: Iterable[str]) -> None:
    """Each line to stderr as it is."""
    for line in lines:
        stderr().print(line, markup=False, soft_wrap=True)
