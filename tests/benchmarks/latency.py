"""One face at a time: `Classifier` against a bare session and against YOLO, from the same 48×48 array, in one process.

Each side is measured at one and at two threads, of the session and of torch, and its thread count of the lower median
counts; `Classifier` is held against a bare session of the same count. The parties alternate; the ratio is taken per
round, then the median. Two threads need two idle cores.

.venv/bin/python tests/benchmarks/latency.py runs/train/NAME/weights/best.pt [--rounds 9] [--calls 40]
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BARS = {"bare session": 1 / 1.15, "YOLO(onnx)": 2.0, "YOLO(pt)": 5.0}
"""How many times faster than each the median must be; a bare session may be 1.15 × faster than we are."""
START_BAR = 0.15
THREADS = (1, 2)
PROGRAMS = Path(sys.executable).parent


def median_ms(call: Callable[[], object], calls: int) -> float:
    """Median wall clock of `calls` calls."""
    times = []
    time.sleep(0.02)  # until the threads of whoever came before sleep
    call()
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def parties(checkpoint: Path, work: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by name; each call turns one 48×48 picture, or one input, into probabilities."""
    subprocess.run(
        [str(PROGRAMS / "deepfer"), "export", str(checkpoint), "--out", str(work / "ours.onnx")],
        check=True,
        capture_output=True,
    )
    importlib.import_module("deepfer_yolo.yolo")  # sets Ultralytics' environment before its first import
    import numpy as np
    import onnxruntime as ort
    import torch
    from ultralytics import YOLO

    from deepfer_yolo.painted import paint_golden
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.runtime.preprocess import to_inputs

    face = paint_golden(1, 1, 48)[0]
    bgr = np.ascontiguousarray(face[:, :, ::-1])
    size = Classifier(work / "ours.onnx").card.input.size
    file = YOLO(str(checkpoint), task="classify").export(format="onnx", imgsz=size, simplify=False)

    def session(path: str | Path, threads: int) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def yolo(path: str, threads: int) -> Callable[[], object]:
        model = YOLO(path, task="classify")

        def call() -> object:
            torch.set_num_threads(threads)
            return model.predict(bgr, imgsz=size, verbose=False)

        call()
        if path.endswith(".onnx"):
            model.predictor.model.backend.session = session(path, threads)
        return call

    found: dict[str, Callable[[], object]] = {}
    for threads in THREADS:
        classifier = Classifier(work / "ours.onnx", threads=threads, spin=threads > 1)
        crops = to_inputs([face], classifier.card.input)
        bare = session(work / "ours.onnx", threads)
        found |= {
            f"Classifier.predict, {threads}": lambda classifier=classifier, crops=crops: classifier.predict(crops),
            f"Classifier.predict_images, {threads}": lambda classifier=classifier: classifier.predict_images([face]),
            f"bare session, {threads}": lambda bare=bare, crops=crops: bare.run(["probs"], {"image": crops}),
            f"YOLO(onnx), {threads}": yolo(file, threads),
            f"YOLO(pt), {threads}": yolo(str(checkpoint), threads),
        }
    return found


def best(rounds: list[dict[str, float]], side: str) -> str:
    """The party of `side` with the lowest median over the rounds."""
    return min(
        (who for who in rounds[0] if who.startswith(f"{side}, ")),
        key=lambda who: statistics.median(one[who] for one in rounds),
    )


def show_start(checkpoint: Path, model: Path, work: Path, rounds: int) -> None:
    """Process start to first prediction, of one picture, both sides alternating."""
    from PIL import Image

    from deepfer_yolo.painted import paint_golden

    Image.fromarray(paint_golden(1, 1, 48)[0]).save(work / "face.png")
    ours = [str(PROGRAMS / "deepfer"), "predict", "face.png", "-m", str(model)]
    theirs = [str(PROGRAMS / "yolo"), "classify", "predict", f"model={checkpoint}", "source=face.png", "save=False"]

    def seconds(command: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            cwd=work,
            env={**os.environ, "YOLO_OFFLINE": "1"},
        )
        return time.perf_counter() - began

    seconds(ours), seconds(theirs)  # the first calls fill the caches
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    left, right = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"start to first prediction: deepfer {left:.2f} s, yolo {right:.2f} s, ratio {statistics.median(ratios):.3f} "
          f"(min {ratios[0]:.3f}, max {ratios[-1]:.3f}, n = {rounds}); bar: at most {START_BAR}")  # fmt: skip


def main() -> None:
    """Print medians, ratios with their spread, and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        checkpoint = work / "best.pt"
        for suffix in (".pt", ".json"):
            checkpoint.with_suffix(suffix).write_bytes(options.checkpoint.with_suffix(suffix).read_bytes())
        calls = parties(checkpoint, work)
        for call in calls.values():
            call()
        rounds = [{who: median_ms(call, options.calls) for who, call in calls.items()} for _ in range(options.rounds)]
        for who in calls:
            print(f"{who:<26} {statistics.median(one[who] for one in rounds):8.3f} ms")
        for rival, bar in BARS.items():
            pairs = [(best(rounds, "Classifier.predict_images"), best(rounds, rival))]
            if rival == "bare session":
                pairs = [(f"Classifier.predict, {threads}", f"bare session, {threads}") for threads in THREADS]
            for ours, theirs in pairs:
                ratios = sorted(one[theirs] / one[ours] for one in rounds)
                spread = f"min {ratios[0]:.2f}, max {ratios[-1]:.2f}, n = {len(ratios)}"
                print(f"{ours} is {statistics.median(ratios):.2f} times as fast as {theirs} ({spread});", end=" ")
                print(f"bar: at least {bar:.2f}")
        show_start(checkpoint, work / "ours.onnx", work, max(3, options.rounds // 2))


if __name__ == "__main__":
    main()
