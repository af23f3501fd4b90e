"""`deepfer stream`: cameras, network streams and video files to faces, events and annotated video."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import (
    ClusterOption,
    JsonOption,
    LiveModelOption,
    MergeOption,
    OutOption,
    options_of,
)
from deepfer_yolo.config import StreamConfig
from deepfer_yolo.errors import LIVE, ConfigError, require

if TYPE_CHECKING:
    from deepfer_yolo.cluster.tasks import OpenModel
    from deepfer_yolo.data.shards import Asked
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.stream.display import LiveStatus
    from deepfer_yolo.stream.pipeline import Pipeline
    from deepfer_yolo.stream.records import Summary

DRAWN = ("video=", "snapshots=")
"""Sinks that draw."""
SINKS = (
    "Where results go, repeatable: jsonl=FILE, csv=FILE, video=FILE, snapshots=FOLDER, webhook=URL, mqtt=URL "
    "(Home Assistant: mqtt=URL?discovery=homeassistant), prometheus=[HOST:]PORT, review=FOLDER (faces to be labelled)."
)
SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE...",
        help="Video files, folders of them, URLs (also of snapshots), camera indices, /dev/video paths, - and "
        "FIFOs, glob patterns, frame_%04d.png, @FILE with one source a line, testsrc.",
        show_default=False,
    ),
]
CamerasOption = Annotated[
    Path | None,
    typer.Option("--sources", metavar="FILE", help="A yaml file of sources, 'name: address' each.", show_default=False),
]
PartOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Read the I-th of N parts of the sources alone, by name.", show_default=False),
]


@options_of(
    StreamConfig,
    "sources cameras shard cluster out merge model config sink detector face_model detect_size detect_every policy "
    "max_age smooth hold min_confidence retries open_timeout read_timeout stall poll sequence_fps rtsp_transport "
    "input_option allow_host max_frames max_seconds jobs resume failed fail_fast clock anonymise show overwrite "
    "max_bytes keep review_crops keep_days stats_json quiet as_json",
)
def stream(
    settings: StreamConfig,
    sources: SourcesArgument = None,
    cameras: CamerasOption = None,
    shard: PartOption = None,
    cluster: ClusterOption = None,
    out: OutOption = None,
    merge: MergeOption = None,
    model: LiveModelOption = None,
    sink: Annotated[list[str] | None, typer.Option(help=SINKS, show_default="jsonl=- (stdout)")] = None,
    stats_json: Annotated[
        Path | None, typer.Option(help="File for one JSON line of statistics a second.", show_default=False)
    ] = None,
    failed: Annotated[
        Path | None,
        typer.Option(help="File for a list of the sources that failed, to be given back as @FILE.", show_default=False),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No status while it runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read cameras, streams and videos; find faces, label their apparent expression, and write records and video.

    Files are worked through, --jobs at a time; live sources are all read at once. A file whose last state in a
    jsonl=FILE sink is complete is finished: with --resume the same command goes on after it, drops what FILE holds of
    the others, and reads those again. Records of live sources are added to FILE.

    With --sources cameras.yaml --shard 2/4 one of four processes, on any machine, reads its part of many cameras. With
    --cluster WHERE --out DIR workers of Ray read many files; --merge DIR then gives all records, file by file.

    Images that a pattern or a list names are one source, at --sequence-fps. Single images are for deepfer predict.

    Exit code 0 at the end or a limit, 1 where all sources or a sink failed, 4 where some sources failed, 141 where
    the program that read standard output has gone and there is no other sink.

    Example: deepfer stream clip.mp4 --sink jsonl=out.jsonl --sink video=annotated.mp4
    """
    from deepfer_yolo.cli.options import note_haar, open_classifier
    from deepfer_yolo.data.shards import Shard
    from deepfer_yolo.stream.display import LiveStatus
    from deepfer_yolo.stream.session import run_stream

    if not sources and cameras is None:
        raise typer.BadParameter("name a source, or a file of sources by --sources", param_hint="'sources'")
    require(*LIVE)
    part = None if shard is None else Shard.parse(shard)
    sinks = sink or ["jsonl=-"]
    opening = partial(open_classifier, model, provider=settings.provider, threads=settings.threads, from_frames=True)
    classifier = opening()
    note_haar(settings)
    if cluster or merge or out:
        beside = {"--shard": shard, "--sink": sink, "--failed": failed, "--stats-json": stats_json}
        asked = _asked(settings, cluster, out, merge, beside)
        return _of_cluster(sources or [], cameras, classifier, opening, settings, asked, as_json=as_json)
    _note(settings, sinks, classifier.labels)
    takes_stdout = "jsonl=-" in sinks
    is_table = sys.stderr.isatty() and not (takes_stdout and sys.stdout.isatty()) and not quiet
    named = partial(run_stream, sources or (), cameras=cameras, shard=part, others=[stats_json] if stats_json else [])
    start = partial(named, model=classifier, sinks=sinks, config=settings, failed=failed)
    with LiveStatus(is_table=is_table, stats=stats_json, is_quiet=quiet, appends=settings.resume) as status:
        raise typer.Exit(_run(start, status, partial(_conclude, is_json=as_json, takes_stdout=takes_stdout)))


def _note(settings: StreamConfig, sinks: list[str], labels: tuple[str, ...]) -> None:
    """Say what those should know who draw faces or keep them."""
    from deepfer_yolo.cli.options import note_drawing, say_all
    from deepfer_yolo.data.kept_faces import consent

    if settings.show or any(kind.startswith(DRAWN) for kind in sinks):
        note_drawing(labels)
    if any(kind.startswith("review=") for kind in sinks):
        say_all([f"note: {consent(settings.keep_days)}"])


def _asked(
    settings: StreamConfig, cluster: str | None, out: Path | None, merge: Path | None, beside: Mapping[str, object]
) -> Asked:
    """What is asked of a cluster. Raises ConfigError for flags that have no meaning there."""
    from deepfer_yolo.data.shards import asked_of

    of_one = ("show", "resume", "overwrite", "max_seconds", "fail_fast", "anonymise")
    keys = {f"--{key.replace('_', '-')}": getattr(settings, key) for key in of_one}
    if wrong := [flag for flag, value in {**beside, **keys}.items() if value]:
        reason = f"{' and '.join(wrong)}: workers leave records in --out, and --merge gives them as JSON lines"
        raise ConfigError(reason, "leave it out" if len(wrong) == 1 else "leave them out")
    return asked_of(None, cluster, out, merge)


def _of_cluster(
    sources: list[str],
    cameras: Path | None,
    classifier: Classifier,
    opening: OpenModel,
    settings: StreamConfig,
    asked: Asked,
    *,
    as_json: bool,
) -> None:
    """Let the workers read recordings, or give the records that they have left."""
    from deepfer_yolo.cli.options import print_json, progress, tell_cluster, tell_unread, tracked
    from deepfer_yolo.data.row_files import answers_in, summary_of
    from deepfer_yolo.stream.recordings import recorded_again, recordings_of

    recordings = recordings_of(sources, cameras)
    if (answers := answers_in(asked.merge)) is not None:
        failed: Counter[str] = Counter()
        for recorded in recorded_again(recordings, classifier, settings, answers):
            sys.stdout.writelines(f"{line}\n" for line in recorded.records)
            failed.update([] if recorded.error is None else [recorded.error])
        tell_unread(failed.total(), len(recordings), failed, "recordings")
        return
    from deepfer_yolo.cluster.commands import stream as over_cluster

    with progress() as bar:
        tell_cluster(over_cluster(recordings, classifier, opening, settings, asked, tracked(bar, "reading")))
    summary = summary_of(asked.out)
    if as_json:
        print_json(summary)
    else:
        print(f"{summary['frames']:,} frames and {summary['faces']:,} faces")
    tell_unread(summary["errors"], len(recordings), summary["reasons"], "recordings")


def _run(start: Callable[..., Summary], status: LiveStatus, conclude: Callable[[Summary, LiveStatus], None]) -> int:
    """Run to an end or a signal, and tell what was done until then; returns the exit code."""
    from deepfer_yolo.cli.app import end_where_signalled, signals_noted

    def tick(pipeline: Pipeline) -> None:
        end_where_signalled()
        status.tick(pipeline)

    with signals_noted():
        try:
            summary = start(on_tick=tick)
        except (KeyboardInterrupt, SystemExit):
            if status.pipeline is not None:
                conclude(status.pipeline.summary(), status)
            raise
        conclude(summary, status)
        end_where_signalled()
    return summary.exit_code


def _conclude(summary: Summary, status: LiveStatus, *, is_json: bool, takes_stdout: bool) -> None:
    from deepfer_yolo.cli.options import print_json, stderr, stdout
    from deepfer_yolo.stream.display import summary_table

    status.close(summary)
    if summary.is_unread:
        print("error: the program that read the results has gone; the run has ended", file=sys.stderr)
        print("hint: --sink jsonl=FILE keeps them", file=sys.stderr)
    # The work is done, whoever reads of it; Rich turns a pipe that broke into an exit.
    with suppress(BrokenPipeError, SystemExit):
        if is_json and not takes_stdout:
            print_json(summary.to_json())
        else:
            (stderr() if takes_stdout else stdout()).print(summary_table(summary))
        sys.stdout.flush()
