"""The application of `serve --local`: the files of the page that labels in the visitor's browser, and nothing else.

No route takes a body, so that no image can reach the server, whatever a page does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI  # noqa: TID253 (only `deepfer serve` imports this package)
from starlette.responses import Response

from deepfer_yolo import __version__
from deepfer_yolo.serve import schemas
from deepfer_yolo.serve.app import add_errors, add_file
from deepfer_yolo.serve.metrics import Metrics
from deepfer_yolo.serve.middleware import HEADERS, Guard

if TYPE_CHECKING:
    from deepfer_yolo.servers import ServeConfig
    from deepfer_yolo.web.bundle import WebFiles

LOCAL_HEADERS = {
    **HEADERS,
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    # With the opener policy that all pages have, this would let the engine use a second thread.
    "cross-origin-embedder-policy": "require-corp",
}


def create_local_app(files: WebFiles, config: ServeConfig) -> Guard:
    """The whole server as one ASGI application; each file is read once and has a route of its own."""
    app = FastAPI(title="DeepFER", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    for name, source in files.items():
        content = source if isinstance(source, bytes) else source.read_bytes()
        add_file(app, f"/{name}", content, name)
        if name == "index.html":
            add_file(app, "/", content, name)
    for route, status in {"/healthz": "ok", "/readyz": "ready"}.items():
        _add_health(app, route, schemas.Health(status=status))
    add_errors(app)
    return Guard(app, config, Metrics(), LOCAL_HEADERS)


def _add_health(app: FastAPI, route: str, health: schemas.Health) -> None:
    async def answer() -> Response:
        return Response(health.model_dump_json(exclude_unset=True), media_type="application/json")

    app.add_api_route(route, answer, methods=["GET"])
