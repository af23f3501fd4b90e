"""`deepfer convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfer_yolo.cli.options import ConfigOption, JsonOption, OverwriteOption
from deepfer_yolo.errors import ConfigError

if TYPE_CHECKING:
    from deepfer_yolo.data.dataset import Description


def convert(
    source: Annotated[
        Path, typer.Argument(help="A csv, jsonl, folder, zip or tar in any known layout.", show_default=False)
    ],
    dest: Annotated[Path, typer.Argument(help="The data set folder to write.", show_default=False)],
    layout: Annotated[
        str | None, typer.Option("--layout", help="The layout of SOURCE.", show_default="auto: recognised")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="official, as-is, or shares like train=0.8,val=0.1,test=0.1.",
            show_default="official where there is one, else those",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="What a new split must not tear apart: subject, duplicate or none.",
            show_default="subject, where known, and duplicate",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of a new split.", show_default="0")] = None,
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="Rename a label: old=new. Repeatable.", show_default=False)
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Leave out a label. Repeatable.", show_default=False)] = None,
    ferplus: Annotated[
        Path | None, typer.Option(help="FER+ votes for FER2013: fer2013new.csv.", show_default=False)
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="FER2013's labels: original, ferplus-majority or ferplus-votes.", show_default="original"),
    ] = None,
    drop_unknown: Annotated[
        bool, typer.Option("--drop-unknown", help="Leave out what FER+ calls unknown or not a face.")
    ] = False,
    margin: Annotated[
        float | None, typer.Option(help="Share of a face box added on each side.", show_default="0")
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="Leave out the pictures of a quarantine list.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The data set's name.", show_default="the layout's, or SOURCE's")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Threads that decode and write.", show_default="2")
    ] = None,
    config: ConfigOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Turn a data set of any known layout into a data set folder, official splits kept.

    Example: deepfer convert fer2013.csv.gz datasets/fer2013
    """
    from deepfer_yolo.cli.output import print_json, progress, stderr
    from deepfer_yolo.config import ConvertConfig
    from deepfer_yolo.data.convert import convert as run
    from deepfer_yolo.presets import resolve

    flags: dict[str, Any] = {
        "layout": layout,
        "split": split,
        "group_by": group_by,
        "seed": seed,
        "drop": drop,
        "ferplus": ferplus,
        "labels": labels,
    }
    flags |= {
        "margin": margin,
        "exclude": exclude,
        "name": name,
        "workers": workers,
        "drop_unknown": drop_unknown or None,
    }
    flags["map"] = dict(_pair(text) for text in map_) if map_ else None
    settings = resolve(ConvertConfig, config, flags)
    with progress() as bar:
        task = bar.add_task("converting", total=None)
        result = run(
            source,
            dest,
            settings,
            overwrite=overwrite,
            progress=lambda part: bar.update(task, total=100, completed=int(part * 100)),
        )
    if result.absent_labels:
        stderr().print(f"warning: no images in {', '.join(result.absent_labels)}")
    if "val" not in result.counts:
        stderr().print("warning: no val split; training needs one")
    if json:
        print_json(result.to_json())
    else:
        _print_counts(result, dest)


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise ConfigError(f"--map: '{text}' is not old=new", "such as --map contempt=disgust")
    return old, new


def _print_counts(result: Description, dest: Path) -> None:
    from deepfer_yolo.cli.output import stdout
    from deepfer_yolo.report.tables import table

    counts = result.counts
    rows = [(label, *(f"{counts[split][label]:,}" for split in counts)) for label in result.labels]
    rows.append(("all", *(f"{sum(by_label.values()):,}" for by_label in counts.values())))
    stdout().print(table(("label", *counts), rows, f"{result.name} → {dest}"))
    for why, count in result.left_out.items():
        stdout().print(f"left out: {count:,} {why}")
    layout, split = result.options["layout"], result.options["split"] or "official"
    stdout().print(f"layout {layout}, split {split}, fingerprint {result.fingerprint[:16]}")
