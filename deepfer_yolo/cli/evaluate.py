"""`deepfer evaluate`."""

from __future__ import annotations

from typing import Any

from deepfer_yolo.cli.options import DatasetArgument, JsonOption, ModelOption, NameOption, options_of
from deepfer_yolo.config import EvaluateConfig


@options_of(
    EvaluateConfig,
    "dataset model split clean exclude tta by robustness labels pictures save_plots batch workers threads seed "
    "allow_leak name config as_json",
)
def evaluate(
    settings: EvaluateConfig,
    dataset: DatasetArgument,
    model: ModelOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a data set: every metric with its interval, and a report with images.

    Writes runs/evaluate/NAME/ with metrics.json, predictions.csv and report.html.

    Example: deepfer evaluate datasets/fer2013 -m deepfer-n.onnx --split test --clean
    """
    from deepfer_yolo.cli.options import open_classifier
    from deepfer_yolo.cli.output import print_json, progress, say_all, stderr
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.leaks import check_models
    from deepfer_yolo.evaluate.evaluation import REPORT, run_evaluation
    from deepfer_yolo.runs import recorded_run

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
    if as_json:
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
