"""`deepfer evaluate`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import (
    ClusterOption,
    DatasetArgument,
    JsonOption,
    MergeOption,
    ModelOption,
    NameOption,
    OutOption,
    ShardOption,
    options_of,
)
from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.errors import ConfigError

if TYPE_CHECKING:
    from deepfer_yolo.cluster.tasks import OpenModel
    from deepfer_yolo.data.dataset import Dataset
    from deepfer_yolo.data.leaks import Learned
    from deepfer_yolo.data.shards import Answers, Asked, Shard
    from deepfer_yolo.evaluate.evaluation import Evaluation
    from deepfer_yolo.runtime.classifier import Classifier

N_CLASSES = 20
"""Classes that the terminal shows."""
PredictionsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="CSV",
        help="Measure these answers instead of a model: path and label, or path and prob_LABEL. Repeat for shards.",
        show_default=False,
    ),
]


@options_of(
    EvaluateConfig,
    "dataset model predictions split corrections held_out clean exclude tta by robustness robustness_pictures "
    "robustness_kinds labels pictures save_plots batch workers threads seed allow_leak shard cluster out merge name "
    "config as_json",
)
def evaluate(
    settings: EvaluateConfig,
    dataset: DatasetArgument,
    model: ModelOption = None,
    predictions: PredictionsOption = None,
    shard: ShardOption = None,
    cluster: ClusterOption = None,
    out: OutOption = None,
    merge: MergeOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on a data set: every metric with its interval, and a report with images.

    Writes runs/evaluate/NAME/ with metrics.json, predictions.csv and report.html. --predictions takes what any other
    program answers, and the csv of deepfer predict and evaluate.

    Example: deepfer evaluate datasets/fer2013 -m deepfer-n.onnx --split test --clean
    """
    from deepfer_yolo.cli.options import open_classifier, print_json, progress, stderr, tracked
    from deepfer_yolo.data.corrected import Judged, open_to_judge
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.row_files import answers_in
    from deepfer_yolo.data.shards import asked_of
    from deepfer_yolo.evaluate import evaluation, report
    from deepfer_yolo.runs import recorded_run

    asked = asked_of(shard, cluster, out, merge)
    answers = answers_in(asked.merge)
    whole = open_to_judge(open_dataset(dataset), settings.split, settings.corrections, held_out=settings.held_out)
    opened = whole.without(settings.exclude)
    opened.rows(settings.split)
    if predictions:
        _refuse_beside_answers(has_model=model is not None, has_parts=bool(shard or cluster or merge))
    classifier = learned = None
    if not predictions:
        opening = functools.partial(open_classifier, model, threads=settings.threads)
        classifier = opening()
        learned = _check_leaks(classifier, opened.before or opened, settings, whole.before or whole)
        scored = Judged.of(opened, settings.split).original
        if asked.cluster:
            answers = _over_cluster(scored, classifier, opening, settings, asked)
        if asked.shard is not None:
            _write_part(classifier, scored, settings, asked.shard, asked.out, as_json=as_json)
            return
    with recorded_run("evaluate", name, settings) as run, progress() as bar:
        if classifier is None:
            result = evaluation.evaluate_answers(predictions or [], opened, settings, whole.before or whole)
        else:
            result = evaluation.evaluate(classifier, opened, settings, learned, tracked(bar, "evaluating"), answers)
        report.write_files(result, opened, classifier, settings, run)
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)
    stderr().print(f"report: {run / report.REPORT}", soft_wrap=True)


def _check_leaks(classifier: Classifier, opened: Dataset, settings: EvaluateConfig, whole: Dataset) -> Learned:
    from deepfer_yolo.cli.options import say_all
    from deepfer_yolo.data.leaks import check_models

    models = {classifier.path.name: classifier}
    learned = check_models(models, opened, settings.split, allow=settings.allow_leak, whole=whole)
    say_all(learned.lines)
    return learned


def _refuse_beside_answers(*, has_model: bool, has_parts: bool) -> None:
    if has_model:
        raise ConfigError("--model and --predictions are two answers to one question", "leave one of them out")
    if has_parts:
        raise ConfigError("--predictions are answers already: they have no parts", "leave one of them out")


def _over_cluster(
    scored: Dataset, classifier: Classifier, opening: OpenModel, settings: EvaluateConfig, asked: Asked
) -> Answers:
    from deepfer_yolo.cli.options import progress, tracked
    from deepfer_yolo.cluster.commands import evaluate as over_cluster
    from deepfer_yolo.evaluate.evaluation import check_request

    check_request(settings)
    with progress() as bar:
        return over_cluster(scored, classifier, opening, settings, asked, tracked(bar, "evaluating"))


def _write_part(
    classifier: Classifier, opened: Dataset, settings: EvaluateConfig, part: Shard, out: Path, *, as_json: bool
) -> None:
    from deepfer_yolo.cli.options import progress, tell_part, tracked
    from deepfer_yolo.evaluate.evaluation import check_request
    from deepfer_yolo.evaluate.predictions import score_part

    check_request(settings)
    with progress() as bar:
        shown, flip = tracked(bar, "evaluating"), settings.tta == "flip"
        written = score_part(classifier, opened, settings, part, out, shown, flip=flip)
    tell_part(written, out, as_json=as_json)


def _print(result: Evaluation) -> None:
    from deepfer_yolo.cli.options import stdout
    from deepfer_yolo.evaluate import tables
    from deepfer_yolo.report.page import table

    out = stdout()
    data, n = result.dataset, result.metrics.n
    header, rows = tables.summary_table(result)
    out.print(table(header, rows, f"{result.name} on {data.name}, {data.split}, n = {n:,}"))
    for line in result.corrections.how.lines(data.split) if result.corrections is not None else ():
        out.print(line, markup=False)
    for file in result.answers:
        out.print(str(file), markup=False)
    if result.metrics.not_measured:
        out.print("not measured (–): labels came without probabilities")
    classes, caption = tables.class_rows(result.metrics), None
    if len(classes) > N_CLASSES:
        f1 = [row.f1 if row.support else 2.0 for row in result.metrics.per_class.values()]
        weakest = sorted(range(len(f1)), key=f1.__getitem__)[:N_CLASSES]
        caption = f"the {N_CLASSES} of {len(classes)} classes with the lowest F1"
        classes = [classes[i] for i in weakest]
    out.print(table(tables.CLASS_HEADER, classes, caption))
    for column, groups in result.groups.items():
        title = f"by {column}" + (f", the 30 largest of {len(groups)}" if len(groups) > 30 else "")
        out.print(table(tables.GROUP_HEADER, tables.group_rows(groups[:30]), title))
    if result.robustness is not None:
        out.print(table(*tables.robustness_table(result.robustness), tables.robustness_title(result.robustness)))
