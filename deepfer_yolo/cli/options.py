"""What commands share: options that config.py declares, made from there, opening a model, and printing."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, Union, get_args, get_origin

import typer
from pydantic import BeforeValidator

from deepfer_yolo.errors import EXIT_SOME_SOURCES_FAILED, ConfigError, DatasetError
from deepfer_yolo.presets import Config, extra_of, key_of, resolve, shown_default

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from deepfer_yolo.cluster.bulk import Done
    from deepfer_yolo.config import FaceConfig
    from deepfer_yolo.data.audit.label_errors import Predictions
    from deepfer_yolo.data.shards import Part
    from deepfer_yolo.records import JsonValue
    from deepfer_yolo.runtime.classifier import Classifier


Command = Callable[..., None]

_DATASET = "A data set folder, as `deepfer convert` writes it."
DatasetArgument = Annotated[Path, typer.Argument(help=_DATASET, show_default=False)]
OptionalDatasetArgument = Annotated[Path | None, typer.Argument(metavar="DATASET", help=_DATASET, show_default=False)]


def _model_option(default: str) -> Any:
    what = "A model file (.onnx, or .pt with its card beside it) or a shipped model's name."
    return typer.Option("--model", "-m", help=what, show_default=default)


ModelOption = Annotated[Path | None, _model_option("the shipped deepfer-n")]
LiveModelOption = Annotated[Path | None, _model_option("the shipped deepfer-live")]
FacesModelOption = Annotated[Path | None, _model_option("the shipped deepfer-n, with --faces deepfer-live")]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", "-c", help="A preset's name or a yaml file; flags win over it.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Name of the run's folder.", show_default="date and time")
]

ShardOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Do the I-th of N parts alone, and write it into --out.", show_default=False),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Do it over a cluster of Ray: auto, its HOST:PORT, or local: a worker a core.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder that --shard and --cluster write into.", show_default=False),
]
MergeOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Take the answers from what --shard or --cluster wrote into DIR.", show_default=False
    ),
]


PredictionsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="CSV",
        help="Rank them by these answers, such as train --folds writes. Repeat for shards.",
        show_default=False,
    ),
]


def options_of(section: type[Config], order: str) -> Callable[[Command], Command]:
    """Give a command the options that `order` names as its help lists them: its own parameters, and keys of `section`.

    The keys come as one parameter: `settings`, resolved from defaults, --config and flags, or, for a command that has
    `flags` instead, a dictionary of those that were given, by key.
    """

    def decorate(command: Command) -> Command:
        words, own = order.split(), dict(inspect.signature(command, eval_str=True).parameters)
        wanted = "settings" if "settings" in own else "flags"
        del own[wanted]
        if wanted == "settings" and "config" in words:
            own["config"] = inspect.Parameter("config", _NAMED, default=None, annotation=ConfigOption)
        keys = {word: key_of(section, word) for word in words if word not in own}
        assert own.keys() <= set(words), f"{command.__name__}: no place in the order for {own.keys() - set(words)}"

        @functools.wraps(command)
        def run(**given: Any) -> None:
            flags = {word: value for word in keys if (value := given.pop(word)) is not None}
            if wanted == "settings":
                command(settings=resolve(section, given.pop("config", None), flags), **given)
            else:
                command(flags={keys[word]: value for word, value in flags.items()}, **given)

        made = [own[word].replace(kind=_NAMED) if word in own else _option(section, word, keys[word]) for word in words]
        run.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
        return run

    return decorate


_NAMED = inspect.Parameter.KEYWORD_ONLY


def _option(section: type[Config], word: str, key: str) -> inspect.Parameter:
    """The option of a key: flag, type, help and shown default."""
    field = section.model_fields[key]
    option = typer.Option(
        None,
        *(extra_of(field, "flags") or f"--{word.replace('_', '-')}").split(),
        help=field.description,
        show_default=shown_default(field) or False,
        metavar=extra_of(field, "metavar"),
        envvar=extra_of(field, "envvar"),
    )
    kind = _typed(field.annotation, field.metadata)
    return inspect.Parameter(word, _NAMED, default=option, annotation=kind | None)


def _typed(annotation: Any, notes: Sequence[Any] = ()) -> Any:
    """What the command line reads for a key: of choices a text, of several values a list, else the type itself."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _typed(parts[0], parts[1:])
    if origin in (Union, types.UnionType):
        return _typed(next(part for part in parts if part is not types.NoneType))
    if origin is dict:
        return list[str]
    if origin is Literal or any(isinstance(note, BeforeValidator) for note in notes):
        return str
    return list[parts[0]] if origin is tuple else annotation  # type: ignore[valid-type]


def open_classifier(
    path: Path | None, *, provider: str = "cpu", threads: int = 1, from_frames: bool = False
) -> Classifier:
    """The model at `path`; what torch alone opens through torch, all else without it. For None the shipped one: for
    faces cut out already, or for such as come out of frames.

    Raises ModelError for a file that cannot be used.
    """
    from deepfer_yolo.runtime.model_file import DEFAULT, LIVE, is_for_torch

    path = Path(LIVE if from_frames else DEFAULT) if path is None else path
    if is_for_torch(path):
        from deepfer_yolo.yolo import TorchClassifier

        return TorchClassifier(path, provider=provider, threads=threads)
    from deepfer_yolo.runtime.classifier import Classifier

    return Classifier(path, provider=provider, threads=threads)


def tell_part(part: Part, out: Path, *, as_json: bool) -> None:
    """Say which part of a job was written, and how the parts are put together."""
    if as_json:
        print_json(part.model_dump(mode="json"))
    done = f"part {part.shard}: {part.n_rows:,} of {part.job.n:,} images, in {out}"
    say_all([done, f"when all {part.count:,} are there: the same command with --merge {out} in place of --shard"])


def tell_cluster(done: Done) -> None:
    """Say what a cluster has done."""
    before = f" ({done.n_before:,} of an earlier run)" if done.n_before else ""
    n_nodes = len(done.cluster.cpus)
    who = f"{done.n_workers} workers on {n_nodes} node{'s' * (n_nodes > 1)}"
    what = f"{done.n:,} {done.what}{before} by {who}, in {done.seconds:.1f} s, {done.start_s:.1f} s of them to start"
    say_all([what, f"rows: {done.out}; the same command with --merge {done.out} gives them in order"])


MAX_REASONS = 10
"""Of the reasons why images could not be read, those that are shown."""


def tell_unread(n_failed: int, n: int, reasons: Mapping[str, int], what: str = "images") -> None:
    """Say how many of them could not be read, and why; the exit code tells it, too."""
    if not n_failed:
        return
    print(f"{n_failed:,} of {n:,} {what} could not be read:", file=sys.stderr)
    for why, n_of_it in Counter(reasons).most_common(MAX_REASONS):
        print(f"  {n_of_it:,} × {why}", file=sys.stderr)
    raise typer.Exit(1 if n_failed == n else EXIT_SOME_SOURCES_FAILED)


def note_haar(config: FaceConfig) -> None:
    """Say on stderr where `auto` falls back to Haar."""
    from deepfer_yolo.faces.detect import HAAR_NOTE, chosen_detector

    if config.detector == "auto" and chosen_detector(config) == "haar":
        print(HAAR_NOTE, file=sys.stderr)


def note_drawing(labels: Sequence[str]) -> None:
    """Say on stderr where labels are drawn otherwise than they are spelt, since no font here has their characters."""
    from deepfer_yolo.report.fonts import drawing_note

    if not all(map(str.isascii, labels)) and (note := drawing_note(labels)):
        say_all([f"note: {note}"])


def refuse_inside(dataset: Path, *files: Path | None) -> None:
    """Raise ConfigError for a file that would be written into a data set."""
    for file in files:
        if file is not None and dataset.is_dir() and file.resolve().is_relative_to(dataset.resolve()):
            reason = f"{file} lies inside the data set {dataset}, and nothing is written there"
            raise ConfigError(reason, "name a file elsewhere")


def read_predictions(dataset: Path, files: Sequence[Path] | None, model: Path | None) -> Predictions | None:
    """The answers of `files` to all images of a data set folder; None without files. `model` may not be given too."""
    from deepfer_yolo.config import ScoringConfig
    from deepfer_yolo.data.audit.label_errors import Predictions
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.evaluate.answers import read_answers

    if not files:
        return None
    if model is not None:
        raise ConfigError("--with-model and --predictions are two answers to one question", "leave one of them out")
    opened = open_dataset(dataset)
    by_split = [read_answers(files, opened, ScoringConfig(split=split))[0] for split in opened.splits]
    if not all(scores.has_probs for scores in by_split):
        reason = "holds labels without probabilities, which rank nothing"
        raise DatasetError(reason, "add a column prob_LABEL for each label", path=files[0])
    probs = {path: said for scores in by_split for path, said in zip(scores.paths, scores.probs, strict=True)}
    return Predictions(by_split[0].labels, probs)


UNWRAPPED = 10_000
"""Columns of a file or a pipe: a line there is never wrapped, so that a search finds it whole."""


def stdout() -> Console:
    """The console for results, as wide as the terminal, or as COLUMNS says."""
    from rich.console import Console

    return Console(highlight=False, width=_width(sys.stdout))


def stderr() -> Console:
    """The console for progress and chatter."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, width=_width(sys.stderr))


def _width(file: TextIO) -> int | None:
    return None if file.isatty() or "COLUMNS" in os.environ else UNWRAPPED


def print_json(result: JsonValue) -> None:
    """One JSON document on stdout; bytes of file names that are no text are escapes."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on stderr, through a handle of its own, since what libraries say there may be led into a file
    meanwhile; silent where stderr is not a terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if not sys.stderr.isatty():
        with Progress(*columns, disable=True) as bar:
            yield bar
        return
    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8") as terminal,
        Progress(*columns, console=Console(file=terminal, highlight=False), transient=True) as bar,
    ):
        yield bar


def tracked(bar: Progress, name: str) -> Callable[[int, int], None]:
    """A new line of `bar`; what it is called with is (done, in all)."""
    task = bar.add_task(name, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


def say_all(lines: Iterable[str]) -> None:
    """Each line to stderr as it is."""
    for line in lines:
        stderr().print(line, markup=False, soft_wrap=True)
