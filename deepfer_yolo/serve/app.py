"""The application: routes, page, source code, errors and the guard around them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, WebSocket  # noqa: TID253 (only `deepfer serve` imports this package)
from fastapi.exceptions import RequestValidationError  # noqa: TID253
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from deepfer_yolo import __version__
from deepfer_yolo.serve.camera_socket import serve_camera
from deepfer_yolo.serve.middleware import Guard
from deepfer_yolo.serve.routes import add_routes
from deepfer_yolo.serve.schemas import ProblemError
from deepfer_yolo.serve.services import Services
from deepfer_yolo.web.source import PAGE as WEB_PAGE
from deepfer_yolo.web.source import source_zip

if TYPE_CHECKING:
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.serve.live_sources import LiveBoard
    from deepfer_yolo.servers import ServeConfig

PAGE = Path(__file__).parent / "page"
SHARED = ("camera.js", "elements.js", "icon.svg", "model.js", "style.css", "uploads.js")
"""What this page has of the one that labels in the browser."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
    ".zip": "application/zip",
    ".gz": "application/gzip",
    ".wasm": "application/wasm",
}
BINARY = "application/octet-stream"
DESCRIPTION = (
    "Labels the apparent expression of faces in images and videos. It does not know what anyone feels. "
    "Images are decoded in memory and forgotten; errors are problem+json (RFC 9457)."
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
    add_routes(app, services)
    add_page(app, PAGE, SHARED)
    add_errors(app)

    @app.websocket("/v1/camera")
    async def camera(websocket: WebSocket) -> None:
        await serve_camera(websocket, services)

    return Guard(app, config, services.metrics)


def add_page(app: FastAPI, folder: Path, shared: Sequence[str]) -> None:
    """A page's files, and the `shared` ones, each under a fixed route: no path of a client's ever becomes a file's; and
    the source.
    """
    for path in [*sorted(folder.iterdir()), *(WEB_PAGE / name for name in shared)]:
        if path.suffix in TYPES:
            route = {"index.html": "/", "docs.html": "/docs"}.get(path.name, f"/static/{path.name}")
            add_file(app, route, path.read_bytes(), path.name)

    @app.get("/source.zip", include_in_schema=False)
    def source() -> Response:
        headers = {"content-disposition": 'attachment; filename="deepfer-source.zip"'}
        return Response(source_zip(), media_type="application/zip", headers=headers)


def add_file(app: FastAPI, route: str, content: bytes, name: str) -> None:
    """A route that answers with `content`, the file called `name`; browsers ask each time whether it has changed."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    kind = TYPES.get(Path(name).suffix, BINARY)

    async def send_file(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    app.add_api_route(route, send_file, methods=["GET"], include_in_schema=False)


def add_errors(app: FastAPI) -> None:
    """Every refusal leaves as problem+json."""

    @app.exception_handler(ProblemError)
    async def on_problem(request: Request, problem: ProblemError) -> Response:
        return problem.response()

    @app.exception_handler(ClientDisconnect)
    async def on_leaving(request: Request, error: ClientDisconnect) -> Response:
        # Nobody reads it; the server only has to get over it.
        left = ProblemError(400, "the client left in the middle of the body", headers={"Connection": "close"})
        return left.response()

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        return ProblemError(error.status_code, str(error.detail), headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def on_validation(request: Request, error: RequestValidationError) -> Response:
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        return ProblemError(422, places).response()

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        # Starlette logs the traceback and raises on; the client learns nothing of the inside.
        return ProblemError(500, "an error of the server's own; its log has the details").response()
