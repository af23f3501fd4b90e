"""`deepfer convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfer_yolo.cli.options import ConfigOption, JsonOption, OverwriteOption


def convert(
    source: Annotated[Path, typer.Argument(help="A csv (plain, .gz or .zip) or a folder.", show_default=False)],
    dest: Annotated[Path, typer.Argument(help="The data set folder to write.", show_default=False)],
    layout: Annotated[str | None, typer.Option("--layout", help="The layout of SOURCE.", show_default="auto: recognised")] = None,
    name: Annotated[str | None, typer.Option("--name", help="The data set's name.", show_default="the layout's, or SOURCE's")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Threads that decode and write.", show_default="2")] = None,
    config: ConfigOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Turn a data set of any known layout into a data set folder, official splits kept.

    Example: deepfer convert fer2013.csv.gz datasets/fer2013
    """
    from deepfer_yolo.cli.output import print_json, progress, stderr
    from deepfer_yolo.config import ConvertConfig, resolve
    from deepfer_yolo.data.convert import absent_labels
    from deepfer_yolo.data.convert import convert as run

    settings = resolve(ConvertConfig, config, {"layout": layout, "name": name, "workers": workers})
    with progress() as bar:
        task = bar.add_task("converting", total=None)
        result = run(source, dest, settings, overwrite=overwrite, progress=lambda part: bar.update(task, total=100, completed=int(part * 100)))
    absent = absent_labels(result["counts"])
    if absent:
        stderr().print(f"warning: no pictures in {', '.join(absent)}")
    if "val" not in result["counts"]:
        stderr().print("warning: no val split; training needs one")
    if json:
        print_json(result)
    else:
        _print_counts(result, dest)


def _print_counts(result: dict[str, object], dest: Path) -> None:
    from rich.table import Table

    from deepfer_yolo.cli.output import stdout

    counts = result["counts"]
    assert isinstance(counts, dict)
    table = Table(title=f"{result['name']} → {dest}", title_justify="left")
    table.add_column("label")
    for split in counts:
        table.add_column(split, justify="right")
    for label in next(iter(counts.values())):
        table.add_row(label, *(f"{counts[split][label]:,}" for split in counts))
    table.add_section()
    table.add_row("all", *(f"{sum(by_label.values()):,}" for by_label in counts.values()))
    stdout().print(table)
    stdout().print(f"fingerprint {str(result['fingerprint'])[:16]}")
