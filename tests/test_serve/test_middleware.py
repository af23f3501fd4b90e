"""Who may come in, how often and with how much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.serve.middleware import Quota, Rate, allowed_hosts, host_name, is_loopback
from deepfer_yolo.serve.schemas import ProblemError
from deepfer_yolo.servers import ServeConfig


def test_the_rate_is_a_bucket_a_client() -> None:
    now = [0.0]
    rate = Rate(2.0, 3, lambda: now[0])

    def allowed(client: str) -> bool:
        try:
            rate.spend(client)
        except ProblemError:
            return False
        return True

    assert [allowed("a") for _ in range(4)] == [True, True, True, False]
    with pytest.raises(ProblemError) as refused:
        rate.spend("a")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    assert allowed("b")
    now[0] = 0.5
    assert [allowed("a"), allowed("a")] == [True, False]
    now[0] = 100
    assert [allowed("a") for _ in range(4)] == [True, True, True, False]


def test_what_was_in_use_comes_back() -> None:
    slots, memory = Quota(1, "1 things are under way"), Quota(10, "no memory", 2.0)
    with slots.hold(), pytest.raises(ProblemError, match="1 things"), slots.hold():
        pass
    with slots.hold():
        memory.take(8)
    with pytest.raises(ProblemError) as refused:
        memory.take(3)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "2")
    memory.give_back(8)
    memory.take(10)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost:8000", "localhost"),
        ("[::1]:8000", "::1"),
        ("LOCALHOST", "localhost"),
        ("a@b", ""),
        ("a/b", ""),
        ("", ""),
        ("x\\y", ""),
    ],
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    assert host_name(host) == name


def test_which_hosts_are_this_machine() -> None:
    assert [
        is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "::", "example.org")
    ] == [True] * 4 + [False] * 3
    assert "box.local" in allowed_hosts("0.0.0.0", ["Box.Local"])


def test_a_token_opens_the_server_and_a_cookie_stands_for_it(
    start_server: Callable[..., Any], linear_model: Path
) -> None:
    served = start_server(linear_model, token="0123456789abcdef", rate_per_s=0.1, burst=12, workers=1)
    with httpx.Client(base_url=served.url, timeout=30) as client:
        assert client.get("/healthz").status_code == 200
        refused = client.get("/v1/model")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get("/v1/model", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/v1/model", headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200
        assert client.get("/v1/model", params={"token": "0123456789abcdef"}).status_code == 401
        entered = client.get("/", params={"token": "0123456789abcdef"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "0123456789abcdef" not in cookie
        assert client.get("/v1/model").status_code == 200
        client.cookies.clear()
        assert [client.get("/v1/model").status_code for _ in range(12)][-1] == 429
        assert client.get("/healthz").status_code == 200


def test_the_limits_in_the_deployment_notes_are_the_defaults() -> None:
    text = (Path(__file__).parents[2] / "docs/deploy.md").read_text(encoding="utf-8")
    text = text.split("\n## Limits\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    said = {
        key.strip(" `"): float(value)
        for keys, values in rows
        for key, value in zip(keys.split(","), values.split(","), strict=True)
    }
    defaults = ServeConfig().model_dump()
    assert said == {key: defaults[key] for key in said}
    assert len(said) >= 19
