"""The parts behind the routes: batching, limits, hosts, forms, workers, the camera's and the sources' scenes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deepfer_yolo.config import ServeConfig
from deepfer_yolo.records import Crops, Image, Probs
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.serve.batching import Batcher
from deepfer_yolo.serve.metrics import Metrics
from deepfer_yolo.serve.middleware import Quota, Rate, allowed_hosts, host_name, is_loopback
from deepfer_yolo.serve.schemas import ProblemError
from deepfer_yolo.serve.services import worker_setup


class Slow:
    """A classifier whose every inference takes 20 ms, and which remembers its batches."""

    def __init__(self, path: Path) -> None:
        self._classifier = Classifier(path)
        self.card = self._classifier.card
        self.batches: list[int] = []

    def predict(self, crops: Crops) -> Probs:
        self.batches.append(len(crops))
        time.sleep(0.02)
        return self._classifier.predict(crops)


async def ask_all(model: Slow, groups: list[Crops], **settings: Any) -> list[Probs]:
    batcher = Batcher(model, ServeConfig(**settings), Metrics())
    await batcher.start()
    answers = await asyncio.gather(*(batcher.predict(group) for group in groups))
    await batcher.close()
    return list(answers)


def test_waiting_requests_are_labelled_together_and_get_their_own_rows(linear_model: Path) -> None:
    model = Slow(linear_model)
    crops = np.random.RandomState(0).randint(0, 256, (24, 24, 24, 3)).astype(np.uint8)
    groups = [crops[:1], crops[1:4], crops[4:4], crops[4:14], crops[14:24]]
    answers = asyncio.run(ask_all(model, groups, max_batch=16, max_wait_ms=0))
    assert model.batches[1:] == [14, 10]
    assert [len(answer) for answer in answers] == [1, 3, 0, 10, 10]
    assert np.allclose(np.concatenate(answers), Classifier(linear_model).predict(crops), atol=1e-6)


def test_a_batch_waits_for_company_only_while_some_is_coming(linear_model: Path) -> None:
    model = Slow(linear_model)
    crop = np.zeros((1, 24, 24, 3), np.uint8)

    async def ask(n_coming: int) -> float:
        batcher = Batcher(model, ServeConfig(max_batch=2, max_wait_ms=300), Metrics())
        await batcher.start()
        batcher.n_coming = n_coming
        began = time.perf_counter()
        await batcher.predict(crop)
        waited = time.perf_counter() - began
        await batcher.close()
        return waited

    assert asyncio.run(ask(0)) < 0.29 < asyncio.run(ask(1))


def test_a_failing_inference_fails_its_requests_and_no_others(linear_model: Path) -> None:
    class Failing(Slow):
        def predict(self, crops: Crops) -> Probs:
            if crops.any():
                raise RuntimeError("broken")
            return super().predict(crops)

    async def ask() -> list[Any]:
        batcher = Batcher(Failing(linear_model), ServeConfig(max_batch=1, max_wait_ms=0), Metrics())
        await batcher.start()
        dark, bright = np.zeros((1, 24, 24, 3), np.uint8), np.ones((1, 24, 24, 3), np.uint8)
        answers = await asyncio.gather(
            batcher.predict(dark), batcher.predict(bright), batcher.predict(dark), return_exceptions=True
        )
        await batcher.close()
        return answers

    assert [type(answer).__name__ for answer in asyncio.run(ask())] == ["ndarray", "RuntimeError", "ndarray"]


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


def test_workers_are_told_which_detector_was_chosen_and_where_its_file_is(
    linear_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "yunet.onnx").touch()
    monkeypatch.setenv("DEEPFER_FACE_MODEL", str(tmp_path / "yunet.onnx"))
    classifier, config = Classifier(linear_model), ServeConfig(token="0123456789abcdef")
    told = ServeConfig.model_validate(worker_setup(classifier, config, "yunet")["config"])
    assert (told.detector, told.face_model, told.token) == ("yunet", tmp_path / "yunet.onnx", None)
    told = ServeConfig.model_validate(worker_setup(classifier, config, "haar")["config"])
    assert (told.detector, told.face_model) == ("haar", None)


def test_a_token_opens_the_server_and_a_cookie_stands_for_it(
    start_server: Callable[..., Any], linear_model: Path
) -> None:
    served = start_server(linear_model, token="0123456789abcdef", rate_per_s=3, burst=12, workers=1)
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


def test_a_camera_is_answered_image_by_image_with_one_track(
    server: Any, scene: list[Image], png: Callable[[Image], bytes]
) -> None:
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{server.port}/v1/camera") as camera:
        answers = []
        for image in scene[:6]:
            camera.send(png(image))
            answers.append(json.loads(camera.recv(30)))
        camera.send(b"no image")
        assert json.loads(camera.recv(30)) == {"error": "not an image in a known format"}
    assert [answer["index"] for answer in answers] == list(range(6))
    assert [face["track"] for answer in answers for face in answer["faces"]] == [1] * 6
    assert (answers[0]["width"], answers[0]["height"]) == (320, 240)
    raw = np.array([list(answer["faces"][0]["probs"].values()) for answer in answers])
    assert raw.sum(axis=1) == pytest.approx(1, abs=1e-3)


def test_who_sends_no_images_is_disconnected(server: Any) -> None:
    from websockets.exceptions import ConnectionClosedError
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{server.port}/v1/camera") as camera:
        for _ in range(9):
            camera.send(b"no image")
            assert "error" in camera.recv(30)
        camera.send(b"no image")
        with pytest.raises(ConnectionClosedError, match="1003"):
            camera.recv(30)


def test_only_so_many_cameras_at_once(server: Any) -> None:
    from websockets.exceptions import ConnectionClosedError
    from websockets.sync.client import connect

    url = f"ws://127.0.0.1:{server.port}/v1/camera"
    with (
        connect(url),
        connect(url),
        connect(url),
        connect(url),
        connect(url) as fifth,
        pytest.raises(ConnectionClosedError, match="4 cameras"),
    ):
        fifth.recv(30)


def test_live_sources_of_the_command_line_are_watched(start_server: Callable[..., Any], linear_model: Path) -> None:
    served = start_server(linear_model, "--source", "testsrc=size=160x120", "--source", "/dev/video97", workers=1)
    with httpx.Client(base_url=served.url, timeout=30) as client:
        deadline = time.monotonic() + 30
        while (rows := client.get("/v1/sources").json()["sources"])[0]["processed"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert (rows[0]["state"], rows[0]["name"]) == ("live", "testsrc=size=160x120")
        assert rows[0]["captured"] >= rows[0]["processed"] + rows[0]["dropped"]
        assert rows[1]["state"] in ("connecting", "lost", "failed")
        assert client.get("/v1/model").json()["sources"] == 2
        image = client.get("/v1/sources/0/picture")
        assert (image.headers["content-type"], image.content[:2]) == ("image/jpeg", b"\xff\xd8")
        assert client.get("/v1/sources/1/picture").status_code == 404
    lines = served.log.read_text().splitlines()
    assert all(line.startswith(("deepfer serves", "source /dev/video97 is ")) for line in lines), lines


def test_the_limits_in_the_deployment_notes_are_the_defaults() -> None:
    text = (Path(__file__).parents[2] / "docs/deploy.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    said = {
        key.strip(" `"): float(value)
        for keys, values in rows
        for key, value in zip(keys.split(","), values.split(","), strict=True)
    }
    defaults = ServeConfig().model_dump()
    assert said == {key: defaults[key] for key in said}
    assert len(said) >= 19
