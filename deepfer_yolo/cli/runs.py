"""Past runs: a list, one in full, or two compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption

if TYPE_CHECKING:
    from deepfer_yolo.records import JsonValue

LONGEST = 40
_ROOT = Annotated[Path, typer.Option(help="The folder of runs.")]
_RUN = Annotated[str, typer.Argument(help="A run: NAME, COMMAND/NAME or a path.", show_default=False)]

runs = typer.Typer(name="runs", no_args_is_help=True, add_completion=False, help=__doc__)


@runs.command("list")
def list_runs(
    command: Annotated[
        str | None, typer.Option(help="Only runs of this command, such as train.", show_default="all")
    ] = None,
    root: _ROOT = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """All runs, oldest first, with their headline figures.

    Example: deepfer runs list --command train
    """
    from deepfer_yolo.cli.options import print_json, say_all, stderr, stdout
    from deepfer_yolo.report.page import table
    from deepfer_yolo.runs import LIST_HEADER, list_row, read_runs

    found = [run for run in read_runs(root) if command is None or run.path.parent.name == command]
    if as_json:
        shown = ("name", "path", "state", "config", "metrics", "problems")
        print_json([{key: run.to_json()[key] for key in shown} for run in found])
    elif found:
        stdout().print(table(LIST_HEADER, [list_row(run) for run in found]))
        say_all(f"{run.name}: {problem}" for run in found for problem in run.problems)
    else:
        stderr().print(f"no runs in {root}")


@runs.command("show")
def show(run: _RUN, root: _ROOT = Path("runs"), as_json: JsonOption = False) -> None:
    """One run: how it was made, its configuration and its figures.

    Example: deepfer runs show train/fer2013-n
    """
    from deepfer_yolo.cli.options import print_json, stderr, stdout
    from deepfer_yolo.report.page import table
    from deepfer_yolo.runs import find_run, flatten

    found = find_run(run, root)
    if as_json:
        print_json(found.to_json())
        return
    for section in ("environment", "config", "metrics"):
        values = flatten(getattr(found, section))
        rows = [[key, _short(value)] for key, value in values.items() if not isinstance(value, list)]
        if rows:
            stdout().print(table((section, "value"), rows))
    for problem in found.problems:
        stderr().print(problem)


@runs.command("diff")
def diff(
    first: _RUN,
    second: Annotated[str, typer.Argument(help="The run to compare it with.", show_default=False)],
    root: _ROOT = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """What differs between two runs: configuration, environment and figures.

    Example: deepfer runs diff train/a train/b
    """
    from deepfer_yolo.cli.options import print_json, stdout
    from deepfer_yolo.report.page import table
    from deepfer_yolo.runs import diff_runs, find_run

    found = [find_run(name, root) for name in (first, second)]
    sections = diff_runs(*found)
    if as_json:
        print_json({section: {key: [a, b] for key, a, b in changes} for section, changes in sections.items()})
        return
    paths = [run.path for run in found]
    names = [path.name if paths[0].name != paths[1].name else path.parent.name for path in paths]
    for section, changes in sections.items():
        both = [[key, _short(a), _short(b), _change(a, b)] for key, a, b in changes if a is not None and b is not None]
        if both:
            stdout().print(table((section, *names, "change"), both))
        only = ([key for key, _, b in changes if b is None], [key for key, a, _ in changes if a is None])
        for name, alone in zip(names, only, strict=True):
            if alone:
                more = f" and {len(alone) - 6} more" if len(alone) > 6 else ""
                stdout().print(f"{section} only of {name}: {', '.join(alone[:6])}{more}", markup=False)
    if not any(sections.values()):
        stdout().print("no difference")


def _short(value: JsonValue) -> str:
    """A value in a table: short floats, a dash for none, the beginning of what is long."""
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _change(a: JsonValue, b: JsonValue) -> str:
    """The signed change of a number; empty for anything else."""
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, int | float) and isinstance(b, int | float)):
        return ""
    return f"{b - a:+.4g}"
