"""`deepfer gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfer_yolo.cli.options import ConfigOption, DatasetArgument, JsonOption, NameOption


def gate(
    dataset: DatasetArgument,
    model: Annotated[Path, typer.Option("--model", "-m", help="The challenger: the model that wants to be promoted.", show_default=False)],
    champion: Annotated[
        Path | None,
        typer.Option(
            help="The model that holds the title: a file, or a folder that --promote made.", show_default="the champion in --promote's folder"
        ),
    ] = None,
    promote: Annotated[
        Path | None, typer.Option(help="Folder of champions: record the decision there and, on a pass, hand over the title.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which part of the data set decides: train, val or test.", show_default="test")] = None,
    margin: Annotated[float | None, typer.Option(help="How much worse top-1 may be, as a share: 0.02 is two points.", show_default="0.02")] = None,
    superiority: Annotated[
        bool | None, typer.Option("--superiority/--no-superiority", help="Demand that the challenger is shown to be better.", show_default="no")
    ] = None,
    must_not_break: Annotated[
        Path | None, typer.Option(help="A file of picture paths, one a line, that must not become wrong.", show_default=False)
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Where models and data set know other labels: same (refuse) or intersect.", show_default="same")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures in one run of a model.", show_default="64")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that run the models.", show_default="2")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the resampling behind the intervals.", show_default="0")] = None,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Is the new model better, worse, or is the test too small to tell? Exit 0 pass, 3 fail, 5 inconclusive.

    Scores both models on the same pictures now and writes runs/gate/NAME/ with gate.json, junit.xml and summary.md.

    Example: deepfer gate datasets/fer2013 -m best.onnx --champion deepfer-n.onnx --config strict
    """
    from deepfer_yolo.cli.opening import open_classifier
    from deepfer_yolo.cli.output import print_json, progress, stderr, stdout
    from deepfer_yolo.config import GateConfig, resolve
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.evaluate import gate as gating
    from deepfer_yolo.evaluate.promotion import find_champion
    from deepfer_yolo.evaluate.runs import create_run
    from deepfer_yolo.report.tables import table

    flags = {"split": split, "margin": margin, "superiority": superiority, "labels": labels, "batch": batch, "threads": threads, "seed": seed}
    settings = resolve(GateConfig, config, flags | {"must_not_break": str(must_not_break) if must_not_break else None})
    opened = open_dataset(dataset)
    opened.rows(settings.split)
    holder = find_champion(champion, promote)
    challenger = open_classifier(model, threads=settings.threads)
    defender = open_classifier(holder, threads=settings.threads) if holder is not None else None
    run = create_run("gate", name, settings)
    with progress() as bar:

        def on_model(role: str) -> gating.OnProgress:
            task = bar.add_task(role, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        result = gating.run_gate(challenger, defender, opened, settings, run, promote, on_model)
    if json:
        print_json(result)
    else:
        out = stdout()
        out.print(table(gating.PAIR_HEADER, gating.pair_rows(result)))
        if "pair" in result:
            out.print(table(gating.CLASS_HEADER, gating.class_rows(result)))
        out.print(table(("rule", "verdict", "reason"), [[rule["rule"], rule["verdict"], rule["reason"]] for rule in result["rules"]]))
        for line in gating.verdict_lines(result):
            out.print(line, markup=False)
    stderr().print(f"files: {run}", soft_wrap=True)
    raise typer.Exit(result["exit_code"])
