"""`deepfer serve`: the local web app and REST."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deepfer_yolo.cli.options import LiveModelOption, options_of
from deepfer_yolo.servers import ServeConfig


@options_of(
    ServeConfig,
    "model host port is_opened token allow_host root_path source detector face_model detect_size provider "
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
    before it starts a camera. All limits are keys of --config. GET /docs lists the REST calls. Ends with Ctrl-C or
    SIGTERM, exit code 0.

    Example: deepfer serve -m best.onnx --open
    """
    from deepfer_yolo.cli.options import note_drawing, note_haar, open_classifier
    from deepfer_yolo.serve import server
    from deepfer_yolo.serve.app import create_app
    from deepfer_yolo.serve.live_sources import LiveBoard
    from deepfer_yolo.stream.address import parse_sources

    server.check_exposure(settings)
    classifier = open_classifier(model, provider=settings.provider, threads=settings.threads, from_frames=True)
    note_haar(settings)
    if source:
        note_drawing(classifier.labels)
    live = LiveBoard(parse_sources(source), classifier, settings) if source else None
    listener = server.bind(settings.host, settings.port)

    def on_ready() -> None:
        url = server.url_of(listener)
        print(f"deepfer serves {classifier.card.name} at {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        if is_opened:
            typer.launch(server.entry_url(url, settings.token))

    with listener:
        server.run(create_app(classifier, settings, live), settings, listener, on_ready)
