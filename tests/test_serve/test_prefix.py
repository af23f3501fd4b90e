"""Published under a path by a real nginx, with and without the path cut off; HEAD; what may be a prefix."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.errors import ConfigError
from deepfer_yolo.records import Image
from deepfer_yolo.serve.prefix import is_prefix, placed, route_of
from deepfer_yolo.serve.server import check_exposure
from deepfer_yolo.servers import ServeConfig

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("text", ["/faces", "/a/b.c", "/~me/x-1"])
def test_what_is_a_prefix(text: str) -> None:
    assert is_prefix(text)
    check_exposure(ServeConfig(root_path=text))
    check_exposure(ServeConfig(root_path=f"{text}/"))


@pytest.mark.parametrize(
    "text", ["faces", "//evil.example", "/a//b", "/a b", "/a;x", "/a\r\nSet-Cookie: x", "/..", "/a/.", "/ä"]
)
def test_what_is_none_is_refused_and_of_strangers_passed_over(text: str) -> None:
    assert not is_prefix(text)
    with pytest.raises(ConfigError, match="--root-path"):
        check_exposure(ServeConfig(root_path=text))
    scope = {"type": "http", "path": "/x", "headers": [(b"x-forwarded-prefix", text.encode("utf-8"))]}
    assert placed(scope, "") == scope


def test_a_path_is_the_same_whether_the_proxy_cut_it_or_not() -> None:
    def of(path: str, root_path: str, header: bytes = b"") -> tuple[str, str]:
        scope = placed({"path": path, "headers": [(b"x-forwarded-prefix", header)]}, root_path)
        return scope["path"], route_of(scope)

    assert of("/v1/model", "/f") == of("/f/v1/model", "/f") == ("/f/v1/model", "/v1/model")
    assert of("/", "", b"/g/") == ("/g/", "/")
    assert of("/v1/model", "/f", b"/g") == ("/f/v1/model", "/v1/model")  # what is configured wins
    assert of("/fx", "/f") == ("/f/fx", "/fx")
    assert of("/f", "/f") == ("/f", "")


@pytest.fixture(scope="module", params=["cut", "kept"])
def published(
    request: Any, start_server: Callable[..., Any], start_nginx: Callable[..., str], linear_model: Path
) -> str:
    """The URL under which nginx publishes a server with a token: told by a header, or by --root-path."""
    if request.param == "cut":
        served = start_server(linear_model, token=TOKEN, workers=1, rate_per_s=0)
        return start_nginx(served.url, "/a/faces", cuts=True, more="proxy_set_header X-Forwarded-Prefix /a/faces;")
    served = start_server(linear_model, "--root-path", "/a/faces/", token=TOKEN, workers=1, rate_per_s=0)
    return start_nginx(served.url, "/a/faces", cuts=False)


def test_page_calls_and_camera_work_behind_a_real_proxy(
    published: str, faces: list[Image], png: Callable[[Image], bytes]
) -> None:
    from websockets.sync.client import connect

    with httpx.Client(base_url=published, timeout=30) as client:
        entered = client.get("", params={"token": TOKEN})
        assert (entered.status_code, entered.headers["location"]) == (303, "/a/faces/")
        assert "Path=/a/faces;" in entered.headers["set-cookie"]
        for page in ("", "docs"):
            text = client.get(page).text
            links = [link for link in re.findall(r'(?:href|src)="([^"#]+)"', text) if not link.startswith("http")]
            assert len(links) >= 4
            assert not [link for link in links if link.startswith("/")]
            for link in links:
                assert client.get(link).status_code == 200, link
        answer = client.post(
            "v1/predict", files={"files": ("a.png", png(faces[0]))}, headers={"Origin": published[:-9]}
        )
        assert answer.json()["pictures"][0]["faces"][0]["label"]
        assert client.get("openapi.json").json()["servers"] == [{"url": "/a/faces"}]
        assert client.get("healthz").status_code == 200
        ((name, value),) = client.cookies.items()
        cookie = f"{name}={value}"
        with connect(published.replace("http", "ws", 1) + "v1/camera", additional_headers={"Cookie": cookie}) as camera:
            camera.send(png(faces[0]))
            assert json.loads(camera.recv(30))["width"] == 48
    assert httpx.get(published + "v1/model").status_code == 401


def test_without_its_slash_the_prefix_leads_to_the_page(start_server: Callable[..., Any], linear_model: Path) -> None:
    served = start_server(linear_model, root_path="/faces", workers=1)
    answer = httpx.get(f"{served.url}faces")
    assert (answer.status_code, answer.headers["location"]) == (307, "/faces/")
    assert httpx.get(f"{served.url}faces/").status_code == httpx.get(served.url).status_code == 200


GETS = ("", "docs", "static/app.js", "v1/model", "v1/sources", "healthz", "readyz", "openapi.json", "source.zip")


def test_every_get_answers_a_head_with_the_same_head_and_no_body(server: Any) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for path in GETS:
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (200, b""), path
            told = {name: value for name, value in head.headers.items() if name != "date"}
            assert told == {name: value for name, value in got.headers.items() if name != "date"}, path
            assert int(head.headers["content-length"]) == len(got.content) > 0
        assert client.head("metrics").status_code == 200
        assert client.head("v1/predict").status_code == 405
        assert client.head("nothing").status_code == client.head("v1/sources/0/picture").status_code == 404
        # The connection is still in step: a body after all would be taken for the next answer.
        assert client.get("healthz").json() == {"status": "ok"}
