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
