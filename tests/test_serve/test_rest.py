"""The REST routes on a real server: the same answers as the classifier, and problems where there is something wrong."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.data.images import load_image
from deepfer_yolo.faces.align import crop_face
from deepfer_yolo.faces.detect import open_detector
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import SHIPPED
from deepfer_yolo.serve.app import SHARED

Png = Callable[[Image], bytes]


def as_files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{index}.png", content)) for index, content in enumerate(contents)]


def probs_of(face: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array(list(face["probs"].values()), np.float32)


def test_the_probabilities_are_exactly_the_classifiers(
    client: httpx.Client, linear_model: Path, faces: list[Image], png: Png
) -> None:
    classifier = Classifier(linear_model)
    for face in faces:
        answer = client.post("/v1/predict", files=as_files(png(face))).json()
        expected = classifier.predict_images([face])[0]
        assert np.array_equal(probs_of(answer["pictures"][0]["faces"][0]), expected)
        assert list(answer["pictures"][0]["faces"][0]["probs"]) == list(classifier.labels)
        assert answer["pictures"][0]["faces"][0]["label"] == classifier.labels[expected.argmax()]


def test_the_shipped_model_answers_exactly_as_its_classifier(
    start_server: Callable[..., Any], faces: list[Image], scene: list[Image], png: Png
) -> None:
    from PIL import Image as PillowImage

    served = start_server(Path("deepfer-n"), rate_per_s=0, workers=1)
    classifier, detector = Classifier("deepfer-n"), open_detector(FaceConfig(detector="haar"), "image")
    contents = [png(face) for face in faces]
    for kind, options in (("JPEG", {"quality": 60}), ("WEBP", {}), ("TIFF", {})):
        content = io.BytesIO()
        PillowImage.fromarray(scene[0][20:220, 60:300]).save(content, kind, **options)
        contents.append(content.getvalue())
    with httpx.Client(base_url=served.url, timeout=60) as client:
        for content in contents:
            [row] = client.post("/v1/predict", files=as_files(content)).json()["pictures"][0]["faces"]
            assert np.array_equal(probs_of(row), classifier.predict_images([load_image(content)])[0])
        [row] = client.post("/v1/predict", params={"faces": "true"}, files=as_files(png(scene[3]))).json()["pictures"][
            0
        ]["faces"]
        crop = crop_face(scene[3], detector.detect(scene[3])[0], classifier.card.crop, classifier.card.input)
        assert np.array_equal(probs_of(row), classifier.predict(crop[None])[0])
        together = client.post("/v1/predict", files=as_files(*contents)).json()["pictures"]
    expected = [classifier.predict_images([load_image(content)])[0] for content in contents]
    assert (
        np.abs([probs_of(image["faces"][0]) - wanted for image, wanted in zip(together, expected, strict=True)]).max()
        < 1e-6
    )


def test_images_of_any_shape_are_resized_by_the_programs_own_rule(
    client: httpx.Client, linear_model: Path, png: Png
) -> None:
    image = np.random.RandomState(3).randint(0, 256, (90, 151, 3)).astype(np.uint8)
    answer = client.post("/v1/predict", files=as_files(png(image))).json()["pictures"][0]
    assert (answer["width"], answer["height"]) == (151, 90)
    assert np.array_equal(probs_of(answer["faces"][0]), Classifier(linear_model).predict_images([image])[0])


def test_faces_are_found_and_cropped_by_the_programs_own_rule(
    client: httpx.Client, linear_model: Path, scene: list[Image], png: Png
) -> None:
    classifier, detector = Classifier(linear_model), open_detector(FaceConfig(detector="haar"), "image")
    found = detector.detect(scene[3])
    answer = client.post("/v1/predict", params={"faces": "true"}, files=as_files(png(scene[3]))).json()["pictures"][0][
        "faces"
    ]
    assert len(answer) == len(found) >= 1
    for row, face in zip(answer, found, strict=True):
        crop = crop_face(scene[3], face, classifier.card.crop, classifier.card.input)
        assert np.array_equal(probs_of(row), classifier.predict(crop[None])[0])
        assert row["box"] == pytest.approx(face.box.tolist(), abs=0.01)


def test_the_form_field_wins_over_the_query(client: httpx.Client, faces: list[Image], png: Png) -> None:
    answer = client.post(
        "/v1/predict", params={"faces": "true"}, data={"faces": "false"}, files=as_files(png(faces[0]))
    ).json()
    assert answer["faces"] is False
    assert client.post("/v1/predict", data={"faces": "perhaps"}, files=as_files(png(faces[0]))).status_code == 422


def test_a_broken_image_costs_only_its_own_row(client: httpx.Client, faces: list[Image], png: Png) -> None:
    whole = png(faces[0])
    answer = client.post("/v1/predict", files=as_files(whole, whole[: len(whole) // 2], b"text")).json()["pictures"]
    assert [sorted(row) for row in answer] == [
        ["faces", "height", "name", "width"],
        ["error", "name"],
        ["error", "name"],
    ]
    assert answer[2] == {"name": "2.png", "error": "not an image in a known format"}
    alone = client.post("/v1/predict", files=as_files(b"text"))
    assert (alone.status_code, alone.headers["content-type"]) == (422, "application/problem+json")
    assert alone.json()["detail"] == "not an image in a known format"


def test_concurrent_requests_share_inferences_and_keep_their_answers(
    client: httpx.Client, linear_model: Path, faces: list[Image], png: Png
) -> None:
    expected = [Classifier(linear_model).predict_images([face])[0] for face in faces]
    contents = [png(face) for face in faces]

    def inferences() -> float:
        return float(
            next(
                line.split()[1]
                for line in client.get("/metrics").text.splitlines()
                if line.startswith("deepfer_batch_size_count")
            )
        )

    def ask(index: int) -> float:
        answer = client.post("/v1/predict", files=as_files(contents[index % 8])).json()
        return float(np.abs(probs_of(answer["pictures"][0]["faces"][0]) - expected[index % 8]).max())

    before = inferences()
    with ThreadPoolExecutor(16) as pool:
        differences = list(pool.map(ask, range(160)))
    # onnxruntime multiplies matrices of one row and of many by different routines: the last bits may differ between
    # batch sizes.
    assert max(differences) < 1e-6
    assert inferences() - before < 150


def test_the_model_card_and_health(client: httpx.Client, linear_model: Path) -> None:
    facts = client.get("/v1/model").json()
    assert facts["card"] == Classifier(linear_model).card.model_dump(mode="json")
    assert (facts["detector"], facts["sources"], facts["limits"]["pictures"]) == ("haar", 0, 64)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/v1/sources").json()["sources"] == []
    missing = client.get("/v1/sources/0/picture")
    assert (missing.status_code, missing.json()["title"]) == (404, "Not Found")


def test_what_a_model_has_learned_is_never_sent(
    start_server: Callable[..., Any], png: Callable[[Image], bytes]
) -> None:
    hashes = Classifier(SHIPPED / "deepfer-xs.onnx").card.trained_hashes
    assert hashes is not None
    with httpx.Client(base_url=start_server(SHIPPED / "deepfer-xs.onnx", rate_per_s=0).url, timeout=30) as client:
        paths = client.get("/openapi.json").json()["paths"]
        asked = [path for path, verbs in paths.items() if "get" in verbs and "{" not in path]
        assert {"/v1/model", "/metrics", "/healthz"} <= set(asked)
        answers = [client.get(path) for path in ("/", *asked) if "stream" not in path]
        answers.append(client.post("/v1/predict", files=as_files(png(np.zeros((48, 48, 3), np.uint8)))))
    assert all(answer.status_code < 500 for answer in answers)
    told = "".join(answer.text for answer in answers)
    assert hashes[:40] not in told
    assert hashes[-40:] not in told
    assert "trained_hashes" not in told


def test_metrics_count_by_route_and_never_by_a_strangers_path(client: httpx.Client) -> None:
    client.get("/healthz")
    client.get("/%22%7Devil%201%0A")
    text = client.get("/metrics").text
    assert 'deepfer_requests_total{route="/healthz",status="200"}' in text
    assert 'deepfer_requests_total{route="other",status="404"}' in text
    assert "evil" not in text
    assert "process_resident_memory_bytes" in text


def test_a_video_becomes_faces_over_time_and_events(
    client: httpx.Client, scene: list[Image], write_video: Callable[..., bytes]
) -> None:
    content = write_video([image for image in scene for _ in range(2)])
    answer = client.post("/v1/video", files=as_files(content)).json()
    assert (answer["width"], answer["height"]) == (320, 240)
    times = [frame["time_s"] for frame in answer["frames"]]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(answer["duration_s"])
    assert 3.5 <= answer["duration_s"] <= 4.0
    assert (
        sum(1 in [face["track"] for face in frame["faces"]] for frame in answer["frames"]) > len(answer["frames"]) / 2
    )
    assert all(
        sum(face["probs"].values()) == pytest.approx(1, abs=1e-3)
        for frame in answer["frames"]
        for face in frame["faces"]
    )
    assert all(0 <= event["start_s"] < event["end_s"] <= answer["duration_s"] for event in answer["events"])


def test_a_video_is_squared_turned_and_mirrored_as_its_file_asks(client: httpx.Client, tmp_path: Path) -> None:
    import av

    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        stream.set_display_matrix([0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30])
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(96, 64, "yuv420p")))
        container.mux(stream.encode(None))
    answer = client.post("/v1/video", files=as_files(path.read_bytes())).json()
    assert (answer["width"], answer["height"]) == (64, 192)


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\x00\x00\x00\x18ftypmp42" + bytes(200),
    ],
)
def test_what_is_no_video_is_refused(client: httpx.Client, content: bytes) -> None:
    answer = client.post("/v1/video", files=as_files(content))
    assert answer.status_code == 422
    assert "passwd" not in answer.text


def test_the_page_works_without_a_network_and_without_inline_code(client: httpx.Client) -> None:
    page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    files = {path.name for path in (Path(__file__).parents[2] / "deepfer_yolo/serve/page").iterdir()} | {*SHARED}
    texts = {
        name: client.get(f"/static/{name}").raise_for_status().text for name in files - {"index.html", "docs.html"}
    }
    assert {Path(name).suffix for name in texts} >= {".js", ".css"}
    addresses = {
        name: text.replace("http://www.w3.org/2000/svg", "").replace("}://${", "") for name, text in texts.items()
    }
    # In JavaScript `//` begins a comment too.
    assert [name for name, text in addresses.items() if ("https://" if name.endswith(".js") else "//") in text] == []
    for html in (page.text, client.get("/docs").text):
        assert "https://" not in html
        assert "http://" not in html
        assert "onclick" not in html
        assert " style=" not in html
    assert (
        client.get(
            "/static/app.js", headers={"If-None-Match": client.get("/static/app.js").headers["etag"]}
        ).status_code
        == 304
    )


def test_the_source_is_offered_as_the_licence_asks(client: httpx.Client) -> None:
    assert 'href="source.zip"' in client.get("/").text
    archive = zipfile.ZipFile(io.BytesIO(client.get("/source.zip").content))
    assert (
        archive.read("deepfer_yolo/serve/routes.py")
        == (Path(__file__).parents[2] / "deepfer_yolo/serve/routes.py").read_bytes()
    )
    assert b"GNU AFFERO GENERAL PUBLIC LICENSE" in archive.read("LICENSE").upper()


def test_exif_rotation_and_jpeg_pass_through_the_programs_own_loader(
    client: httpx.Client, linear_model: Path, faces: list[Image]
) -> None:
    from PIL import Image as PillowImage

    content = io.BytesIO()
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.fromarray(faces[1]).save(content, "JPEG", exif=exif)
    answer = client.post("/v1/predict", files=as_files(content.getvalue())).json()["pictures"][0]["faces"][0]
    assert np.array_equal(
        probs_of(answer), Classifier(linear_model).predict_images([load_image(content.getvalue())])[0]
    )
