"""A camera session of `serve --local` beside one of `serve`: frames a second, time an image, processor time an image.

.venv/bin/python tests/benchmarks/web_camera.py photo.jpg --face-model yunet.onnx [--model deepfer-live] [--rounds 5]
[--seconds 10]

Headless Chromium's camera plays the photo, shifted from frame to frame. Both pages are open before the first round and
take turns; the ratio is taken per round, then the median. Processor time is that of all of the browser's processes and
of the server's: on one machine both paths pay for everything, whoever does it.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

STEP_PX, N_FRAMES = 16, 8
FLAGS = "--no-sandbox --disable-gpu --use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
RECORDED = "Number(document.getElementById('camera-recorded').textContent)"


def main() -> None:
    """Print both sides and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--model", default="deepfer-live")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        write_camera(given.photo, folder / "camera.mjpeg")
        servers = {kind: start(kind, given, folder) for kind in ("local", "server")}
        try:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            flags = [*FLAGS.split(), f"--use-file-for-fake-video-capture={folder / 'camera.mjpeg'}"]
            browser = playwright.chromium.launch(executable_path=chromium, args=flags)
            pages = {kind: opened(browser, url) for kind, (_, url) in servers.items()}
            print(f"{given.model}, Chromium {browser.version}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
            processes = [process for process, _ in servers.values()]
            rounds = []
            for number in range(given.rounds):
                order = list(pages) if number % 2 == 0 else list(pages)[::-1]
                rounds.append({kind: watch(pages[kind], given.seconds, processes) for kind in order})
            show(rounds)
            browser.close()
        finally:
            for process, _ in servers.values():
                process.terminate()
                process.wait()


def write_camera(photo: Path, path: Path) -> None:
    """The photo at 1280×720, which moves: no frame is like the one before."""
    image = Image.open(photo).convert("RGB").resize((1280 + STEP_PX * N_FRAMES, 720))
    with path.open("wb") as file:
        for number in range(N_FRAMES):
            content = io.BytesIO()
            left = number * STEP_PX
            image.crop((left, 0, left + 1280, 720)).save(content, "JPEG", quality=90)
            file.write(content.getvalue())


def start(kind: str, given: argparse.Namespace, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server of this kind, and its address."""
    words = ["serve", *(["--local"] if kind == "local" else []), "-m", given.model, "--port", "0"]
    command = [sys.executable, "-m", "deepfer_yolo", *words, "--face-model", str(given.face_model.resolve())]
    log = folder / f"{kind}.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    while (found := re.search(r" at (http://\S+)", log.read_text())) is None:
        if process.poll() is not None:
            sys.exit(log.read_text())
        time.sleep(0.2)
    return process, found[1]


def opened(browser: Any, url: str) -> Any:
    """A page that is ready for its camera."""
    page = browser.new_page()
    page.set_default_timeout(300_000)
    page.goto(url)
    page.wait_for_selector("html[data-ready=yes]")
    return page


def watch(page: Any, seconds: float, servers: list[subprocess.Popen[bytes]]) -> dict[str, float]:
    """One session: frames a second, median time an image in ms, processor time an image in ms."""
    page.bring_to_front()
    page.click("#camera-start")
    page.wait_for_selector("#camera-faces .face h4")
    page.click("#camera-record")
    page.wait_for_timeout(2000)
    before, cpu, began = page.evaluate(RECORDED), cpu_s(servers), time.perf_counter()
    page.wait_for_timeout(1000 * seconds)
    n, cpu, wall = page.evaluate(RECORDED) - before, cpu_s(servers) - cpu, time.perf_counter() - began
    latency = float(page.inner_text("#camera-latency").split()[0])
    page.click("#camera-stop")
    return {"frames a second": n / wall, "time an image, ms": latency, "processor time an image, ms": 1000 * cpu / n}


def cpu_s(servers: list[subprocess.Popen[bytes]]) -> float:
    """Processor time of the browser and of the servers until now."""
    total = 0.0
    named = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
    parents = [psutil.Process(server.pid) for server in servers]
    served = [one for parent in parents for one in (parent, *parent.children(recursive=True))]
    for one in (*named, *served):
        try:
            spent = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += spent.user + spent.system
    return total


def show(rounds: list[dict[str, dict[str, float]]]) -> None:
    """Each figure of both sides, with its spread, and the ratio per round."""
    for figure in rounds[0]["local"]:
        ratios = sorted(one["local"][figure] / one["server"][figure] for one in rounds)
        sides = {kind: sorted(one[kind][figure] for one in rounds) for kind in ("local", "server")}
        told = [f"{kind} {statistics.median(v):.1f} ({v[0]:.1f}–{v[-1]:.1f})" for kind, v in sides.items()]
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        print(f"{figure}: {', '.join(told)}; ratio {spread}, n = {len(rounds)}")


if __name__ == "__main__":
    main()
