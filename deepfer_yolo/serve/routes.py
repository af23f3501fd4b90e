"""The REST routes."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request  # noqa: TID253 (only `deepfer serve` imports this package)
from pydantic import BaseModel
from starlette.responses import Response

from deepfer_yolo import __version__
from deepfer_yolo.records import Json
from deepfer_yolo.serve import schemas
from deepfer_yolo.serve.metrics import CONTENT_TYPE
from deepfer_yolo.serve.schemas import MEDIA_TYPE, SCHEMA, Picture, ProblemError
from deepfer_yolo.serve.services import Services
from deepfer_yolo.serve.upload import Upload, read_form

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
    501: "The server lacks what finds faces and reads videos.",
    503: "The server is not ready, or all decode workers are busy.",
}
READ_REFUSALS = (401, 403, 421, 422, 429)


def answers(answer: type[BaseModel] | Json, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented answers of a route: the good one, and the problems with these statuses."""
    problem: Any = {"content": {MEDIA_TYPE: {"schema": schemas.ProblemDocument.model_json_schema()}}}
    good = {"model": answer} if isinstance(answer, type) else {**answer}
    return {200: good, **{status: {"description": REFUSALS[status], **problem} for status in statuses}}


def form(max_files: int, **fields: Json) -> dict[str, Any]:
    """The request body of a form with files."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1, "maxItems": max_files}
    schema = {"type": "object", "required": ["files"], "properties": {"files": files, **fields}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def add_routes(app: FastAPI, services: Services) -> None:
    """All routes under `/v1`, health and metrics."""
    _add_uploads(app, services)
    _add_model(app, services)
    _add_sources(app, services)
    _add_health(app, services)


def _add_uploads(app: FastAPI, services: Services) -> None:
    config, model_name = services.config, services.classifier.card.name
    words = "Find the faces first; otherwise each image is one face, cut out already. Wins over the query."

    @app.post(
        "/v1/predict",
        summary="Label images",
        tags=["label"],
        responses=answers(schemas.Predicted, *REFUSALS),
        openapi_extra=form(config.max_pictures, faces={"type": "boolean", "description": words}),
    )
    async def predict(request: Request, faces: bool = False) -> Response:
        """One or many images to labelled faces.

        An image that cannot be read has an `error`; when none can, the answer is a problem.
        """
        uploaded = await read_form(request, file_field="files", max_files=config.max_pictures)
        wanted = uploaded.flag("faces", faces)
        labelled = await asyncio.gather(*(_label(services, upload, faces=wanted) for upload in uploaded.files))
        pictures = [picture for picture, _ in labelled]
        problems = [problem for _, problem in labelled if problem is not None]
        if len(problems) == len(pictures):
            rows = [picture.model_dump(exclude_unset=True) for picture in pictures]
            raise ProblemError(problems[0].status, problems[0].detail, headers=problems[0].headers, pictures=rows)
        return _json(schemas.Predicted(schema_version=SCHEMA, model=model_name, faces=wanted, pictures=pictures))

    @app.post(
        "/v1/video",
        summary="Label a short video",
        tags=["label"],
        responses=answers(schemas.Watched, *REFUSALS),
        openapi_extra=form(1),
    )
    async def video(request: Request) -> Response:
        """One video to tracked faces over time and the events of each.

        MP4, WebM, Matroska, AVI, Ogg, MPEG-TS, raw H.264, or an animated GIF or WebP.
        """
        uploaded = await read_form(request, file_field="files", max_files=1)
        return _json(await services.label_video(uploaded.files[0]))


async def _label(services: Services, upload: Upload, *, faces: bool) -> tuple[Picture, ProblemError | None]:
    try:
        return await services.label_image(upload, faces=faces), None
    except ProblemError as problem:
        return Picture(name=upload.name, error=problem.detail), problem


def _add_model(app: FastAPI, services: Services) -> None:
    config, live = services.config, services.live

    @app.get(
        "/v1/model",
        summary="The model card and the limits",
        tags=["model"],
        responses=answers(schemas.ModelFacts, *READ_REFUSALS),
    )
    async def model() -> Response:
        """What the model is, how it was measured, what it may be used for, and what one request may hold."""
        limits = schemas.Limits(
            body_mb=config.max_body_mb,
            pictures=config.max_pictures,
            megapixels=config.max_megapixels,
            video_s=config.max_video_s,
        )
        facts = schemas.ModelFacts(
            schema_version=SCHEMA,
            card=services.classifier.card.model_dump(mode="json"),
            provider=services.classifier.provider,
            detector=services.detector,
            has_live=services.lacking is None,
            limits=limits,
            sources=live.n_sources if live is not None else 0,
            version=__version__,
        )
        return _json(facts)


def _add_sources(app: FastAPI, services: Services) -> None:
    live = services.live

    @app.get(
        "/v1/sources",
        summary="State of the live sources",
        tags=["live"],
        responses=answers(schemas.LiveSources, *READ_REFUSALS),
    )
    async def sources() -> Response:
        """The sources that were named on the command line; nobody can add one over the network."""
        return _json(schemas.LiveSources(schema_version=SCHEMA, sources=live.rows() if live is not None else []))

    jpeg = answers({"content": {"image/jpeg": {}}}, *READ_REFUSALS)
    missing = jpeg[422] | {"description": "No such source, or no image yet."}

    @app.get(
        "/v1/sources/{index}/picture",
        summary="The latest image of a live source",
        tags=["live"],
        response_class=Response,
        responses={**jpeg, 404: missing},
    )
    async def picture(index: int) -> Response:
        """A JPEG with the faces marked."""
        preview = await asyncio.to_thread(live.preview, index) if live is not None else None
        if preview is None:
            raise ProblemError(404, "no such source, or no image of it yet")
        return Response(preview, media_type="image/jpeg")


def _add_health(app: FastAPI, services: Services) -> None:
    @app.get("/healthz", summary="Is the process alive?", tags=["health"], responses=answers(schemas.Health, 403, 421))
    async def healthz() -> Response:
        """Answers while the event loop runs."""
        return _json(schemas.Health(status="ok"))

    @app.get("/readyz", summary="Can it answer?", tags=["health"], responses=answers(schemas.Health, 403, 421, 503))
    async def readyz() -> Response:
        """Answers 200 when the model is loaded and a decode worker is up."""
        if not services.is_ready or not services.pool.pids:
            raise ProblemError(503, "starting, stopping, or without decode workers", headers={"Retry-After": "1"})
        return _json(schemas.Health(status="ready"))

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        tags=["health"],
        response_class=Response,
        responses=answers({"content": {"text/plain": {"schema": {"type": "string"}}}}, 401, 403, 421, 429),
    )
    async def metrics() -> Response:
        """Counters, latencies, batch sizes and memory."""
        return Response(services.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _json(answer: BaseModel) -> Response:
    # Fields that were never set are those that this answer does not have; None is a value.
    return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")
