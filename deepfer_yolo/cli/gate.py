"""`deepfer gate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import DatasetArgument, JsonOption, NameOption, options_of
from deepfer_yolo.config import GateConfig

if TYPE_CHECKING:
    from deepfer_yolo.evaluate.gate.gate import GateResult

_MODEL = Annotated[
    Path, typer.Option("--model", "-m", help="The challenger: the model that wants to be promoted.", show_default=False)
]
_CHAMPION = Annotated[
    Path | None,
    typer.Option(
        help="The model that holds the title: a file, or a folder that --promote made.",
        show_default="the champion in --promote's folder, or else the shipped deepfer-n",
    ),
]
_PROMOTE = Annotated[
    Path | None,
    typer.Option(
        help="Folder of champions: record the decision there and, on a pass, hand over the title.", show_default=False
    ),
]


@options_of(
    GateConfig,
    "dataset model champion promote split corrections held_out judge margin superiority must_not_break labels "
    "batch threads seed allow_leak name config as_json",
)
def gate(
    settings: GateConfig,
    dataset: DatasetArgument,
    model: _MODEL,
    champion: _CHAMPION = None,
    promote: _PROMOTE = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Is the new model better, worse, or is the test too small to tell? Exit 0 pass, 3 fail, 5 inconclusive.

    Scores both models on the same images now and writes runs/gate/NAME/ with gate.json, junit.xml and summary.md.
    While there is no champion, your floors decide; without floors of accuracy the shipped model stands in for one, and
    where its labels do not meet or it has learned the images, the challenger must beat the largest class.

    Example: deepfer gate datasets/fer2013 -m best.onnx --champion deepfer-n.onnx --config strict
    """
    from deepfer_yolo.cli.options import open_classifier, print_json, progress, say_all, stderr, tracked
    from deepfer_yolo.data.corrected import open_to_judge
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.leaks import check_models
    from deepfer_yolo.evaluate.gate import gate as gating
    from deepfer_yolo.evaluate.gate.promotion import find_champion, title_of
    from deepfer_yolo.runs import recorded_run

    opened = open_to_judge(open_dataset(dataset), settings.split, settings.corrections, held_out=settings.held_out)
    opened.rows(settings.split)
    holder, title = find_champion(champion, promote), title_of(promote)
    challenger = open_classifier(model, threads=settings.threads)
    defender = open_classifier(holder, threads=settings.threads) if holder is not None else None
    models = {"the challenger": challenger} | ({} if defender is None else {"the champion": defender})
    learned = check_models(models, opened.before or opened, settings.split, allow=settings.allow_leak)
    say_all(learned.lines)
    stand_in = None
    if defender is None:
        defender, stand_in = gating.find_stand_in(challenger, opened, settings)
    with recorded_run("gate", name, settings) as run, progress() as bar:
        result = gating.run_gate(challenger, defender, opened, settings, learned, partial(tracked, bar), stand_in)
        result = gating.conclude(result, run, promote, title)
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)
    stderr().print(f"files: {run}", soft_wrap=True)
    raise typer.Exit(result.exit_code)


def _print(result: GateResult) -> None:
    from deepfer_yolo.cli.options import stdout
    from deepfer_yolo.evaluate.gate import gate as gating
    from deepfer_yolo.report.page import table

    out = stdout()
    out.print(table(gating.PAIR_HEADER, gating.pair_rows(result.evidence)))
    if rows := gating.class_rows(result.evidence):
        out.print(table(gating.CLASS_HEADER, rows))
    if result.rulings:
        out.print(table(gating.RULE_HEADER, gating.rule_rows(result.rulings)))
    for line in gating.verdict_lines(result):
        out.print(line, markup=False)
