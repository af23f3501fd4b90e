"""The page that labels in a real browser: nothing is sent, it works without a network, by keyboard and by touch."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.errors import MissingDependencyError
from deepfer_yolo.painted import paint_frames

PATIENCE_MS = 60_000
CHROMIUMS_OWN = re.compile(r"(http://)?(update\.googleapis|accounts\.google)\.com[:/]")
"""Where Chromium itself asks for updates and accounts, whatever page is open; no page can name these hosts past its own
policy.
"""
CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
NOTE_BOXES = """() => {
    const draw = CanvasRenderingContext2D.prototype.strokeRect;
    CanvasRenderingContext2D.prototype.strokeRect = function (x, y, w, h) {
        const left = this.getTransform().e + x;
        window.drawn = [left / this.canvas.width, (left + w) / this.canvas.width];
        draw.call(this, x, y, w, h);
    };
}"""
"""Between which columns the last box was drawn, as shares of the image's width."""


@pytest.fixture(scope="module")
def web_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes the page's folder for a shipped model, over an earlier one too."""
    from deepfer_yolo.web.bundle import write_web

    folder = tmp_path_factory.mktemp("web") / "site"

    def write(model: str, detector: Path | None = None) -> Path:
        try:
            return write_web(Path(model), folder, detector=detector, overwrite=True).path
        except MissingDependencyError as error:
            pytest.skip(f"{error}; {error.hint}")

    return write


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera file of a painted person, and an image of the same."""
    folder = tmp_path_factory.mktemp("material")
    frames = list(paint_frames(3, ("happy", "surprise"), 4, 360))
    with (folder / "camera.mjpeg").open("wb") as file:
        for frame in frames:
            scene = PillowImage.new("RGB", (480, 360), (90, 110, 130))
            scene.paste(PillowImage.fromarray(frame), (100, 0))
            content = io.BytesIO()
            scene.save(content, "JPEG", quality=90)
            file.write(content.getvalue())
    scene.save(folder / "one.png")
    return folder


@pytest.fixture(scope="module")
def site(start_server: Callable[..., Any], web_folder: Callable[..., Path]) -> Any:
    """`serve --local` of the smallest shipped model, without a face detector."""
    web_folder("deepfer-xs")  # skips where there is no engine
    return start_server(Path("deepfer-xs"), "--local", detector="whole", rate_per_s=0)


@pytest.fixture(scope="module")
def recorder(site: Any, start_recorder: Callable[[str], Any]) -> Any:
    """What stands between the browser and the world."""
    return start_recorder(site.url)


@pytest.fixture(scope="module")
def loaded(open_browser: Callable[..., Any], site: Any, recorder: Any, material: Path) -> Any:
    """The page in a context of its own, loaded once: the engine takes seconds."""
    camera = f"--use-file-for-fake-video-capture={material / 'camera.mjpeg'}"
    browser = open_browser(*CAMERA, camera, proxy=recorder.url)
    context = browser.new_context(viewport={"width": 1200, "height": 800}, has_touch=True, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.complaints = complaints = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(site.url)
    page.wait_for_selector("html[data-ready=yes]")
    return page


@pytest.fixture
def page(loaded: Any) -> Iterator[Any]:
    """The loaded page, at its first tab; whatever the browser complains about fails the test."""
    loaded.set_viewport_size({"width": 1200, "height": 800})
    loaded.click("#tab-camera")
    yield loaded
    complaints, loaded.complaints[:] = list(loaded.complaints), []
    assert complaints == []


def saved(page: Any, place: str) -> Any:
    """What a button saves as JSON."""
    with page.expect_download() as download:
        page.click(f"{place} >> text=Download JSON")
    return json.loads(Path(download.value.path()).read_text())


def test_it_tests_itself_as_verify_does(page: Any, deepfer: Callable[..., Any]) -> None:
    shown = page.inner_text("#self-test")
    verified = json.loads(deepfer("verify", "deepfer-xs", "--json").stdout)
    assert shown.startswith("Self-test passed: largest difference ")
    assert shown.endswith(f" of {verified['tolerance']:g} allowed, {verified['n']} inputs.")
    assert float(shown.split()[4]) < 1e-4
    page.click("#tab-model")
    assert "Self-test in this browser" in page.inner_text("#model")
    assert "Not for inferring felt emotion" in page.inner_text("#model")


def test_a_camera_session_sends_nothing(page: Any, recorder: Any, site: Any) -> None:
    page.click("#camera-start")
    page.click("#camera-record")
    page.wait_for_selector("#camera-faces .face h4")
    page.wait_for_function("() => Number(document.getElementById('camera-recorded').textContent) >= 20")
    assert float(page.inner_text("#camera-fps")) > 0
    frames = saved(page, "#camera-saves")
    assert [face["box"] for face in frames[-1]["faces"]] == [[0, 0, 480, 360]]
    assert abs(sum(frames[-1]["faces"][0]["probs"].values()) - 1) < 1e-5
    assert {face["track"] for frame in frames for face in frame["faces"]} == {1}
    page.evaluate("window.track = document.getElementById('camera-video').srcObject.getTracks()[0]")
    # Another tab comes to the front.
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange')); delete document.hidden"
    )
    assert page.evaluate("window.track.readyState") == "ended"
    assert page.inner_text("#camera-error") == "The camera stopped because the page was hidden."
    page.get_by_text("Works without a network.").wait_for()
    files = {file["path"] for file in httpx.get(f"{site.url}files.json").json()["files"]}
    allowed = {f"{site.url}{path}" for path in files | {"", "sw.js", "files.json"}}
    sent = [one for one in recorder.sent if not CHROMIUMS_OWN.match(one.url)]
    assert {one.method for one in sent} == {"GET"}
    assert sum(one.body_bytes for one in sent) == 0
    assert {one.url for one in sent} <= allowed
    assert f"{site.url}model.onnx" in {one.url for one in sent}


def test_a_box_that_is_drawn_by_keyboard_is_the_face_and_shown_mirrored(page: Any) -> None:
    page.evaluate(NOTE_BOXES)
    page.click("#camera-start")
    page.wait_for_selector("#camera-faces .face h4")
    page.click("#camera-tools >> text=Mark a face by hand")
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.click("#camera-tools >> text=Forget the box >> visible=true", trial=True)
    before = int(page.inner_text("#camera-recorded"))
    page.click("#camera-record")
    page.wait_for_function(
        "before => Number(document.getElementById('camera-recorded').textContent) > before", arg=before
    )
    x1, y1, x2, y2 = saved(page, "#camera-saves")[-1]["faces"][0]["box"]
    # In the middle at first, half the height; left in the mirror is right in the image.
    assert (x2 - x1, y2 - y1) == (180, 180)
    assert x1 == 150 + 6 * 7
    left, right = page.evaluate("window.drawn")
    assert left == pytest.approx((480 - x2) / 480, abs=0.02)
    assert right == pytest.approx((480 - x1) / 480, abs=0.02)
    page.click("#camera-tools >> text=Forget the box")
    page.click("#camera-stop")
    assert page.evaluate("document.getElementById('camera-video').srcObject") is None


def test_by_keyboard_alone(page: Any, material: Path) -> None:
    page.focus("#tab-camera")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-uploads"
    page.set_input_files("#files", [str(material / "one.png")] * 2)
    page.get_by_text("Done: 2 faces in 2 images.").wait_for()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Mark a face by hand":
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Mark a face by hand"
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.textContent === 'Mark a face by hand'")
    assert saved(page, "#upload-saves")[0]["faces"][0]["box"] == [150, 90, 330, 291]
    page.click("#upload-clear")


def tap_until(page: Any, button: str, is_done: Callable[[], bool]) -> None:
    """Tap a button of the results: on a busy machine a tap may last half a second, and is then none to the browser."""
    for _ in range(10):
        page.tap(f"#results >> text={button}")
        for _ in range(30):
            page.wait_for_timeout(100)
            if is_done():
                return
    pytest.fail(f"nothing came of {button}")


def test_on_a_phone_by_touch(page: Any, material: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for tab in ("camera", "uploads", "model"):
        page.tap(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.tap("#tab-uploads")
    page.set_input_files("#files", str(material / "one.png"))
    page.get_by_text("Done: 1 face in 1 image.").wait_for()
    tap_until(page, "Mark a face by hand", lambda: page.locator("#results .marking").count() == 1)
    stage = page.locator("#results .stage")
    stage.scroll_into_view_if_needed()
    frame = stage.bounding_box()
    scale = frame["width"] / 480
    touch = page.context.new_cdp_session(page)
    for kind, point in (
        ("touchStart", (120, 60)),
        ("touchMove", (200, 200)),
        ("touchMove", (320, 310)),
        ("touchEnd", None),
    ):
        points = [] if point is None else [{"x": frame["x"] + point[0] * scale, "y": frame["y"] + point[1] * scale}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    tap_until(page, "Label this box", lambda: page.locator("#results .marking").count() == 0)
    page.wait_for_selector("#results >> text=Mark a face by hand")
    page.wait_for_timeout(300)
    assert saved(page, "#upload-saves")[0]["faces"][0]["box"] == pytest.approx([120, 60, 320, 310], abs=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.tap("#upload-clear")


@pytest.mark.parametrize(
    ("name", "words"),
    [("NotAllowedError", "did not allow"), ("NotFoundError", "no camera"), ("NotReadableError", "another program")],
)
def test_it_says_why_there_is_no_camera_and_what_to_do(page: Any, name: str, words: str) -> None:
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', name)); }", name
    )
    page.click("#camera-start")
    page.wait_for_selector("#camera-error:visible")
    page.evaluate("delete navigator.mediaDevices.getUserMedia")
    said = page.inner_text("#camera-error")
    assert words in said
    assert "then start again." in said
    assert page.is_enabled("#camera-start")


def test_what_is_no_image_is_told_with_its_name_as_text(page: Any) -> None:
    page.click("#tab-uploads")
    name = "=cmd<img src=x onerror=alert(1)>.png"
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": b"no image"}])
    page.get_by_text("1 file could not be read.").wait_for()
    assert page.inner_text("#results h3") == name
    assert page.inner_text("#results .error").startswith("Not labelled: the image cannot be read: ")
    assert page.locator("#results img").count() == 0
    with page.expect_download() as download:
        page.click("#upload-saves >> text=Download CSV")
    assert Path(download.value.path()).read_text().splitlines()[1].startswith("'=cmd<img")
    page.click("#upload-clear")


def test_without_a_network_installed_and_updated_as_one(
    open_browser: Callable[..., Any],
    web_folder: Callable[..., Path],
    start_files: Callable[[Path], str],
    start_recorder: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    url = start_files(web_folder("deepfer-xs"))
    recorder = start_recorder(url)
    context = open_browser(profile=tmp_path / "profile", proxy=recorder.url)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.get_by_text("Works without a network.").wait_for()
    assert page.evaluate("crossOriginIsolated") is False
    assert "one thread" in page.text_content("#model")
    session = context.new_cdp_session(page)
    assert session.send("Page.getInstallabilityErrors")["installabilityErrors"] == []
    told = session.send("Page.getAppManifest")
    assert (told["errors"], json.loads(told["data"])["short_name"]) == ([], "DeepFER")

    # Another model: the open page stays whole as it is, and says that there is a new one.
    first = len(recorder.sent)
    web_folder("deepfer-n")
    page.reload()
    page.wait_for_selector("#update:visible")
    assert page.inner_text("#model-name") == "deepfer-xs"
    assert len(page.evaluate("caches.keys()")) == 2
    page.click("#update-now")
    page.wait_for_function("() => document.getElementById('model-name').textContent === 'deepfer-n'")
    page.wait_for_selector("html[data-ready=yes]")
    assert page.inner_text("#self-test").startswith("Self-test passed")
    assert len(page.evaluate("caches.keys()")) == 1
    assert page.is_hidden("#update")
    later = {sent.url for sent in recorder.sent[first:]}
    assert f"{url}model.onnx" in later
    assert not any(name.endswith(".wasm.gz") for name in later)  # the engine has not changed

    # No network any more.
    recorder.shutdown()
    recorder.server_close()
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert page.inner_text("#model-name") == "deepfer-n"
    assert page.inner_text("#self-test").startswith("Self-test passed")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("weights", "the model does not answer here as it did where it was made: largest difference "),
        ("half", "the model cannot be opened: "),
        ("inputs", "the golden inputs are not whole"),
    ],
)
def test_a_damaged_model_labels_nothing_and_the_page_says_why(
    open_browser: Callable[..., Any],
    web_folder: Callable[..., Path],
    start_files: Callable[[Path], str],
    material: Path,
    damage: str,
    why: str,
) -> None:
    folder = web_folder("deepfer-xs")
    content = (folder / "model.onnx").read_bytes()
    middle = len(content) // 2
    if damage == "weights":
        (folder / "model.onnx").write_bytes(content[:middle] + bytes(4096) + content[middle + 4096 :])
    elif damage == "half":
        (folder / "model.onnx").write_bytes(content[:middle])
    else:
        (folder / "golden.bin").write_bytes(b"")
    page = open_browser(*CAMERA).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(start_files(folder))
    page.wait_for_selector("html[data-ready=yes]")
    banner = page.inner_text("#broken")
    assert banner.startswith(f"This page labels no images: {why}")
    assert ("FAILED" in page.inner_text("#self-test")) == (damage == "weights")
    assert page.is_disabled("#camera-start")
    page.click("#tab-uploads")
    page.set_input_files("#files", str(material / "one.png"))
    page.wait_for_function("said => document.getElementById('upload-state').textContent === said", arg=banner)
    assert page.locator("#results > *").count() == 0
    page.click("#tab-model")
    assert "Loading" not in page.inner_text("#model")
    page.get_by_text("Not kept for use without a network: a file ").wait_for()


@pytest.mark.slow
def test_a_turned_photo_of_12_megapixels_has_the_faces_that_the_command_finds(
    open_browser: Callable[..., Any],
    start_server: Callable[..., Any],
    shared_dir: Path,
    group_photo: Any,
    deepfer: Callable[..., Any],
    tmp_path: Path,
) -> None:
    yunet = shared_dir / "models" / "face_detection_yunet_2023mar.onnx"
    photo = PillowImage.fromarray(group_photo).resize((4000, 3000), PillowImage.Resampling.BICUBIC)
    turned = PillowImage.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    photo.transpose(PillowImage.Transpose.ROTATE_90).save(tmp_path / "photo.jpg", quality=92, exif=turned)
    done = deepfer("predict", "photo.jpg", "-m", "deepfer-live", "--faces", "--json", "--face-model", yunet)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    served = start_server(Path("deepfer-live"), "--local", detector="yunet", face_model=str(yunet))
    page = open_browser().new_page()
    page.set_default_timeout(5 * PATIENCE_MS)
    page.goto(served.url)
    page.click("#tab-uploads")
    page.set_input_files("#files", str(tmp_path / "photo.jpg"))
    page.get_by_text(f"Done: {len(rows)} faces in 1 image.").wait_for()
    found = saved(page, "#upload-saves")[0]
    assert (found["width"], found["height"]) == (4000, 3000)
    assert len(rows) >= 30
    labels = {row["label"] for row in rows}
    for row, face in zip(rows, found["faces"], strict=True):
        assert face["box"] == pytest.approx(row["box"], abs=0.5)
        if row["label"] != "uncertain":
            assert face["label"] == row["label"]
    assert len(labels) > 1


@pytest.mark.slow
def test_a_host_without_https_labels_images_and_says_what_it_lacks(
    open_browser: Callable[..., Any],
    web_folder: Callable[..., Path],
    start_files: Callable[[Path], str],
    material: Path,
) -> None:
    url = start_files(web_folder("deepfer-xs")).replace("127.0.0.1", "visitor.test")
    page = open_browser("--host-resolver-rules=MAP visitor.test 127.0.0.1").new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.wait_for_selector("html[data-ready=yes]")
    assert page.evaluate("[isSecureContext, typeof SharedArrayBuffer, 'serviceWorker' in navigator]") == [
        False,
        "undefined",
        False,
    ]
    assert page.inner_text("#self-test").startswith("Self-test passed")
    page.get_by_text("Not kept for use without a network: that needs HTTPS or localhost.").wait_for()
    page.click("#camera-start")
    page.get_by_text("The browser gives cameras only to pages from localhost or over HTTPS.").wait_for()
    page.click("#tab-uploads")
    image = {"name": "one.png", "mimeType": "image/png", "buffer": (material / "one.png").read_bytes()}
    page.set_input_files("#files", [image, {"name": "a.mp4", "mimeType": "video/mp4", "buffer": b"a"}])
    page.get_by_text("Done: 1 face in 1 image, 1 file could not be read.").wait_for()
    page.get_by_text("This page labels images. Videos are for deepfer serve and deepfer stream.").wait_for()


@pytest.mark.slow
def test_under_a_path_and_with_a_token_it_is_kept_for_that_path_alone(
    open_browser: Callable[..., Any], start_server: Callable[..., Any], start_nginx: Callable[..., str], site: Any
) -> None:
    token = "0123456789abcdef"
    served = start_server(Path("deepfer-xs"), "--local", detector="whole", token=token, root_path="/faces")
    url = start_nginx(served.url, "/faces", cuts=False)
    page = open_browser().new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    elsewhere: list[str] = []
    page.on("request", lambda asked: None if asked.url.startswith((url, "blob:")) else elsewhere.append(asked.url))
    page.goto(f"{url}?token={token}")
    page.get_by_text("Works without a network.").wait_for()
    assert page.evaluate("navigator.serviceWorker.ready.then(kept => kept.scope)") == url
    assert all(name.startswith("deepfer /faces/ ") for name in page.evaluate("caches.keys()"))
    assert page.context.new_cdp_session(page).send("Page.getAppManifest")["errors"] == []
    page.context.clear_cookies()
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert page.inner_text("#self-test").startswith("Self-test passed")
    assert elsewhere == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [(CAMERA[:1], "There is no camera."), (("--deny-permission-prompts", CAMERA[1]), "did not allow the camera")],
)
def test_browsers_that_give_no_camera_are_understood(
    open_browser: Callable[..., Any], site: Any, flags: tuple[str, ...], words: str
) -> None:
    page = open_browser(*flags).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(site.url)
    page.click("#camera-start")
    page.wait_for_selector("#camera-error:visible")
    assert words in page.inner_text("#camera-error")
