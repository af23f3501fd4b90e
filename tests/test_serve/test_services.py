"""What decode workers are told, and the live sources of the command line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.serve.services import worker_setup
from deepfer_yolo.servers import ServeConfig


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


def test_live_sources_of_the_command_line_are_watched(start_server: Callable[..., Any], linear_model: Path) -> None:
    served = start_server(linear_model, "--source", "testsrc=size=160x120", "--source", "/dev/video97", workers=1)
    with httpx.Client(base_url=served.url, timeout=30) as client:
        deadline = time.monotonic() + 60
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
