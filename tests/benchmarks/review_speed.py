"""From a key to the next image painted, in Chromium: 200 decisions by keyboard, each synced to the disk before.

.venv/bin/python tests/benchmarks/review_speed.py datasets/fer2013 [--n 200] [--rounds 3] [--with-model deepfer-n]

Beside it the processor time of a decision with all that is fetched ahead, in the server and in all processes of the
browser, and what one synced line costs on the same disk.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

MEASURED = "performance.getEntriesByType('measure').map(entry => entry.duration)"
BAR_MS = 50


def main() -> None:
    """Print median, 95 % and greatest time of each round, and the disk's share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--with-model", default="deepfer-n")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    every = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            times, server_ms, browser_ms = decide(Path(folder), given.dataset.resolve(), given.with_model, given.n)
            synced = one_line(Path(folder), given.n)
        every += times
        print(
            f"round {number + 1}: {words(times)}; processor time a decision {server_ms:.1f} ms in the server, "
            f"{browser_ms:.1f} ms in the browser; a synced line alone {statistics.median(synced):.1f} ms"
        )
    print(f"all: {words(every)}; bar: {BAR_MS} ms, met by {100 * sum(t < BAR_MS for t in every) / len(every):.1f} %")


def words(times: list[float]) -> str:
    """Median and spread."""
    ordered = sorted(times)
    return (
        f"median {statistics.median(ordered):.1f} ms, 95 % within {ordered[int(0.95 * len(ordered))]:.1f} ms, "
        f"greatest {ordered[-1]:.1f} ms, n = {len(ordered)}"
    )


def cpu_s(*processes: psutil.Process) -> float:
    """User and system seconds of processes so far."""
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def decide(folder: Path, dataset: Path, model: str, n: int) -> tuple[list[float], float, float]:
    """The times of `n` decisions, keys 1 to 7, space, x and ? in turn, in ms; the processor time of one in server and
    browser.
    """
    from playwright.sync_api import sync_playwright

    words = ["review", str(dataset), "--with-model", model, "--port", "0", "--reviewer", "script"]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "deepfer_yolo", *words], cwd=folder, stderr=log, stdout=log)
    try:
        while (found := re.search(r" at (http://\S+)", (folder / "log.txt").read_text())) is None:
            if server.poll() is not None:
                sys.exit((folder / "log.txt").read_text())
            time.sleep(0.2)
        program = shutil.which("chromium") or shutil.which("google-chrome")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.goto(found[1])
            page.wait_for_selector("#stage img")
            page.wait_for_timeout(3000)
            ours = psutil.Process(server.pid)
            theirs = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
            before = cpu_s(ours), cpu_s(*theirs)
            for place in range(n):
                page.keyboard.press("1234567 x?"[place % 10])
                page.wait_for_timeout(150)  # nobody decides faster
                page.wait_for_function(f"() => {MEASURED}.length > {place}", polling=50)
                assert page.evaluate("document.querySelector('#stage img').naturalWidth") > 0
            spent = [1000 * (now - then) / n for now, then in zip((cpu_s(ours), cpu_s(*theirs)), before, strict=True)]
            times: list[float] = page.evaluate(MEASURED)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    assert len((folder / "corrections.csv").read_text().splitlines()) == n + 1
    return times, *spent


def one_line(folder: Path, n: int) -> list[float]:
    """What it costs to append a line of 200 bytes and sync it, in ms."""
    times = []
    with (folder / "lines.csv").open("ab", buffering=0) as file:
        for _ in range(n):
            start = time.perf_counter()
            file.write(b"x" * 199 + b"\n")
            os.fsync(file.fileno())
            times.append(1000 * (time.perf_counter() - start))
    return times


if __name__ == "__main__":
    main()
