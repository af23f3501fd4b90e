"""`deepfer audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import ConfigOption, JsonOption
from deepfer_yolo.errors import EXIT_GATE_FAILED

if TYPE_CHECKING:
    from deepfer_yolo.data.audit import Audit

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def audit(
    dataset: Annotated[Path, typer.Argument(help="A data set folder, or any source that convert reads.", show_default=False)],
    fail_on: Annotated[
        str | None, typer.Option("--fail-on", help="The least severity that fails: error, warning or never.", show_default="error")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Threads that decode.", show_default="2")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Look at every picture: broken, blank, duplicate, leaking, conflicting, missing; exits 3 where the gate fails.

    Example: deepfer audit datasets/fer2013
    """
    from deepfer_yolo.cli.output import print_json, progress
    from deepfer_yolo.config import AuditConfig, resolve
    from deepfer_yolo.data.audit import audit as run

    settings = resolve(AuditConfig, config, {"fail_on": fail_on, "workers": workers})
    with progress() as bar:
        task = bar.add_task("looking", total=None)
        result = run(dataset, settings, progress=lambda part: bar.update(task, total=100, completed=int(part * 100)))
    if json:
        print_json(result.to_json())
    else:
        _print(result)
    if not result.passed:
        raise typer.Exit(EXIT_GATE_FAILED)


def _print(result: Audit) -> None:
    from rich.table import Table

    from deepfer_yolo.cli.output import stdout

    table = Table(title=f"{result.name}: {result.pictures:,} pictures", title_justify="left")
    table.add_column("severity")
    table.add_column("finding")
    table.add_column("count", justify="right")
    table.add_column("what")
    for finding in result.findings:
        table.add_row(f"[{COLOURS[finding.severity]}]{finding.severity}[/]", finding.kind, f"{finding.count:,}", finding.message)
    stdout().print(table if result.findings else f"{result.name}: {result.pictures:,} pictures, nothing found")
    stdout().print("audit passed" if result.passed else "audit failed")
