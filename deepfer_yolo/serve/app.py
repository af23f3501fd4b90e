"""The application: routes, page, errors and the guard around them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, WebSocket  # noqa: TID253 (only `deepfer serve` imports this package)
from fastapi.exceptions import RequestValidationError  # noqa: TID253
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from deepfer_yolo import __version__
from deepfer_yolo.serve.camera_socket import serve_camera
from deepfer_yolo.serve.middleware import Door, Guard, allowed_hosts
from deepfer_yolo.serve.routes import add_read_routes, add_upload_routes, source_zip
from deepfer_yolo.serve.schemas import MEDIA_TYPE, Problem
from deepfer_yolo.serve.services import Services

if TYPE_CHECKING:
    from deepfer_yolo.config import ServeConfig
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.serve.live_sources import LiveBoard

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
DESCRIPTION = (
    "Labels the apparent expression of faces in pictures and videos. It does not know what anyone feels. "
    "Pictures are decoded in memory and forgotten; errors are problem+json (RFC 9457)."
)


def create_app(classifier: Classifier, config: ServeConfig, live: LiveBoard | None = None) -> Guard:
    """The whole server as one ASGI application."""
    services = Services(classifier, config, live)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await services.start()
        yield
        await services.close()

    app = FastAPI(
        title="DeepFER",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    add_upload_routes(app, services)
    add_read_routes(app, services)
    _add_page(app)
    _add_errors(app)

    @app.websocket("/v1/camera")
    async def camera(websocket: WebSocket) -> None:
        await serve_camera(websocket, services)

    door = Door(
        allowed_hosts(config.host, config.allow_host),
        config.token,
        int(config.max_body_mb * 1e6),
        config.body_timeout_s,
    )
    return Guard(app, door, services.rate, services.uploads, services.budget, services.metrics)


def _add_page(app: FastAPI) -> None:
    """The page's files, each under a fixed route: no path of a client's ever becomes a file's."""
    for path in sorted(PAGE.iterdir()):
        if path.suffix in TYPES:
            route = {"index.html": "/", "docs.html": "/docs"}.get(path.name, f"/static/{path.name}")
            app.add_api_route(route, _file_route(path), methods=["GET"], include_in_schema=False)

    @app.get("/source.zip", include_in_schema=False)
    def source() -> Response:
        headers = {"content-disposition": 'attachment; filename="deepfer-source.zip"'}
        return Response(source_zip(), media_type="application/zip", headers=headers)


def _file_route(path: Path) -> Any:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}

    async def send_file(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=TYPES[path.suffix], headers=headers)

    return send_file


def _add_errors(app: FastAPI) -> None:
    """Every refusal leaves as problem+json."""

    def answer(problem: Problem) -> Response:
        return Response(problem.body(), problem.status, problem.headers, MEDIA_TYPE)

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> Response:
        return answer(problem)

    @app.exception_handler(ClientDisconnect)
    async def on_leaving(request: Request, error: ClientDisconnect) -> Response:
        # Nobody reads it; the server only has to get over it.
        return answer(Problem(400, "the client left in the middle of the body", headers={"Connection": "close"}))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        return answer(Problem(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def on_validation(request: Request, error: RequestValidationError) -> Response:
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        return answer(Problem(422, places))

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        # Starlette logs the traceback and raises on; the client learns nothing of the inside.
        return answer(Problem(500, "an error of the server's own; its log has the details"))
