"""`deepfer stream`: cameras, network streams and video files to faces, events and annotated video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfer_yolo.cli.options import ConfigOption, JsonOption, ModelOption, OverwriteOption

if TYPE_CHECKING:
    from deepfer_yolo.stream.display import LiveStatus
    from deepfer_yolo.stream.pipeline import Pipeline
    from deepfer_yolo.stream.status import Summary

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...", help="Video files, folders of them, URLs, camera indices, /dev/video paths, testsrc."
    ),
]
Sinks = Annotated[
    list[str] | None,
    typer.Option(
        "--sink",
        help="Where results go, repeatable: jsonl=FILE, csv=FILE, video=FILE, snapshots=FOLDER, webhook=URL, mqtt=URL, prometheus=[HOST:]PORT.",
        show_default="jsonl=- (stdout)",
    ),
]
DetectorName = Annotated[
    str | None,
    typer.Option("--detector", help="auto, yunet, haar, or whole: each picture is one face.", show_default="auto"),
]
FaceModel = Annotated[
    Path | None,
    typer.Option("--face-model", help="The YuNet file.", show_default="$DEEPFER_FACE_MODEL, or the pulled one"),
]
DetectSize = Annotated[
    int | None,
    typer.Option("--detect-size", help="Longer side of what the detector sees.", show_default="320 yunet, 640 haar"),
]
DetectEvery = Annotated[
    int | None,
    typer.Option("--detect-every", help="Search every n-th picture; follow faces between.", show_default="1"),
]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help="latest, bounded or lossless.", show_default="lossless for files, else latest"),
]
MaxAge = Annotated[
    float | None,
    typer.Option("--max-age", help="Oldest picture, in seconds, that bounded still takes.", show_default="0.5"),
]
Smooth = Annotated[
    float | None, typer.Option("--smooth", help="Time constant of the smoothing, in seconds.", show_default="0.6")
]
Hold = Annotated[
    float | None, typer.Option("--hold", help="Seconds for which a new label must lead.", show_default="0.25")
]
Uncertain = Annotated[
    float | None, typer.Option("--min-confidence", help="Below it a label is uncertain.", show_default="0.4")
]
Retries = Annotated[
    int | None,
    typer.Option(
        "--retries", help="Attempts in a row to reconnect.", show_default="4 before the first picture, then no limit"
    ),
]
OpenTimeout = Annotated[
    float | None, typer.Option("--open-timeout", help="Seconds to wait for a connection.", show_default="10")
]
ReadTimeout = Annotated[
    float | None, typer.Option("--read-timeout", help="Seconds without data until a source is lost.", show_default="10")
]
Stall = Annotated[
    float | None,
    typer.Option("--stall", help="Seconds without a picture until a live source counts as stalled.", show_default="3"),
]
Transport = Annotated[str | None, typer.Option("--rtsp-transport", help="tcp or udp.", show_default="tcp")]
InputOptions = Annotated[
    list[str] | None,
    typer.Option("--input-option", help="KEY=VALUE for FFmpeg's network reader, repeatable.", show_default=False),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", help="Host that playlists and redirects may lead to, repeatable.", show_default="the URL's own"
    ),
]
MaxFrames = Annotated[
    int | None, typer.Option("--max-frames", help="End each source after so many pictures.", show_default="no limit")
]
MaxSeconds = Annotated[
    float | None, typer.Option("--max-seconds", help="End the run after so long.", show_default="no limit")
]
FailFast = Annotated[
    bool | None, typer.Option("--fail-fast", help="End the run when any source fails.", show_default="off")
]
Anonymise = Annotated[
    bool | None,
    typer.Option("--anonymise", help="Make faces unrecognisable in every picture that leaves.", show_default="off"),
]
Show = Annotated[
    bool | None, typer.Option("--show", help="Show the annotated pictures in a window.", show_default="off")
]
StatsJson = Annotated[
    Path | None, typer.Option("--stats-json", help="File for one JSON line of statistics a second.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No status while it runs.")]


def stream(
    sources: Sources,
    model: ModelOption = None,
    config: ConfigOption = None,
    sink: Sinks = None,
    detector: DetectorName = None,
    face_model: FaceModel = None,
    detect_size: DetectSize = None,
    detect_every: DetectEvery = None,
    policy: PolicyName = None,
    max_age: MaxAge = None,
    smooth: Smooth = None,
    hold: Hold = None,
    min_confidence: Uncertain = None,
    retries: Retries = None,
    open_timeout: OpenTimeout = None,
    read_timeout: ReadTimeout = None,
    stall: Stall = None,
    rtsp_transport: Transport = None,
    input_option: InputOptions = None,
    allow_host: AllowHost = None,
    max_frames: MaxFrames = None,
    max_seconds: MaxSeconds = None,
    fail_fast: FailFast = None,
    anonymise: Anonymise = None,
    show: Show = None,
    overwrite: OverwriteOption = False,
    stats_json: StatsJson = None,
    quiet: Quiet = False,
    json: JsonOption = False,
) -> None:
    """Read cameras, streams and videos; find faces, label their apparent expression, and write records and video.

    Exit code 0 at the end or a limit, 1 where all sources or a sink failed, 4 where some sources failed.

    Example: deepfer stream clip.mp4 --sink jsonl=out.jsonl --sink video=annotated.mp4
    """
    flags = dict(locals())
    given = {flag: flags[flag] for flag in FLAGS} | {
        "allow_host": allow_host or None,
        "input_option": _pairs(input_option),
        "overwrite": overwrite or None,
    }
    raise typer.Exit(_run(sources, model, config, sink or ["jsonl=-"], given, stats_json, is_quiet=quiet, is_json=json))


FLAGS = (
    *(
        "detector",
        "face_model",
        "detect_size",
        "detect_every",
        "policy",
        "max_age",
        "smooth",
        "hold",
        "min_confidence",
        "retries",
    ),
    *(
        "open_timeout",
        "read_timeout",
        "stall",
        "rtsp_transport",
        "max_frames",
        "max_seconds",
        "fail_fast",
        "anonymise",
        "show",
    ),
)


def _run(
    sources: list[str],
    model: Path | None,
    config: str | None,
    sinks: list[str],
    flags: dict[str, Any],
    stats: Path | None,
    *,
    is_quiet: bool,
    is_json: bool,
) -> int:
    import sys

    from deepfer_yolo.cli.app import end_where_signalled
    from deepfer_yolo.cli.options import note_haar, open_classifier
    from deepfer_yolo.config import StreamConfig
    from deepfer_yolo.presets import key_of, resolve
    from deepfer_yolo.stream.display import LiveStatus
    from deepfer_yolo.stream.session import run_stream

    settings = resolve(StreamConfig, config, {key_of(StreamConfig, flag): value for flag, value in flags.items()})
    classifier = open_classifier(model, provider=settings.provider, threads=settings.threads)
    note_haar(settings)
    takes_stdout = "jsonl=-" in sinks

    def tick(pipeline: Pipeline) -> None:
        end_where_signalled()
        status.tick(pipeline)

    is_table = sys.stderr.isatty() and not (takes_stdout and sys.stdout.isatty())
    with LiveStatus(is_table=is_table and not is_quiet, stats=stats, is_quiet=is_quiet) as status:
        try:
            others = [stats] if stats is not None else []
            summary = run_stream(sources, classifier, sinks, settings, on_tick=tick, others=others)
        except (KeyboardInterrupt, SystemExit):
            # A signal ends the run; what was done until then is told all the same.
            if status.pipeline is not None:
                _conclude(status.pipeline.summary(), status, is_json=is_json, takes_stdout=takes_stdout)
            raise
        _conclude(summary, status, is_json=is_json, takes_stdout=takes_stdout)
    return summary.exit_code


def _conclude(summary: Summary, status: LiveStatus, *, is_json: bool, takes_stdout: bool) -> None:
    from deepfer_yolo.cli.output import print_json, stderr, stdout
    from deepfer_yolo.stream.display import summary_table

    status.close(summary)
    if is_json and not takes_stdout:
        print_json(summary.to_json())
    else:
        (stderr() if takes_stdout else stdout()).print(summary_table(summary))


def _pairs(texts: list[str] | None) -> dict[str, str] | None:
    """`KEY=VALUE` texts as a dictionary; None for none."""
    if not texts:
        return None
    from deepfer_yolo.errors import ConfigError

    for text in texts:
        if "=" not in text:
            raise ConfigError(f"--input-option takes KEY=VALUE, not '{text}'")
    return dict(text.split("=", 1) for text in texts)
