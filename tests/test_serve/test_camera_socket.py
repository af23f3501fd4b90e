"""A camera over a WebSocket: one track over its images, and what is no camera is shown out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.records import Image


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
