"""`deepfer serve`: the local web app and REST."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import LiveModelOption, options_of
from deepfer_yolo.errors import LIVE, lacking_live, require
from deepfer_yolo.servers import ServeConfig, ServerConfig

if TYPE_CHECKING:
    from deepfer_yolo.serve.middleware import Guard

LOCAL_KEYS = {"local", "detector", "face_model", *ServerConfig.model_fields}
"""What counts with --local: the page finds and labels faces in its own way."""


@options_of(
    ServeConfig,
    "model local host port is_opened token allow_host root_path source detector face_model detect_size provider "
    "threads workers max_batch max_wait_ms rate config",
)
def serve(
    settings: ServeConfig,
    model: LiveModelOption = None,
    is_opened: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="A camera, stream or video to watch live; repeatable.", show_default="none"
        ),
    ] = None,
) -> None:
    """Serve the model on this machine: a page with camera, images and videos, and REST.

    Only this machine is let in unless --host says otherwise. Uploads are decoded in memory and forgotten; the page asks
    before it starts a camera. With --local the model runs in the visitor's browser, which can do so without a network
    after the first visit: no image reaches the server. All limits are keys of --config. GET /docs lists the REST calls.
    Ends with Ctrl-C or SIGTERM, exit code 0.

    Example: deepfer serve -m best.onnx --open
    """
    from deepfer_yolo.serve import server

    server.check_exposure(settings)
    name, app = _local_app(settings, model, source) if settings.local else _app(settings, model, source)
    listener = server.bind(settings.host, settings.port)

    def on_ready() -> None:
        url = server.url_of(listener)
        place = " for the visitor's browser" if settings.local else ""
        print(f"deepfer serves {name}{place} at {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        if is_opened:
            typer.launch(server.entry_url(url, settings.token))

    with listener:
        server.run(app, settings, listener, on_ready)


def _app(settings: ServeConfig, model: Path | None, source: list[str] | None) -> tuple[str, Guard]:
    """The model's name, and the server that labels."""
    from deepfer_yolo.cli.options import note_drawing, note_haar, open_classifier, say_all
    from deepfer_yolo.serve.app import create_app
    from deepfer_yolo.serve.live_sources import LiveBoard
    from deepfer_yolo.stream.address import parse_sources

    if source:
        require(*LIVE)
    classifier = open_classifier(model, provider=settings.provider, threads=settings.threads, from_frames=True)
    if (lacking := lacking_live()) is not None:
        say_all(["note: images that are faces already are labelled, and nothing else", f"hint: {lacking.hint}"])
    else:
        note_haar(settings)
    if source:
        note_drawing(classifier.labels)
    live = LiveBoard(parse_sources(source), classifier, settings) if source else None
    return classifier.card.name, create_app(classifier, settings, live)


def _local_app(settings: ServeConfig, model: Path | None, source: list[str] | None) -> tuple[str, Guard]:
    """The model's name, and the server that hands out the page and the model."""
    from deepfer_yolo.cli.options import say_all
    from deepfer_yolo.errors import ConfigError, listed
    from deepfer_yolo.serve.local import create_local_app
    from deepfer_yolo.web.bundle import model_name, web_detector, web_files

    if source:
        raise ConfigError("--source needs a server that sees images, which --local is not", "leave one of them out")
    if given := sorted(settings.model_fields_set - LOCAL_KEYS):
        reason = "with --local the visitor's browser does the work in its own way, and these keys say nothing to it: "
        raise ConfigError(reason + listed(given), "leave them out")
    detector = web_detector(settings)
    if detector is None and settings.detector == "auto":
        say_all(["no YuNet file here: visitors mark faces by hand (deepfer models pull yunet)"])
    files = web_files(model, detector)
    return model_name(files), create_local_app(files, settings)
