"""Two questions, each answered in one process with the parties alternating.

**A checkpoint**: one face at a time, `Classifier` against a bare session and against YOLO, from the same 48×48 array.

Each side is measured at one and at two threads, of the session and of torch, and its thread count of the lower median
counts; `Classifier` is held against a bare session of the same count. The parties alternate; the ratio is taken per
round, then the median. Two threads need two idle cores.

.venv/bin/python tests/benchmarks/latency.py runs/train/NAME/weights/best.pt [--rounds 9] [--calls 40]

**Exported files**: how many times the images a second of a reference they answer, on one thread, in batches of 32 and
one face at a time, by the clock and by the processor time of the thread, which hardly knows what else the machine does.

.venv/bin/python tests/benchmarks/latency.py deepfer-xs.onnx deepfer-xs-int8.onnx [--reference deepfer-n]
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
SPEED_BARS = {("fp32", 32): 3.0, ("int8", 32): 5.0, ("fp32", 1): 2.0, ("int8", 1): 2.0}
"""Of the smallest model, against deepfer-n in fp32: by precision and batch."""
SIZE_BAR_MB = 1.5
BATCHES = {1: 40, 32: 4}
"""Faces in a call, and calls in a round."""
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


def call_times_s(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """Medians over `calls` calls: the clock, and the processor time of this thread."""
    times = []
    for _ in range(calls):
        began, busy = time.perf_counter(), time.thread_time()
        call()
        times.append((time.perf_counter() - began, time.thread_time() - busy))
    clock, processor = zip(*times, strict=True)
    return statistics.median(clock), statistics.median(processor)


def show_speed(files: list[Path], reference: Path, rounds: int) -> None:
    """How many times as fast as `reference` each file is, for one face and for 32, on one thread."""
    import numpy as np

    from deepfer_yolo.runtime.classifier import Classifier

    random = np.random.default_rng(0)
    models = {str(path): Classifier(path, threads=1) for path in (reference, *files)}
    faces = {name: random.integers(0, 256, (32, *[model.card.input.size] * 2, 1), np.uint8).repeat(3, 3)
             for name, model in models.items()}  # fmt: skip
    calls = {
        (name, batch): lambda model=model, crops=faces[name][:batch]: model.predict(crops)
        for name, model in models.items()
        for batch in BATCHES
    }
    for call in calls.values():
        call()
    found = [{who: call_times_s(call, BATCHES[who[1]]) for who, call in calls.items()} for _ in range(rounds)]
    for name, model in models.items():
        size_mb = model.path.stat().st_size / 1e6
        bar = "" if name == str(reference) else f"; bar: at most {SIZE_BAR_MB}"
        print(f"{name}: {model.card.precision}, {model.card.input.size} px, {size_mb:.2f} MB{bar}")
        for batch in BATCHES:
            clock, processor = (statistics.median(one[name, batch][kind] for one in found) * 1000 for kind in (0, 1))
            print(f"  batch {batch:2}: {clock:7.3f} ms by the clock, {processor:7.3f} ms of processor time", end="")
            if name == str(reference):
                print()
                continue
            for kind in (0, 1):
                ratios = sorted(one[str(reference), batch][kind] / one[name, batch][kind] for one in found)
                print(f"; × {statistics.median(ratios):.2f} (min {ratios[0]:.2f}, max {ratios[-1]:.2f})", end="")
            print(f", n = {rounds}; bar: at least {SPEED_BARS.get((model.card.precision, batch), 1.0):.1f}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    """Print medians, ratios with their spread, and the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="a checkpoint, or exported files")
    parser.add_argument("--reference", type=Path, default=Path("deepfer-n"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=40)
    options = parser.parse_args()
    if options.models[0].suffix != ".pt":
        show_speed(options.models, options.reference, options.rounds)
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        checkpoint = work / "best.pt"
        for suffix in (".pt", ".json"):
            checkpoint.with_suffix(suffix).write_bytes(options.models[0].with_suffix(suffix).read_bytes())
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
