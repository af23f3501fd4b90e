"""`deepfer evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deepfer_yolo.cli.options import AllowLeakOption, ConfigOption, DatasetArgument, JsonOption, ModelOption, NameOption

_SPLIT = Annotated[str | None, typer.Option(help="Which part of the data set: train, val or test.", show_default="val")]
_CLEAN = Annotated[
    bool | None,
    typer.Option("--clean", help="Also without the pictures that have a copy in train.", show_default="off"),
]
_EXCLUDE = Annotated[
    str | None, typer.Option(help="Leave out the pictures of this list (audit --quarantine).", show_default=False)
]
_TTA = Annotated[str | None, typer.Option(help="Average over views: none or flip (2 views).", show_default="none")]
_BY = Annotated[
    list[str] | None, typer.Option(help="A table by this column of the manifest; may be repeated.", show_default=False)
]
_ROBUSTNESS = Annotated[
    bool | None,
    typer.Option(
        "--robustness", help="Also under shifted crops, blur, JPEG, light, noise, low resolution.", show_default="off"
    ),
]
_LABELS = Annotated[
    str | None,
    typer.Option(
        help="Where model and data set know other labels: same (refuse) or intersect (score the common ones).",
        show_default="same",
    ),
]
_PLOTS = Annotated[
    bool | None, typer.Option("--save-plots", help="Write the figures as PNG files too.", show_default="off")
]
_PICTURES = Annotated[int | None, typer.Option(help="How many mistakes the report shows.", show_default="24")]
_BATCH = Annotated[int | None, typer.Option(help="Pictures in one run of the model.", show_default="64")]
_WORKERS = Annotated[int | None, typer.Option(help="Threads that decode pictures.", show_default="2")]
_THREADS = Annotated[int | None, typer.Option(help="Threads that run the model.", show_default="2")]
_SEED = Annotated[int | None, typer.Option(help="Seed of the resampling behind the intervals.", show_default="0")]


def evaluate(
    dataset: DatasetArgument,
    model: ModelOption = None,
    split: _SPLIT = None,
    clean: _CLEAN = None,
    exclude: _EXCLUDE = None,
    tta: _TTA = None,
    by: _BY = None,
    robustness: _ROBUSTNESS = None,
    labels: _LABELS = None,
    pictures: _PICTURES = None,
    save_plots: _PLOTS = None,
    batch: _BATCH = None,
    workers: _WORKERS = None,
    threads: _THREADS = None,
    seed: _SEED = None,
    allow_leak: AllowLeakOption = None,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model on a data set: every metric with its interval, and a report with pictures.

    Writes runs/evaluate/NAME/ with metrics.json, predictions.csv and report.html.

    Example: deepfer evaluate datasets/fer2013 -m deepfer-n.onnx --split test --clean
    """
    flags: dict[str, Any] = {
        "split": split, "clean": clean, "exclude": exclude, "tta": tta, "by": by or None, "robustness": robustness, "labels": labels,
        "allow_leak": allow_leak, "pictures": pictures, "save_plots": save_plots, "batch": batch, "workers": workers, "threads": threads,
        "seed": seed,
    }  # fmt: skip
    from deepfer_yolo.cli.options import open_classifier
    from deepfer_yolo.cli.output import print_json, progress, say_all, stderr
    from deepfer_yolo.config import EvaluateConfig
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.leaks import check_models
    from deepfer_yolo.evaluate.evaluation import REPORT, run_evaluation
    from deepfer_yolo.presets import resolve
    from deepfer_yolo.runs import recorded_run

    settings = resolve(EvaluateConfig, config, flags)
    whole = open_dataset(dataset)
    opened = whole.without(settings.exclude)
    opened.rows(settings.split)
    classifier = open_classifier(model, threads=settings.threads)
    learned = check_models(
        {classifier.path.name: classifier}, opened, settings.split, allow=settings.allow_leak, whole=whole
    )
    say_all(learned.lines)
    with recorded_run("evaluate", name, settings) as run, progress() as bar:
        task = bar.add_task("evaluating", total=None)
        result = run_evaluation(
            classifier,
            opened,
            settings,
            run,
            lambda done, total: bar.update(task, completed=done, total=total),
            learned.to_json(),
        )
    if json:
        print_json(result)
    else:
        _print(result)
    stderr().print(f"report: {run / REPORT}", soft_wrap=True)


def _print(result: dict[str, Any]) -> None:
    from deepfer_yolo.cli.output import stdout
    from deepfer_yolo.evaluate.report import (
        CLASS_HEADER,
        GROUP_HEADER,
        SWEEP_HEADER,
        class_rows,
        group_rows,
        summary_table,
        sweep_rows,
    )
    from deepfer_yolo.report.tables import table

    out = stdout()
    header, rows = summary_table(result)
    out.print(
        table(
            header,
            rows,
            f"{result['model']['name']} on {result['dataset']['name']}, {result['dataset']['split']}, n = {result['n']:,}",
        )
    )
    out.print(table(CLASS_HEADER, class_rows(result)))
    for column, groups in result.get("groups", {}).items():
        out.print(
            table(
                GROUP_HEADER,
                group_rows(groups[:30]),
                f"by {column}" + (f", the 30 largest of {len(groups)}" if len(groups) > 30 else ""),
            )
        )
    if "robustness" in result:
        out.print(
            table(SWEEP_HEADER, sweep_rows(result["robustness"]), f"robustness, n = {result['robustness']['n']:,}")
        )
