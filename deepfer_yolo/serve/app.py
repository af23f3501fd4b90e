"""The application: routes, page, source code, errors and the guard around them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib import metadata
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

if TYPE_CHECKING:
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.serve.live_sources import LiveBoard
    from deepfer_yolo.servers import ServeConfig

PACKAGE = Path(__file__).parent.parent
SUFFIXES = frozenset({".py", ".html", ".js", ".css", ".svg", ".yaml", ".typed"})
EPOCH = (2026, 1, 1, 0, 0, 0)
"""One date for all members, so that the same source is the same file."""
PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
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
    add_page(app, PAGE)
    add_errors(app)

    @app.websocket("/v1/camera")
    async def camera(websocket: WebSocket) -> None:
        await serve_camera(websocket, services)

    return Guard(app, config, services.metrics)


def add_page(app: FastAPI, folder: Path, also: Sequence[str] = ()) -> None:
    """A page's files, and those of this one that it uses `also`, each under a fixed route: no path of a client's ever
    becomes a file's; and the source.
    """
    for path in [*sorted(folder.iterdir()), *(PAGE / name for name in also)]:
        if path.suffix in TYPES:
            route = {"index.html": "/", "docs.html": "/docs"}.get(path.name, f"/static/{path.name}")
            app.add_api_route(route, _file_route(path), methods=["GET"], include_in_schema=False)

    @app.get("/source.zip", include_in_schema=False)
    def source() -> Response:
        headers = {"content-disposition": 'attachment; filename="deepfer-source.zip"'}
        return Response(source_zip(), media_type="application/zip", headers=headers)


def _file_route(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"etag": etag, "cache-control": "no-cache"}

    async def send_file(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=TYPES[path.suffix], headers=headers)

    return send_file


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


@cache
def source_zip() -> bytes:
    """The package as it is installed here, with its licence."""
    own = (path for path in PACKAGE.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    members = {f"deepfer_yolo/{path.relative_to(PACKAGE)}": path.read_bytes() for path in sorted(own)} | _beside()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED)
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
