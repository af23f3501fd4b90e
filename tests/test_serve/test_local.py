"""`serve --local`: files alone, under headers that let the browser run the model and send nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from deepfer_yolo.errors import MissingDependencyError
from deepfer_yolo.serve.local import create_local_app
from deepfer_yolo.servers import ServeConfig

PAGE = Path(__file__).parents[2] / "deepfer_yolo" / "web" / "page"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module", autouse=True)
def has_runtime() -> None:
    """Skip where onnxruntime-web was not fetched."""
    from deepfer_yolo.web.runtime_files import runtime_files

    try:
        runtime_files()
    except MissingDependencyError as error:
        pytest.skip(f"{error}; {error.hint}")


@pytest.fixture(scope="module")
def site(start_server: Callable[..., Any]) -> Any:
    """A server of the smallest shipped model, without a face detector."""
    return start_server(Path("deepfer-xs"), "--local", detector="whole", rate_per_s=0)


@pytest.fixture
def visitor(site: Any) -> Iterator[httpx.Client]:
    """A client of `site`."""
    with httpx.Client(base_url=site.url, timeout=30) as opened:
        yield opened


def test_every_file_of_the_list_is_served_as_it_is_listed(visitor: httpx.Client) -> None:
    import hashlib

    told = visitor.get("/files.json").raise_for_status().json()
    listed = {file["path"]: file for file in told["files"]}
    assert {"index.html", "app.js", "sw.js", "model.onnx", "engine/index.js"} - {"sw.js"} <= set(listed)
    kinds = {
        ".js": "text/javascript",
        ".css": "text/css",
        ".webmanifest": "application/manifest+json",
        ".png": "image/png",
    }
    for path, file in listed.items():
        answer = visitor.get(f"/{path}").raise_for_status()
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"], path
        assert answer.headers["content-type"].startswith(kinds.get(Path(path).suffix, ""))
        again = visitor.get(f"/{path}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
    assert visitor.get("/").content == visitor.get("/index.html").content
    assert told["version"] in visitor.get("/sw.js").text
    assert visitor.get("/readyz").json() == {"status": "ready"}
    for elsewhere in (
        "/../servers.py",
        "/..%2fservers.py",
        "/engine/",
        "/static/app.js",
        "/docs",
        "/openapi.json",
        "/metrics",
    ):
        assert visitor.get(elsewhere).status_code == 404, elsewhere


def test_the_headers_let_the_page_compile_the_engine_and_nothing_else(visitor: httpx.Client) -> None:
    for path in ("/", "/app.js", "/engine/worker.js", "/sw.js", "/nothing"):
        headers = visitor.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert policy["connect-src"] == policy["worker-src"] == policy["manifest-src"] == "'self'"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"
    meta = re.search(r'Content-Security-Policy" content="([^"]+)"', (PAGE / "index.html").read_text())
    assert meta is not None
    # The same in the page itself, for hosts that send no headers; who may frame it only a header can say.
    served = visitor.get("/").headers["content-security-policy"]
    assert served == f"{meta[1]}; frame-ancestors 'none'"


def test_no_route_takes_an_image(site: Any, visitor: httpx.Client, server: Any) -> None:
    """What the server that labels offers for images is not there, and no route knows any method but GET."""
    image = {"files": ("face.png", b"\x89PNG", "image/png")}
    calls = httpx.get(f"{server.url}openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/video", "/v1/sources"} <= set(calls)
    for path in calls:
        if path.startswith("/v1/"):
            for method in ("GET", "POST", "PUT"):
                assert visitor.request(method, path.replace("{index}", "0"), files=image).status_code == 404, path
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{site.url.replace('http', 'ws')}v1/camera").close()
    assert refused.value.response.status_code in (403, 404)
    for path in ("/", "/index.html", "/model.onnx", "/healthz"):
        assert visitor.post(path, files=image).status_code == 405
        assert visitor.put(path, content=b"\x89PNG").status_code == 405
    guard: Any = create_local_app({"index.html": b"", "a.js": b""}, ServeConfig(local=True))
    routes = [route for route in guard._app.routes if isinstance(route, Route)]
    assert len(routes) == len(guard._app.routes) == 5
    assert {method for route in routes for method in route.methods or ()} == {"GET"}


def test_with_a_token_and_under_a_path_the_files_are_for_those_who_were_let_in(
    start_server: Callable[..., Any],
) -> None:
    served = start_server(Path("deepfer-xs"), "--local", detector="whole", token=TOKEN, root_path="/faces")
    with httpx.Client(base_url=served.url, timeout=30) as stranger:
        assert stranger.get("/faces/model.onnx").status_code == 401
        entered = stranger.get(f"/faces/?token={TOKEN}")
        assert entered.status_code == 303
        assert entered.headers["location"] == "/faces/"
        assert "Path=/faces;" in entered.headers["set-cookie"]
        for path in ("/faces/", "/faces/sw.js", "/faces/model.onnx"):
            assert stranger.get(path).status_code == 200


def test_what_a_browser_cannot_do_is_refused(deepfer: Callable[..., Any]) -> None:
    refused = deepfer("serve", "--local", "-m", "deepfer-xs", "--detector", "haar")
    assert (refused.returncode, "YuNet alone" in refused.stderr) == (1, True)
    refused = deepfer("serve", "--local", "-m", "deepfer-xs", "--source", "testsrc=size=160x120")
    assert (refused.returncode, "--source needs a server that sees images" in refused.stderr) == (1, True)
    refused = deepfer("serve", "--local", "--detect-size", "640", "--threads", "1", "--max-batch", "8")
    assert (refused.returncode, "detect_size_px, max_batch, threads" in refused.stderr) == (1, True)


def test_the_page_names_no_other_host_and_holds_no_inline_code() -> None:
    texts = {
        path.name: path.read_text()
        for path in PAGE.rglob("*")
        if path.suffix in (".js", ".html", ".css", ".webmanifest")
    }
    for name, text in texts.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(
            r"\b(eval\(|new Function|XMLHttpRequest|sendBeacon|WebSocket|RTCPeerConnection)\b", text
        ), name
    html = texts["index.html"]
    assert "onclick" not in html
    assert " style=" not in html
    manifest = json.loads(texts["manifest.webmanifest"])
    assert all((PAGE / icon["src"]).is_file() for icon in manifest["icons"])
