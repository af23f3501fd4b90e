"""How fast `deepfer stream` writes an annotated video, against the loops that a user would write and against a bare
two-thread loop.

    python tests/benchmarks/stream_speed.py picture.jpg best.pt best.onnx --face-model face_detection_yunet_2023mar.onnx

The clip is made from one picture: 1280×720 H.264, a slow pan, three faces. All sides read the same file, find, label
and draw the same faces and write a video; they run in turn, and ratios are taken within each round. Imports and loading
are outside the clock, and each side warms up on a few frames first.
"""

from __future__ import annotations

import argparse
import os
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def make_clip(picture: Path, face_model: Path, path: Path, n: int) -> int:
    """Write the clip; returns how many faces its first frame shows."""
    import av
    import cv2

    from deepfer_yolo.faces.align import _slice
    from deepfer_yolo.faces.detect import YuNetDetector
    from deepfer_yolo.stream.pixels import to_frame

    image = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
    image = cv2.resize(image, (1280, 720))
    detector = YuNetDetector(face_model, size=640, min_score=0.6)
    faces = detector.detect(image)[:2]
    x1, y1, x2, y2 = (int(v) for v in faces[0].box)
    side = int(max(x2 - x1, y2 - y1) * 1.6)
    third = _slice(image, (x1 + x2 - side) // 2, (y1 + y2 - side) // 2, side)[:, ::-1]
    third = cv2.resize(third, (200, 200))
    image[500:700, 40:240] = third
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        random = np.random.RandomState(0)
        for index in range(n):
            shift = np.float32([[1, 0, 12 * np.sin(index / 20)], [0, 1, 8 * np.cos(index / 25)]])
            frame = cv2.warpAffine(image, shift, (1280, 720), borderMode=cv2.BORDER_REPLICATE)
            frame = np.clip(frame.astype(np.int16) + random.randint(-3, 4, frame.shape, np.int16), 0, 255).astype(
                np.uint8
            )
            container.mux(stream.encode(to_frame(frame)))
        container.mux(stream.encode(None))
    return len(detector.detect(image))


def user_loop(
    clip: Path, out: Path, model: Any, find: Callable[[Any], Iterator[tuple[int, int, int, int]]], limit: int | None
) -> int:
    """OpenCV reader, one `YOLO.predict` a face, OpenCV writer."""
    import cv2

    capture = cv2.VideoCapture(str(clip))
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter_fourcc(*"mp4v"), 30, (1280, 720))
    n = 0
    while limit is None or n < limit:
        ok, frame = capture.read()
        if not ok:
            break
        for x, y, w, h in find(frame):
            face = frame[max(0, y) : y + h, max(0, x) : x + w]
            result = model.predict(face, verbose=False)[0]
            label = f"{result.names[result.probs.top1]} {float(result.probs.top1conf):.2f}"
            cv2.rectangle(frame, (x, y), (x + w, y + h), (0, 255, 0), 2)
            cv2.putText(frame, label, (x, y - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 255, 0), 2)
        writer.write(frame)
        n += 1
    capture.release()
    writer.release()
    return n


def haar_finder() -> Callable[[Any], Any]:
    """What tutorials do."""
    import cv2

    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    return lambda frame: cascade.detectMultiScale(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 1.1, 5)


def yunet_finder(path: Path) -> Callable[[Any], Any]:
    """YuNet on a frame of 320 × 180, as `deepfer stream` uses it."""
    import cv2

    net = cv2.FaceDetectorYN.create(str(path), "", (320, 180), 0.6)

    def find(frame: Any) -> Iterator[tuple[int, int, int, int]]:
        _, rows = net.detect(cv2.resize(frame, (320, 180), interpolation=cv2.INTER_AREA))
        for row in [] if rows is None else rows:
            x, y, w, h = (int(v * 4) for v in row[:4])
            yield x, y, w, h

    return find


def bare_loop(clip: Path, out: Path, classifier: Any, face_model: Path, limit: int | None) -> int:
    """The same parts with nothing around them: one thread decodes, one finds, labels, draws and encodes."""
    import av
    import cv2

    from deepfer_yolo.faces.align import crop_face
    from deepfer_yolo.faces.detect import YuNetDetector
    from deepfer_yolo.stream.pixels import to_frame, to_rgb

    detector, card = YuNetDetector(face_model, size=320, min_score=0.6), classifier.card
    frames: queue.Queue[Any] = queue.Queue(4)

    def read() -> None:
        with av.open(str(clip)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for index, frame in enumerate(container.decode(video=0)):
                if index == limit:
                    break
                frames.put((frame.time, to_rgb(frame)))
        frames.put(None)

    threading.Thread(target=read, daemon=True).start()
    n = 0
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        while (item := frames.get()) is not None:
            _, image = item
            faces = detector.detect(image)
            if faces:
                probs = classifier.predict(np.stack([crop_face(image, face, card.crop, card.input) for face in faces]))
            for face, row in zip(faces, probs if faces else (), strict=True):
                x1, y1, x2, y2 = (int(v) for v in face.box)
                cv2.rectangle(image, (x1, y1), (x2, y2), (0, 255, 0), 2)
                cv2.putText(
                    image,
                    f"{card.labels[int(row.argmax())]} {row.max():.2f}",
                    (x1, y1 - 8),
                    cv2.FONT_HERSHEY_SIMPLEX,
                    0.7,
                    (0, 255, 0),
                    2,
                )
            frame = to_frame(image)
            frame.pts, frame.time_base = n, Fraction(1, 30)
            container.mux(stream.encode(frame))
            n += 1
        container.mux(stream.encode(None))
    return n


def ours(clip: Path, out: Path, classifier: Any, face_model: Path, limit: int | None) -> int:
    """`deepfer stream CLIP --sink video=OUT --sink jsonl=…`."""
    from deepfer_yolo.config import StreamConfig
    from deepfer_yolo.stream.session import run_stream

    config = StreamConfig(detector="yunet", face_model=face_model, max_frames=limit, overwrite=True)
    summary = run_stream([str(clip)], classifier, [f"video={out}", f"jsonl={out}.jsonl"], config)
    return summary.sources[0].counters.processed


def main() -> None:
    """Measure and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")
    from ultralytics import YOLO

    from deepfer_yolo.runtime.classifier import Classifier

    yolo, classifier = YOLO(str(options.checkpoint)), Classifier(options.model)
    haar, yunet = haar_finder(), yunet_finder(options.face_model)
    with tempfile.TemporaryDirectory() as folder:
        clip, out = Path(folder) / "clip.mp4", Path(folder) / "out.mp4"
        n_faces = make_clip(options.picture, options.face_model, clip, options.frames)
        print(f"clip: {options.frames} frames of 1280×720, {n_faces} faces")
        n, few = options.frames, max(20, options.frames // 8)
        sides: dict[str, Callable[[int | None], int]] = {
            "deepfer stream": lambda limit: ours(clip, out, classifier, options.face_model, limit),
            "bare two threads": lambda limit: bare_loop(clip, out, classifier, options.face_model, limit),
            "user loop, YuNet": lambda limit: user_loop(clip, out, yolo, yunet, limit),
            "user loop, Haar": lambda limit: user_loop(clip, out, yolo, haar, limit),
        }
        limits = {"user loop, YuNet": n // 2, "user loop, Haar": few}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for side in sides.values():
            side(8)
        for _ in range(options.rounds):
            for name, side in sides.items():
                started = time.perf_counter()
                done = side(limits.get(name, n))
                rates[name].append(done / (time.perf_counter() - started))
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(rates["deepfer stream"], values, strict=True)]
        spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
        faster = f"deepfer stream is {statistics.median(ratios):5.2f} × ({spread}, n={len(values)})"
        print(f"{name:18s} {statistics.median(values):7.1f} fps   {faster}")


if __name__ == "__main__":
    main()
