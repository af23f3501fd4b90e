"""`deepfer convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, OverwriteOption, options_of
from deepfer_yolo.config import ConvertConfig

if TYPE_CHECKING:
    from deepfer_yolo.data.dataset import Description


@options_of(
    ConvertConfig,
    "source dest layout split group_by seed map drop ferplus labels drop_unknown margin exclude name workers config "
    "overwrite as_json",
)
def convert(
    settings: ConvertConfig,
    source: Annotated[
        Path, typer.Argument(help="A csv, jsonl, folder, zip or tar in any known layout.", show_default=False)
    ],
    dest: Annotated[Path, typer.Argument(help="The data set folder to write.", show_default=False)],
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a data set of any known layout into a data set folder, official splits kept.

    Example: deepfer convert fer2013.csv.gz datasets/fer2013
    """
    from deepfer_yolo.cli.options import print_json, progress, stderr, tracked
    from deepfer_yolo.data.convert import convert as run
    from deepfer_yolo.data.layouts.class_tree import EMPTY

    with progress() as bar:
        show = tracked(bar, "converting")
        result = run(source, dest, settings, overwrite=overwrite, progress=lambda part: show(int(100 * part), 100))
    empty = [why for why in result.left_out if why.startswith(EMPTY)]
    if empty:
        stderr().print(f"warning: {', '.join(empty)}")
    if result.absent_labels:
        stderr().print(f"warning: no images in {', '.join(result.absent_labels)}")
    if "val" not in result.counts:
        stderr().print("warning: no val split; training needs one")
    if as_json:
        print_json(result.to_json())
    else:
        _print_counts(result, dest)


def _print_counts(result: Description, dest: Path) -> None:
    from deepfer_yolo.cli.options import stdout
    from deepfer_yolo.data.dataset import count_rows
    from deepfer_yolo.report.page import table

    stdout().print(table(("label", *result.counts), count_rows(result.counts), f"{result.name} → {dest}"))
    for why, count in result.left_out.items():
        stdout().print(f"left out: {count:,} {why}")
    layout, split = result.options["layout"], result.options["split"] or "official"
    stdout().print(f"layout {layout}, split {split}, fingerprint {result.fingerprint[:16]}")
