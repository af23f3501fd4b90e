"""What a face costs in the visitor's browser, beside Python on this machine: processor time, in rounds that alternate.

.venv/bin/python tests/benchmarks/web.py [--model deepfer-live] [--face-model yunet.onnx] [--n 100] [--rounds 5]

A face is a painted 48×48 PNG from its bytes to probabilities; a frame is 640×480 from pixels to boxes, searched at 320
pixels as a camera's frames are. The browser is headless Chromium; counted are all of its processes that draw pages,
where the engine runs. `--threads 2` isolates the page, so that it may use two.
"""

from __future__ import annotations

import argparse
import base64
import functools
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.data.images import encode_png, load_pixels
from deepfer_yolo.faces.detect import FRAME_PX, YuNetDetector
from deepfer_yolo.painted import paint_faces, paint_golden
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import to_inputs
from deepfer_yolo.web.bundle import write_web

OPEN = """async threads => {
    Object.assign(window, await import("./engine/index.js"));
    window.engine = await openEngine({threads});
    return engine.seconds;
}"""
FACES = """async texts => {
    for (const text of texts) {
        const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
        await engine.classify(await readImage(new Blob([bytes])));
    }
}"""
FRAMES = """async ([text, n, size]) => {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    const image = await readImage(new Blob([bytes]));
    for (let i = 0; i < n; i += 1) await engine.faces(image, {size});
}"""


class Isolated(SimpleHTTPRequestHandler):
    """Isolates its pages from other origins."""

    def end_headers(self) -> None:
        """Ends the head of an answer."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("deepfer-live"))
    parser.add_argument("--face-model", type=Path)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = write_web(given.model, Path(folder) / "web", detector=given.face_model).path
        handler = functools.partial(Isolated, directory=str(site))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.set_default_timeout(600_000)
            page.goto(f"http://127.0.0.1:{server.server_port}/licenses.txt")
            print(f"{given.model}, Chromium {browser.version}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
            measure(page, given)
            browser.close()
        server.shutdown()


def measure(page: Any, given: argparse.Namespace) -> None:
    """Print session creation, and the ratio of each step."""
    seconds: list[float] = []
    cpu = page_cpu_s(lambda: seconds.append(page.evaluate(OPEN, given.threads)))
    threads = page.evaluate("engine.threads")
    print(f"opening: {seconds[0]:.1f} s for the sessions on the clock, {cpu:.1f} s of processor time with all else")
    classifier = Classifier(given.model)
    faces = [encode_png(face) for face in paint_faces(1, given.n)[0]]
    texts = [base64.b64encode(face).decode() for face in faces]

    def in_python() -> None:
        for face in faces:
            classifier.predict(to_inputs([load_pixels(face)], classifier.card.input))

    rows(f"a face, {threads} thread(s)", lambda: page.evaluate(FACES, texts), in_python, given.n, given.rounds)
    if given.face_model is None:
        return
    detector = YuNetDetector(given.face_model, size=FRAME_PX, min_score=FaceConfig().min_score)
    frame = np.full((480, 640, 3), 90, np.uint8)
    frame[100:340, 200:440] = paint_golden(2, 1, 240)[0]
    n = max(1, given.n // 4)
    asked = [base64.b64encode(encode_png(frame)).decode(), n, FRAME_PX]

    def detect() -> None:
        for _ in range(n):
            detector.detect(frame)

    rows(f"faces of a frame, {threads} thread(s)", lambda: page.evaluate(FRAMES, asked), detect, n, given.rounds)


def rows(what: str, in_browser: Callable[[], object], in_python: Callable[[], object], n: int, n_rounds: int) -> None:
    """Run both in turn, and print milliseconds of processor time each, and their ratio."""
    in_browser(), in_python()
    browser, python = [], []
    for _ in range(n_rounds):
        browser.append(1000 * page_cpu_s(in_browser) / n)
        before = time.process_time()
        in_python()
        python.append(1000 * (time.process_time() - before) / n)
    ratios = [one / two for one, two in zip(browser, python, strict=True)]
    print(
        f"{what}: browser {words(browser)} ms, Python {words(python)} ms, ratio {words(ratios)}, n = {n_rounds} × {n}"
    )


def words(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def page_cpu_s(work: Callable[[], object]) -> float:
    """Processor seconds that the browser's pages spent during `work`."""

    def spent() -> float:
        found = [process for process in psutil.Process().children(recursive=True) if is_page(process)]
        return sum(sum(process.cpu_times()[:2]) for process in found)

    before = spent()
    work()
    return spent() - before


def is_page(process: psutil.Process) -> bool:
    """Whether a child is a process of Chromium that draws pages."""
    try:
        return "--type=renderer" in process.cmdline()
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
