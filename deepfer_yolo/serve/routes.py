"""The REST routes."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request  # noqa: TID253 (only `deepfer serve` imports this package)
from starlette.responses import Response

from deepfer_yolo import __version__
from deepfer_yolo.serve import schemas
from deepfer_yolo.serve.metrics import CONTENT_TYPE
from deepfer_yolo.serve.schemas import MEDIA_TYPE, Problem
from deepfer_yolo.serve.services import Services
from deepfer_yolo.serve.upload import Upload, flag, read_form

SCHEMA = 1
REFUSALS = {
    400: "The form cannot be read.",
    401: "The server wants a token.",
    403: "The request comes from another site.",
    408: "The body took too long.",
    413: "Too many bytes, pixels, seconds, files or fields.",
    415: "The body is not multipart/form-data.",
    421: "The Host header is not one of this server's names.",
    422: "What was sent cannot be used.",
    429: "Too many requests, uploads or bytes at once.",
    503: "The server is not ready, or all decode workers are busy.",
}
READ_REFUSALS = (401, 403, 421, 422, 429)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented problem answers with these statuses."""
    content = {MEDIA_TYPE: {"schema": schemas.ProblemDocument.model_json_schema()}}
    return {status: {"description": REFUSALS[status], "content": content} for status in statuses}


def form(files: dict[str, Any], **fields: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI request body of a form with files."""
    schema = {"type": "object", "required": ["files"], "properties": {"files": files, **fields}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


BINARY = {"type": "string", "format": "binary"}
BOOLEAN = {
    "type": "boolean",
    "description": "Find the faces first; otherwise each picture is one face, cut out already. Wins over the query.",
}


def add_upload_routes(app: FastAPI, services: Services) -> None:
    """`POST /v1/predict` and `POST /v1/video`."""
    config = services.config

    @app.post(
        "/v1/predict",
        summary="Label pictures",
        tags=["label"],
        responses={200: {"model": schemas.Predicted}, **refusals(*REFUSALS)},
        openapi_extra=form(
            {"type": "array", "items": BINARY, "minItems": 1, "maxItems": config.max_pictures}, faces=BOOLEAN
        ),
    )
    async def predict(request: Request, faces: bool = False) -> Response:
        """One or many pictures to labelled faces.

        A picture that cannot be read has an `error`; when none can, the answer is a problem.
        """
        uploaded = await read_form(request, file_field="files", max_files=config.max_pictures)
        wanted = flag(uploaded.fields.get("faces"), faces, "faces")
        pictures = await asyncio.gather(*(_label(services, upload, faces=wanted) for upload in uploaded.files))
        rows = [_row_or_error(row) for row in pictures]
        problems = [row for row in pictures if isinstance(row, Problem)]
        if len(problems) == len(rows):
            raise Problem(problems[0].status, problems[0].detail, headers=problems[0].headers, pictures=rows)
        return _json(
            {"schema_version": SCHEMA, "model": services.classifier.card.name, "faces": wanted, "pictures": rows}
        )

    @app.post(
        "/v1/video",
        summary="Label a short video",
        tags=["label"],
        responses={200: {"model": schemas.Watched}, **refusals(*REFUSALS)},
        openapi_extra=form({"type": "array", "items": BINARY, "minItems": 1, "maxItems": 1}),
    )
    async def video(request: Request) -> Response:
        """One video (MP4, WebM, Matroska, AVI or Ogg) to tracked faces over time and the events of each."""
        uploaded = await read_form(request, file_field="files", max_files=1)
        watched = await services.label_video(uploaded.files[0].content)
        head = {"schema_version": SCHEMA, "model": services.classifier.card.name, "name": uploaded.files[0].name}
        return _json(head | watched)


def add_read_routes(app: FastAPI, services: Services) -> None:
    """`/v1/model`, `/v1/sources`, health and metrics."""

    @app.get(
        "/v1/model",
        summary="The model card and the limits",
        tags=["model"],
        responses={200: {"model": schemas.ModelFacts}, **refusals(*READ_REFUSALS)},
    )
    async def model() -> Response:
        """What the model is, how it was measured, what it may be used for, and what one request may hold."""
        return _json(_facts(services))

    @app.get(
        "/v1/sources",
        summary="State of the live sources",
        tags=["live"],
        responses={200: {"model": schemas.LiveSources}, **refusals(*READ_REFUSALS)},
    )
    async def sources() -> Response:
        """The sources that were named on the command line; nobody can add one over the network."""
        rows = services.live.rows() if services.live is not None else []
        return _json({"schema_version": SCHEMA, "sources": rows})

    @app.get(
        "/v1/sources/{index}/picture",
        summary="The latest picture of a live source",
        tags=["live"],
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}},
            404: refusals(422)[422] | {"description": "No such source, or no picture yet."},
            **refusals(*READ_REFUSALS),
        },
    )
    async def picture(index: int) -> Response:
        """A JPEG with the faces marked."""
        jpeg = await asyncio.to_thread(services.live.picture, index) if services.live is not None else None
        if jpeg is None:
            raise Problem(404, "no such source, or no picture of it yet")
        return Response(jpeg, media_type="image/jpeg")

    @app.get(
        "/healthz",
        summary="Is the process alive?",
        tags=["health"],
        responses={200: {"model": schemas.Health}, **refusals(403, 421)},
    )
    async def healthz() -> Response:
        """Answers while the event loop runs."""
        return _json({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Can it answer?",
        tags=["health"],
        responses={200: {"model": schemas.Health}, **refusals(403, 421, 503)},
    )
    async def readyz() -> Response:
        """Answers 200 when the model is loaded and a decode worker is up."""
        if not services.is_ready or services.pool.n_alive == 0:
            raise Problem(503, "starting, stopping, or without decode workers", headers={"Retry-After": "1"})
        return _json({"status": "ready"})

    metrics_answers = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(401, 403, 421, 429)}

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        tags=["health"],
        response_class=Response,
        responses=metrics_answers,
    )
    async def metrics() -> Response:
        """Counters, latencies, batch sizes and memory."""
        return Response(services.metrics.text(services.gauges()), headers={"content-type": CONTENT_TYPE})


async def _label(services: Services, upload: Upload, *, faces: bool) -> dict[str, Any] | Problem:
    try:
        labelled = await services.label_picture(upload.content, faces=faces)
    except Problem as problem:
        problem.more["name"] = upload.name
        return problem
    return {"name": upload.name, **labelled}


def _row_or_error(row: dict[str, Any] | Problem) -> dict[str, Any]:
    return {"name": row.more["name"], "error": row.detail} if isinstance(row, Problem) else row


def _facts(services: Services) -> dict[str, Any]:
    config, live = services.config, services.live
    limits = {
        "body_mb": config.max_body_mb,
        "pictures": config.max_pictures,
        "megapixels": config.max_megapixels,
        "video_s": config.max_video_s,
    }
    return {
        "schema_version": SCHEMA,
        "card": services.classifier.card.model_dump(mode="json"),
        "provider": services.classifier.provider,
        "detector": services.detector,
        "limits": limits,
        "sources": live.n_sources if live is not None else 0,
        "version": __version__,
    }


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content, ensure_ascii=False, allow_nan=False), media_type="application/json")


PACKAGE = Path(__file__).parent.parent
SUFFIXES = frozenset({".py", ".html", ".js", ".css", ".svg", ".yaml", ".typed"})
EPOCH = (2026, 1, 1, 0, 0, 0)
"""One date for all members, so that the same source is the same file."""


@cache
def source_zip() -> bytes:
    """The package as it is installed here, with its licence."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(PACKAGE.rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                _add(archive, f"deepfer_yolo/{path.relative_to(PACKAGE)}", path.read_bytes())
        for name, text in _beside().items():
            _add(archive, name, text)
    return content.getvalue()


def _beside() -> dict[str, bytes]:
    """Licence and build file: from the source tree where there is one, else from the installed distribution."""
    found = {
        name: path.read_bytes()
        for name in ("LICENSE", "pyproject.toml", "README.md")
        if (path := PACKAGE.parent / name).is_file()
    }
    if "LICENSE" not in found:
        for file in metadata.files("deepfer-yolo") or []:
            if file.name in ("LICENSE", "METADATA"):
                found[file.name] = file.read_binary()
    return found


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
