"""`deepfer review`."""

from __future__ import annotations

import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import DatasetArgument, JsonOption, PredictionsOption, options_of
from deepfer_yolo.errors import require
from deepfer_yolo.servers import ReviewConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepfer_yolo.data.corrections import Corrections, CorrectionsWriter
    from deepfer_yolo.data.dataset import Dataset
    from deepfer_yolo.review.doubts import Answers
    from deepfer_yolo.review.queue import Entry


ExportOption = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="Write what would be shown for another tool: label-studio, csv or fiftyone.",
        show_default=False,
    ),
]
ToOption = Annotated[Path | None, typer.Option(help="The folder of --export.", show_default="called as the format")]
ImportOption = Annotated[
    Path | None,
    typer.Option(
        "--import",
        metavar="FILE",
        help="Take over what Label Studio, a filled-in table or Roboflow exported.",
        show_default=False,
    ),
]


@options_of(
    ReviewConfig,
    "dataset with_model predictions only label split held_out blind reviewer second repeat limit out report export to "
    "import_ is_opened near host port token threads workers config as_json",
)
def review(
    settings: ReviewConfig,
    dataset: DatasetArgument,
    with_model: Annotated[
        Path | None,
        typer.Option("--with-model", help="Rank and show by this model's answers.", show_default=False),
    ] = None,
    predictions: PredictionsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file of decisions; an earlier one is gone on with.",
            show_default="corrections.csv; with --held-out corrections.held-out.csv",
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Print what the decisions so far come to, without the page.")
    ] = False,
    export: ExportOption = None,
    to: ToOption = None,
    import_: ImportOption = None,
    is_opened: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Correct labels on a local page, the most doubtful first; the data set itself is never changed.

    Keys 1 to 9, then 0 and letters, set a label, space keeps it, x leaves the image out, ? is unsure, u undoes. Each
    decision is one line of --out, on the disk before the next image shows; convert, train, evaluate, compare and gate
    take the file as --corrections. Ends with Ctrl-C and a summary. --export and --import leave it to another tool.

    Example: deepfer review datasets/fer2013 --predictions runs/train/cv/predictions.csv --open
    """
    require("cv2", "uvicorn", extra="eval,serve")
    from deepfer_yolo.cli.options import refuse_inside
    from deepfer_yolo.data.corrections import FILE, HELD_OUT_FILE, CorrectionsWriter
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.kept_faces import remove_old
    from deepfer_yolo.review.queue import check_choice
    from deepfer_yolo.serve.server import check_exposure

    refuse_inside(dataset, file := out or Path(HELD_OUT_FILE if settings.held_out else FILE), to)
    remove_old(dataset)
    opened = open_dataset(dataset)
    if report:
        _print(_known(file, opened), opened, as_json=as_json)
        return
    check_choice(opened, settings, has_answers=bool(with_model or predictions))
    if export is not None:
        _export(opened, settings, file, _answers(opened, settings, with_model, predictions or []), export, to)
        return
    check_exposure(settings)
    with CorrectionsWriter(file) as writer:
        writer.before.check_against(opened)
        writer.check_kind(is_held_out=settings.held_out)
        if import_ is not None:
            corrections = _import(opened, writer, import_, is_held_out=settings.held_out)
        else:
            answers = _answers(opened, settings, with_model, predictions or [])
            corrections = _review(opened, settings, writer, answers, is_opened=is_opened)
    _print(corrections, opened, as_json=as_json)


def _known(file: Path, dataset: Dataset) -> Corrections:
    """The decisions of a file, which are on images of `dataset`."""
    from deepfer_yolo.data.corrections import read_corrections

    corrections = read_corrections(file)
    corrections.check_against(dataset)
    return corrections


def _answers(dataset: Dataset, settings: ReviewConfig, model: Path | None, files: Sequence[Path]) -> Answers:
    from deepfer_yolo.cli.options import open_classifier, read_predictions
    from deepfer_yolo.files import sha256_of
    from deepfer_yolo.review.doubts import NO_ANSWERS, Answers
    from deepfer_yolo.runtime.model_file import digest, locate

    said = read_predictions(dataset.root, files, model)
    if said is not None:
        names = (Path(*file.parts[-2:]).with_suffix("").as_posix() for file in files)  # cv/predictions
        return Answers(", ".join(names), tuple(map(sha256_of, files)), predictions=said)
    if model is None:
        return NO_ANSWERS
    classifier = open_classifier(model, threads=settings.threads)
    return Answers(classifier.card.name, (digest(locate(model)),), classifier)


def _entries(dataset: Dataset, settings: ReviewConfig, before: Corrections, answers: Answers) -> tuple[Entry, ...]:
    """What would be shown, the most doubtful first."""
    from deepfer_yolo.cli.options import progress, say_all, tracked
    from deepfer_yolo.data.kept_faces import is_kept_faces
    from deepfer_yolo.review.doubts import find_doubts
    from deepfer_yolo.review.queue import build

    if settings.only is None and is_kept_faces(dataset.root):  # a model doubted each of them already
        settings = settings.model_copy(update={"only": "all"})
    with progress() as bar:
        show = tracked(bar, "looking")
        doubts = find_doubts(dataset, settings, answers, lambda part: show(int(100 * part), 100))
    # What the model has learned it ranks badly: that stands in the message.
    say_all(f"{len(one.groups):,} label errors: {one.message}" for one in doubts.found if one.kind == "label-error")
    return build(dataset, doubts, settings, before)


def _export(dataset: Dataset, settings: ReviewConfig, file: Path, answers: Answers, form: str, to: Path | None) -> None:
    """Write what would be shown, without what is decided already, for another tool."""
    from deepfer_yolo.cli.options import say_all
    from deepfer_yolo.data.corrections import Corrections
    from deepfer_yolo.data.exchange import FORMS, Doubted, export
    from deepfer_yolo.errors import ConfigError, did_you_mean

    if form not in FORMS:
        raise ConfigError(f"--export {form}: unknown{did_you_mean(form, FORMS)}", f"formats: {', '.join(FORMS)}")
    before = _known(file, dataset) if file.is_file() else Corrections(file, (), "")
    entries = _entries(dataset, settings, before, answers)
    left = [one for one in entries if (one.row.path, one.row.sha256) not in before.answers]
    doubted = (Doubted(one.row, one.probs, "; ".join(one.why)) for one in left)
    written = export(doubted, dataset, form, to or Path(form), model=answers.name, blind=settings.blind)
    say_all([f"{len(left):,} images for {form}: {', '.join(map(str, written))}"])


def _import(dataset: Dataset, writer: CorrectionsWriter, file: Path, *, is_held_out: bool) -> Corrections:
    """Append the answers of another tool that do not stand there yet, and say what was passed over."""
    from deepfer_yolo.cli.options import say_all
    from deepfer_yolo.data.corrections import read_corrections
    from deepfer_yolo.data.foreign_answers import read_answers

    found = read_answers(file, dataset, held_out=is_held_out)
    new = found.new_to(writer.before)
    writer.append(*new)
    there = len(found.decisions) - len(new)
    say_all([f"{len(new):,} decisions of {file} into {writer.path}"])
    say_all(f"passed over: {n:,} {why}" for why, n in {**found.passed_over, "that stand there": there}.items() if n)
    return read_corrections(writer.path)


def _review(
    dataset: Dataset, settings: ReviewConfig, writer: CorrectionsWriter, answers: Answers, *, is_opened: bool
) -> Corrections:
    """Serve the page until a signal; the decisions there are then."""
    from deepfer_yolo.cli.options import say_all
    from deepfer_yolo.review.app import create_app
    from deepfer_yolo.serve import server

    if settings.token is None:
        settings = settings.model_copy(update={"token": secrets.token_hex(16)})
    entries = _entries(dataset, settings, writer.before, answers)
    if not entries:
        model = "" if answers.labels else ", --with-model MODEL doubts labels, too"
        say_all([f"nothing to review: no image is doubted; --only all shows each{model}"])
        return writer.before
    if settings.held_out and answers.labels and not settings.blind:
        say_all(
            ["warning: held-out labels corrected in view of a model's answers flatter that model; --blind hides them"]
        )
    app, state = create_app(dataset, entries, writer, settings, answers.name or None)
    listener = server.bind(settings.host, settings.port)

    def on_ready() -> None:
        url = server.entry_url(server.url_of(listener), settings.token)
        words = (
            f"deepfer reviews {len(entries):,} images of {dataset.name} into {writer.path} at {url} (Ctrl-C stops it)"
        )
        print(words, file=sys.stderr, flush=True)
        if is_opened:
            typer.launch(url)

    with listener:
        server.run(app, settings, listener, on_ready)
    return state.corrections


def _print(corrections: Corrections, dataset: Dataset, *, as_json: bool) -> None:
    from deepfer_yolo.cli.options import print_json, say_all, stdout
    from deepfer_yolo.report.page import table
    from deepfer_yolo.review.summary import summarise

    summary = summarise(corrections)
    if as_json:
        print_json(summary.to_json())
        return
    stdout().print(table(("what", "figure"), summary.rows(), str(corrections.path)))
    if summary.counts["changed"] or summary.counts["left_out"]:
        held_out = " --held-out" if corrections.is_held_out else ""
        line = (
            f"deepfer convert {shlex.quote(str(dataset.root))} DEST --corrections {shlex.quote(str(corrections.path))}"
        )
        say_all([f"hint: a data set with these corrections: {line}{held_out}"])
