"""`deepfer compare`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from deepfer_yolo.cli.options import JsonOption, NameOption, options_of
from deepfer_yolo.config import CompareConfig


@options_of(CompareConfig, "models data split corrections held_out labels batch threads seed allow_leak name as_json")
def compare(
    settings: CompareConfig,
    models: Annotated[
        list[Path], typer.Argument(help="Model files; the others are compared with the first.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(help="The data set folder to score them on.", show_default=False)],
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Several models side by side on the same images: the gate's table without a verdict.

    Writes runs/compare/NAME/metrics.json.

    Example: deepfer compare deepfer-n.onnx best.pt --data datasets/fer2013
    """
    from deepfer_yolo.cli.options import open_classifier, print_json, progress, say_all, stdout, tracked
    from deepfer_yolo.data.corrected import open_to_judge
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.leaks import check_models
    from deepfer_yolo.evaluate import paired
    from deepfer_yolo.report.page import table
    from deepfer_yolo.runs import recorded_run, write_metrics

    opened = open_to_judge(open_dataset(data), settings.split, settings.corrections, held_out=settings.held_out)
    opened.rows(settings.split)
    classifiers = [open_classifier(path, threads=settings.threads) for path in models]
    learned = check_models(
        {str(path): one for path, one in zip(models, classifiers, strict=True)},
        opened.before or opened,
        settings.split,
        allow=settings.allow_leak,
    )
    say_all(learned.lines)
    with recorded_run("compare", name, settings) as run, progress() as bar:
        result = paired.compare_models(classifiers, opened, settings, learned, partial(tracked, bar))
        write_metrics(run, result.to_json())
    if as_json:
        print_json(result.to_json())
        return
    out = stdout()
    sides = {"": result.models} if result.how is None else {", corrected": result.models, ", original": result.original}
    for labels, compared in sides.items():
        n = compared[0].scored.metrics.n
        title = f"{opened.name}, {settings.split}{labels}, n = {n:,}"
        out.print(table(paired.MODEL_HEADER, paired.model_rows(compared), title))
        if len(classifiers) > 1:
            out.print(table(paired.PAIR_HEADER, paired.pair_rows(compared)))
    for line in result.how.lines(settings.split) if result.how is not None else ():
        out.print(line, markup=False)
