"""`deepfer audit`."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfer_yolo.cli.options import (
    ClusterOption,
    JsonOption,
    MergeOption,
    OutOption,
    PredictionsOption,
    ShardOption,
    options_of,
    read_predictions,
    refuse_inside,
)
from deepfer_yolo.config import AuditConfig
from deepfer_yolo.errors import EXIT_GATE_FAILED, ConfigError, require
from deepfer_yolo.presets import configs_dir, resolve

if TYPE_CHECKING:
    from deepfer_yolo.cluster.tasks import OpenModel
    from deepfer_yolo.data.audit.findings import AuditResult
    from deepfer_yolo.data.audit.parts import Check
    from deepfer_yolo.data.shards import Answers, Asked, Shard
    from deepfer_yolo.faces.detect import Detector


def _path_option(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


SourceArgument = Annotated[
    Path,
    typer.Argument(help="A data set folder, or any csv, folder, zip or tar that convert reads.", show_default=False),
]
NOT_IN_A_PART = "a part has no report, quarantine list, drift, corrections or ranking by --predictions"


@options_of(
    AuditConfig,
    "dataset layout report quarantine with_model predictions faces detector face_model detect_size near against "
    "corrections fail_on workers shard cluster out merge config as_json",
)
def audit(
    settings: AuditConfig,
    dataset: SourceArgument,
    report: Annotated[Path | None, _path_option("Write an HTML page with the images.")] = None,
    quarantine: Annotated[Path | None, _path_option("Write the list of images to leave out, for --exclude.")] = None,
    with_model: Annotated[Path | None, _path_option("Rank likely label errors by this model.")] = None,
    predictions: PredictionsOption = None,
    faces: Annotated[bool, typer.Option("--faces", help="Look for faces: none, several, too small.")] = False,
    against: Annotated[Path | None, _path_option("Measure drift against another data set.")] = None,
    corrections: Annotated[Path | None, _path_option("Show what deepfer review settled.")] = None,
    shard: ShardOption = None,
    cluster: ClusterOption = None,
    out: OutOption = None,
    merge: MergeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at every image: broken, blank, copied, leaking, conflicting, mislabelled; exits 3 where the gate fails.

    A model that has learned an image may have learned its wrong label. deepfer train DATASET --folds 5 answers for each
    image by a model that has not, and --predictions runs/train/NAME/predictions.csv takes those answers.

    Example: deepfer audit datasets/fer2013 --report audit.html --quarantine leave-out.csv
    """
    from deepfer_yolo.cli.options import open_classifier, progress, tracked
    from deepfer_yolo.data.audit.audit import audit as run
    from deepfer_yolo.data.audit.parts import checks_with
    from deepfer_yolo.data.corrections import read_corrections
    from deepfer_yolo.data.shards import asked_of

    require("cv2", extra="eval")
    asked = asked_of(shard, cluster, out, merge)
    refuse_inside(dataset, report, quarantine, out)
    said = read_predictions(dataset, predictions, with_model)
    opening = functools.partial(open_classifier, with_model, threads=2) if with_model else None
    classifier = opening() if opening else None
    finder = _open_detector(settings) if faces else None
    checks = checks_with(classifier, finder)
    if asked.shard is not None:
        if report or quarantine or against or predictions or corrections:
            raise ConfigError(NOT_IN_A_PART, "give those flags with --merge")
        _write_part(dataset, settings, checks, asked.shard, asked.out, as_json=as_json)
        return
    answers = _answers(dataset, settings, checks, opening, asked)
    with progress() as bar:
        show = tracked(bar, "looking")
        result = run(
            dataset,
            settings,
            classifier=classifier,
            predictions=said,
            detector=finder,
            against=against,
            answers=answers,
            corrections=None if corrections is None else read_corrections(corrections),
            progress=lambda part: show(int(100 * part), 100),
            then=functools.partial(_write_report, report) if report else None,
        )
    _write_quarantine(quarantine, result, report)
    _show(dataset, result, as_json=as_json)


def _show(dataset: Path, result: AuditResult, *, as_json: bool) -> None:
    """Print the result; where the gate failed, the exit code says so."""
    from deepfer_yolo.cli.options import print_json

    if as_json:
        print_json(result.to_json())
    else:
        _print(result)
    if not result.passed:
        _name_preset(dataset, result)
        raise typer.Exit(EXIT_GATE_FAILED)


def _write_part(
    dataset: Path, settings: AuditConfig, checks: list[Check], part: Shard, out: Path, *, as_json: bool
) -> None:
    from deepfer_yolo.cli.options import progress, tell_part, tracked
    from deepfer_yolo.data.audit.parts import audit_part

    with progress() as bar:
        show = tracked(bar, "looking")
        written = audit_part(dataset, settings, checks, part, out, lambda done: show(int(100 * done), 100))
    tell_part(written, out, as_json=as_json)


def _answers(
    dataset: Path, settings: AuditConfig, checks: list[Check], opening: OpenModel | None, asked: Asked
) -> Answers | None:
    """What was seen of the images, where others than this process look at them."""
    from deepfer_yolo.cli.options import progress, tracked
    from deepfer_yolo.data.row_files import answers_in

    if not asked.cluster:
        return answers_in(asked.merge)
    from deepfer_yolo.cluster.commands import audit as over_cluster

    with progress() as bar:
        return over_cluster(dataset, settings, checks, opening, asked, tracked(bar, "looking"))


def _write_quarantine(file: Path | None, result: AuditResult, report: Path | None) -> None:
    """Write the list, and say which files there are."""
    from deepfer_yolo.cli.options import say_all
    from deepfer_yolo.data.dataset import write_quarantine

    if file:
        say_all([f"quarantine: {file}, {write_quarantine(file, result.to_quarantine()):,} images"])
    if report:
        say_all([f"report: {report}"])


def _name_preset(dataset: Path, result: AuditResult) -> None:
    from deepfer_yolo.cli.options import say_all

    if preset := _known_faults(result):
        line = f"deepfer audit {shlex.quote(str(dataset))} --config {preset}"
        say_all([f"hint: the faults that {result.name} is known for pass with: {line}"])


def _known_faults(result: AuditResult) -> str | None:
    """The preset that is called as the data set and allows what is known of it, where it is not in force already."""
    name = re.sub(r"[^a-z0-9]", "", result.name.lower())
    if not (configs_dir() / "audit" / f"{name}.yaml").is_file():
        return None
    allowed = resolve(AuditConfig, name).allow
    return name if any(result.config.allow.get(kind, 0.0) < share for kind, share in allowed.items()) else None


def _write_report(path: Path, result: AuditResult) -> None:
    from deepfer_yolo.data.audit.report import write_page

    write_page(result, shlex.join(["deepfer", *sys.argv[1:]]), path)


def _open_detector(settings: AuditConfig) -> Detector:
    from deepfer_yolo.cli.options import note_haar
    from deepfer_yolo.faces.detect import open_detector

    note_haar(settings)
    return open_detector(settings, "image")


def _print(result: AuditResult) -> None:
    from deepfer_yolo.cli.options import stdout
    from deepfer_yolo.data.corrected import corrections_line
    from deepfer_yolo.report.page import table

    title = f"{result.name}: {result.n_images:,} images"
    rows = [[finding.severity, finding.kind, f"{finding.count:,}", finding.message] for finding in result.findings]
    header = ["severity", "finding", "count", "what"]
    if (settled := result.settled) is not None:
        header.insert(3, "settled")
        for row, finding in zip(rows, result.findings, strict=True):
            row.insert(3, settled.shown(finding.kind))
    stdout().print(table(header, rows, title) if rows else f"{title}, nothing found")
    if settled is not None:
        stdout().print(corrections_line(settled.applied), markup=False)
    failed = f"audit failed: at least one finding is {result.config.fail_on} or worse"
    stdout().print("audit passed" if result.passed else failed)
