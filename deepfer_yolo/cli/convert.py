"""`deepfer convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, OverwriteOption, options_of
from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.errors import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepfer_yolo.data.dataset import Description


@options_of(
    ConvertConfig,
    "source dest layout root split val reshuffle group_by near seed map drop labels ferplus drop_unknown margin "
    "box_format exclude corrections held_out name workers config overwrite as_json",
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
    from deepfer_yolo.cli.options import print_json, progress, say_all, tracked
    from deepfer_yolo.data.convert import convert as run

    with progress() as bar:
        show = tracked(bar, "converting")
        result = run(source, dest, settings, overwrite=overwrite, progress=lambda part: show(int(100 * part), 100))
    say_all(f"note: {note}" for note in result.notes)
    say_all(_warnings(result))
    if as_json:
        print_json(result.to_json())
    else:
        _print_counts(result, dest)


def _warnings(result: Description) -> Iterator[str]:
    """What the data set lacks."""
    from deepfer_yolo.data.layouts.class_tree import EMPTY

    if empty := [why for why in result.left_out if why.startswith(EMPTY)]:
        yield f"warning: {', '.join(empty)}"
    if absent := result.absent_labels:
        yield f"warning: no images in {listed(absent)}"
    if "train" not in result.counts:
        yield "warning: no train split: good for evaluate and gate, not for training"
    elif "val" not in result.counts:
        yield "warning: no val split; training needs one"
    if "test" not in result.counts:
        yield "note: no test split"


def _print_counts(result: Description, dest: Path) -> None:
    from deepfer_yolo.cli.options import stdout
    from deepfer_yolo.data.dataset import count_rows
    from deepfer_yolo.report.page import table

    stdout().print(table(("label", *result.counts), count_rows(result.counts), f"{result.name} → {dest}"))
    for why, count in result.left_out.items():
        stdout().print(f"left out: {count:,} {why}")
    if result.clipped_boxes:
        stdout().print(f"clipped: {result.clipped_boxes:,} boxes that passed the edge of their images")
    layout, split, val = result.options["layout"], result.options["split"] or "official", result.options["val"]
    split = f"{split} (val: {val} of train)" if val else split
    stdout().print(f"layout {layout}, split {split}, fingerprint {result.fingerprint[:16]}")
