"""`deepfer serve`: the local web app and REST."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deepfer_yolo.cli.options import ConfigOption, ModelOption


def serve(
    model: ModelOption = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; any but this machine's own needs a token.", show_default="127.0.0.1"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")
    ] = None,
    is_opened: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    token: Annotated[
        str | None, typer.Option(envvar="DEEPFER_TOKEN", help="What clients must know.", show_default="none")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Another name of this server, which needs a token; repeatable.", show_default="none"
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="A camera, stream or video to watch live; repeatable.", show_default="none"
        ),
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="auto, yunet, haar or whole (each picture is one face).", show_default="auto")
    ] = None,
    face_model: Annotated[
        Path | None, typer.Option(help="The YuNet detector's file.", show_default="the pulled one")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="What runs the model: cpu, cuda or tensorrt.", show_default="cpu")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model.", show_default="1")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that decode uploads.", show_default="2")] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Faces labelled in one inference at most.", show_default="32")
    ] = None,
    max_wait_ms: Annotated[
        float | None, typer.Option(help="How long a face waits for company.", show_default="2")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second of one client; 0: no limit.", show_default="100")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Serve the model on this machine: a page with camera, pictures and videos, and REST.

    Only this machine is let in unless --host says otherwise. Uploads are decoded in memory and forgotten; the page asks
    before it starts a camera. All limits are keys of --config. GET /docs lists the REST calls. Ends with Ctrl-C or
    SIGTERM, exit code 0.

    Example: deepfer serve -m best.onnx --open
    """
    from deepfer_yolo.cli.options import note_haar, open_classifier
    from deepfer_yolo.config import ServeConfig
    from deepfer_yolo.presets import resolve
    from deepfer_yolo.serve import server
    from deepfer_yolo.serve.live_sources import LiveBoard
    from deepfer_yolo.stream.address import parse_sources

    flags = {
        "host": host, "port": port, "token": token or None, "allow_host": allow_host or None, "detector": detector, "face_model": face_model,
        "provider": provider, "threads": threads, "workers": workers, "max_batch": max_batch, "max_wait_ms": max_wait_ms, "rate_per_s": rate,
    }  # fmt: skip
    settings = resolve(ServeConfig, config, flags)
    server.check_exposure(settings)
    classifier = open_classifier(model, provider=settings.provider, threads=settings.threads)
    note_haar(settings)
    live = LiveBoard(parse_sources(source), classifier, settings) if source else None
    listener = server.bind(settings.host, settings.port)

    def on_ready() -> None:
        url = server.url_of(listener)
        print(f"deepfer serves {classifier.card.name} at {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        if is_opened:
            typer.launch(server.entry_url(url, settings.token))

    with listener:
        server.run(classifier, settings, listener, live, on_ready)
