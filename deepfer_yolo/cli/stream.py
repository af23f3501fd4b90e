"""`deepfer stream`: cameras, network streams and video files to faces, events and annotated video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepfer_yolo.cli.options import ConfigOption, JsonOption, ModelOption


def stream(
    sources: Annotated[
        list[str],
        typer.Argument(help="Video files, folders of them, URLs (rtsp, http, …), camera indices, /dev/video paths or testsrc.", show_default=False),
    ],
    model: ModelOption = None,
    config: ConfigOption = None,
    sink: Annotated[
        list[str] | None, typer.Option("--sink", help="Where results go, repeatable: jsonl=FILE, video=FILE.", show_default="jsonl=-")
    ] = None,
    detector: Annotated[
        str | None, typer.Option("--detector", help="yunet, haar, whole (each picture is one face) or auto.", show_default="auto")
    ] = None,
    face_model: Annotated[Path | None, typer.Option("--face-model", help="The YuNet file.", show_default="$DEEPFER_FACE_MODEL")] = None,
    detect_size: Annotated[
        int | None, typer.Option("--detect-size", help="Longer side in pixels of what the detector sees.", show_default="320 yunet, 640 haar")
    ] = None,
    detect_every: Annotated[int | None, typer.Option("--detect-every", help="Search every n-th picture, follow between.", show_default="1")] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="latest, bounded or lossless.", show_default="lossless for files, else latest")
    ] = None,
    max_age: Annotated[float | None, typer.Option("--max-age", help="Oldest picture that `bounded` processes, in s.", show_default="0.5")] = None,
    max_frames: Annotated[int | None, typer.Option("--max-frames", help="End each source after so many.", show_default="no limit")] = None,
    max_seconds: Annotated[float | None, typer.Option("--max-seconds", help="End the run after so long.", show_default="no limit")] = None,
    fail_fast: Annotated[bool | None, typer.Option("--fail-fast", help="End the run when any source fails.", show_default="off")] = None,
    anonymise: Annotated[
        bool | None, typer.Option("--anonymise", help="Make faces unrecognisable in every picture that leaves.", show_default="off")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Read cameras, streams and videos; find faces, label their apparent expression, and write records and video.

    Example: deepfer stream clip.mp4 --sink jsonl=out.jsonl --sink video=annotated.mp4
    """
    import sys

    from deepfer_yolo.cli.opening import open_classifier
    from deepfer_yolo.cli.output import print_json, stderr, stdout
    from deepfer_yolo.config import StreamConfig, resolve
    from deepfer_yolo.stream.session import run_stream
    from deepfer_yolo.stream.tables import summary_table

    flags = {
        "detector": detector,
        "face_model": face_model,
        "detect_size": detect_size,
        "detect_every": detect_every,
        "policy": policy,
        "max_age": max_age,
        "max_frames": max_frames,
        "max_seconds": max_seconds,
        "fail_fast": fail_fast,
        "anonymise": anonymise,
    }
    settings = resolve(StreamConfig, config, flags)
    sinks = sink or ["jsonl=-"]
    classifier = open_classifier(model, provider=settings.provider, threads=settings.threads)
    summary = run_stream(sources, classifier, sinks, settings)
    is_stdout_taken = "jsonl=-" in sinks
    if json and not is_stdout_taken:
        print_json(summary.to_dict())
    else:
        (stderr() if is_stdout_taken else stdout()).print(summary_table(summary))
    sys.stdout.flush()
    raise typer.Exit(summary.exit_code)
