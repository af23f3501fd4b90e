"""One face at a time: `Classifier` against a bare session and against YOLO, from the same 48×48 array, in one process.

YOLO is measured at one and at two threads and its better side counts. The parties alternate; the ratio is taken per round, then the median.

.venv/bin/python tests/benchmarks/latency.py runs/train/NAME/weights/best.pt [--rounds 9] [--calls 40]
"""

from __future__ import annotations

import argparse
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
PROGRAMS = Path(sys.executable).parent


def median_ms(call: Callable[[], object], calls: int) -> float:
    """Median wall clock of `calls` calls."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def parties(checkpoint: Path, work: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by name; each call turns one 48×48 picture, or one input, into probabilities."""
    subprocess.run([str(PROGRAMS / "deepfer"), "export", str(checkpoint), "--out", str(work / "ours.onnx")], check=True, capture_output=True)
    import numpy as np
    import onnxruntime as ort

    from deepfer_yolo.painted import paint_golden
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.runtime.preprocess import to_inputs

    face = paint_golden(1, 1, 48)[0]
    classifier = Classifier(work / "ours.onnx", threads=1)
    crops = to_inputs([face], classifier.card.input)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    bare = ort.InferenceSession(str(work / "ours.onnx"), options, providers=["CPUExecutionProvider"])

    import torch
    from ultralytics import YOLO

    import deepfer_yolo.yolo  # noqa: F401 - sets Ultralytics' environment before its first import

    stock = YOLO(str(checkpoint), task="classify")
    size = classifier.card.input.size
    exported = YOLO(YOLO(str(checkpoint), task="classify").export(format="onnx", imgsz=size, simplify=False), task="classify")
    bgr = np.ascontiguousarray(face[:, :, ::-1])

    def yolo(model: YOLO, threads: int) -> Callable[[], object]:
        def call() -> object:
            torch.set_num_threads(threads)
            return model.predict(bgr, imgsz=size, verbose=False)

        return call

    return {
        "Classifier.predict": lambda: classifier.predict(crops),
        "Classifier.predict_images": lambda: classifier.predict_images([face]),
        "bare session": lambda: bare.run(["probs"], {"image": crops}),
        "YOLO(onnx), 1 thread": yolo(exported, 1),
        "YOLO(onnx), 2 threads": yolo(exported, 2),
        "YOLO(pt), 1 thread": yolo(stock, 1),
        "YOLO(pt), 2 threads": yolo(stock, 2),
    }


def show_start(checkpoint: Path, model: Path, work: Path, rounds: int) -> None:
    """Process start to first prediction, of one picture, both sides alternating."""
    from PIL import Image

    from deepfer_yolo.painted import paint_golden

    Image.fromarray(paint_golden(1, 1, 48)[0]).save(work / "face.png")
    ours = [str(PROGRAMS / "deepfer"), "predict", "face.png", "-m", str(model)]
    theirs = [str(PROGRAMS / "yolo"), "classify", "predict", f"model={checkpoint}", "source=face.png", "save=False"]

    def seconds(command: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd=work, env={**os.environ, "YOLO_OFFLINE": "1"})
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
            ours = "Classifier.predict" if rival == "bare session" else "Classifier.predict_images"
            ratios = sorted(min(ms for who, ms in one.items() if who.startswith(rival)) / one[ours] for one in rounds)
            print(f"{ours} is {statistics.median(ratios):.2f} times as fast as {rival} (min {ratios[0]:.2f}, max {ratios[-1]:.2f}, "
                  f"n = {len(ratios)}); bar: at least {bar:.2f}")  # fmt: skip
        show_start(checkpoint, work / "ours.onnx", work, max(3, options.rounds // 2))


if __name__ == "__main__":
    main()
