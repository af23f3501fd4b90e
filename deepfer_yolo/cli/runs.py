"""Past runs: a list, one in full, or two compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfer_yolo.cli.options import JsonOption

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
    from deepfer_yolo.cli.output import print_json, stderr, stdout
    from deepfer_yolo.report.page import table
    from deepfer_yolo.runs import LIST_HEADER, find_runs, list_row, read_run

    found = [read_run(path) for path in find_runs(root) if command is None or path.parent.name == command]
    if as_json:
        print_json([{key: run[key] for key in ("name", "path", "config", "metrics", "problems")} for run in found])
    elif found:
        stdout().print(table(LIST_HEADER, [list_row(run) for run in found]))
    else:
        stderr().print(f"no runs in {root}")


@runs.command("show")
def show(run: _RUN, root: _ROOT = Path("runs"), as_json: JsonOption = False) -> None:
    """One run: how it was made, its configuration and its figures.

    Example: deepfer runs show train/fer2013-n
    """
    from deepfer_yolo.cli.output import print_json, stderr, stdout
    from deepfer_yolo.report.page import table
    from deepfer_yolo.runs import find_run, flatten, read_run, show_value

    content = read_run(find_run(run, root))
    if as_json:
        print_json(content)
        return
    for section in ("environment", "config", "metrics"):
        rows = [
            [key, show_value(value)] for key, value in flatten(content[section]).items() if not isinstance(value, list)
        ]
        if rows:
            stdout().print(table((section, "value"), rows))
    for problem in content["problems"]:
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
    from deepfer_yolo.cli.output import print_json, stdout
    from deepfer_yolo.report.page import table
    from deepfer_yolo.runs import change, diff_runs, find_run, show_value

    paths = [find_run(name, root) for name in (first, second)]
    sections = diff_runs(*paths)
    if as_json:
        print_json({section: {key: [a, b] for key, a, b in rows} for section, rows in sections.items()})
        return
    names = [path.name if paths[0].name != paths[1].name else path.parent.name for path in paths]
    for section, rows in sections.items():
        both = [
            [key, show_value(a), show_value(b), change(a, b)] for key, a, b in rows if a is not None and b is not None
        ]
        if both:
            stdout().print(table((section, *names, "change"), both))
        for side, name in enumerate(names):
            alone = [row[0] for row in rows if row[2 - side] is None]
            if alone:
                more = f" and {len(alone) - 6} more" if len(alone) > 6 else ""
                stdout().print(f"{section} only of {name}: {', '.join(alone[:6])}{more}", markup=False)
    if not any(sections.values()):
        stdout().print("no difference")
