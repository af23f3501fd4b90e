"""`deepfer evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from deepfer_yolo.cli.options import ConfigOption, DatasetArgument, JsonOption, ModelOption, NameOption


def evaluate(
    dataset: DatasetArgument,
    model: ModelOption = None,
    split: Annotated[str | None, typer.Option(help="Which part of the data set: train, val or test.", show_default="val")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures in one run of the model.", show_default="64")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that decode pictures.", show_default="2")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that run the model.", show_default="2")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the resampling behind the intervals.", show_default="0")] = None,
    pictures: Annotated[int | None, typer.Option(help="How many mistakes the report shows.", show_default="24")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Where model and data set know other labels: same (refuse) or intersect (score the common ones).", show_default="same"),
    ] = None,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model on a data set: every metric with its interval, and a report with pictures.

    Writes runs/evaluate/NAME/ with metrics.json and report.html.

    Example: deepfer evaluate datasets/fer2013 -m deepfer-n.onnx --split test
    """
    from deepfer_yolo.cli.opening import open_classifier
    from deepfer_yolo.cli.output import print_json, progress, stderr, stdout
    from deepfer_yolo.config import EvaluateConfig, resolve
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.evaluate.document import CLASS_HEADER, class_rows, summary_rows
    from deepfer_yolo.evaluate.evaluation import REPORT, run_evaluation
    from deepfer_yolo.evaluate.runs import create_run
    from deepfer_yolo.report.tables import table

    flags = {"split": split, "batch": batch, "workers": workers, "threads": threads, "seed": seed, "pictures": pictures, "labels": labels}
    settings = resolve(EvaluateConfig, config, flags)
    opened = open_dataset(dataset)
    opened.rows(settings.split)
    classifier = open_classifier(model, threads=settings.threads)
    run = create_run("evaluate", name, settings)
    with progress() as bar:
        task = bar.add_task("scoring", total=None)
        result = run_evaluation(classifier, opened, settings, run, lambda done, total: bar.update(task, completed=done, total=total))
    if json:
        print_json(result)
    else:
        stdout().print(
            table(("figure", "value", "95 % interval"), summary_rows(result), f"{result['model']['name']} on {opened.name}, {settings.split}")
        )
        stdout().print(table(CLASS_HEADER, class_rows(result)))
    stderr().print(f"report: {run / REPORT}", soft_wrap=True)
