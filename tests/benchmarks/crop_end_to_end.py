"""What finding and cropping faces costs in accuracy: FER2013 pictures pasted into larger frames, found, cropped and classified.

Each PublicTest picture is enlarged to 72-288 px, optionally colourised and sharpened, turned by up to ±10°, and pasted at a random place
of a 640×480 background. Accuracy on the faces found is compared with the same pictures' accuracy as given crops.

    python tests/benchmarks/crop_end_to_end.py ../shared/datasets/fer2013_dev.csv.gz best.onnx --face-model face_detection_yunet_2023mar.onnx
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path

import cv2
import numpy as np

from deepfer_yolo.emotions import FER2013_CODES
from deepfer_yolo.faces.align import crop_face
from deepfer_yolo.faces.detect import YuNetDetector
from deepfer_yolo.faces.track import overlap
from deepfer_yolo.runtime.card import CropSpec
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import resize, to_inputs

SIZE = (480, 640)
TINTS = ((1.0, 0.80, 0.68), (1.0, 0.86, 0.76), (0.78, 0.62, 0.5))


def read_split(path: Path, n: int, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """`n` PublicTest pictures, uint8 (n, 48, 48, 3), and their class indices in the model's order."""
    pictures, codes = [], []
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if row["Usage"] == "PublicTest" and len(pictures) < n:
                pictures.append(np.repeat(np.array(row["pixels"].split(), np.uint8).reshape(48, 48, 1), 3, axis=2))
                codes.append(labels.index(FER2013_CODES[int(row["emotion"])]))
    return np.stack(pictures), np.array(codes)


def background(random: np.random.RandomState) -> np.ndarray:
    """A blurred random pattern with some noise: no face in it, and not flat."""
    coarse = random.randint(30, 220, (6, 8, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + random.randint(-8, 9, (*SIZE, 3)), 0, 255).astype(np.uint8)


def paste(picture: np.ndarray, random: np.random.RandomState, factor: tuple[float, float], colour: bool) -> tuple[np.ndarray, np.ndarray]:
    """A frame with the picture in it, and the box of the picture's outline."""
    side = int(48 * random.uniform(*factor))
    face = resize(picture, side, side)
    if colour:
        tint = np.array(TINTS[random.randint(len(TINTS))])
        face = np.clip(face * tint + 6 * (1 - tint), 0, 255).astype(np.uint8)
    angle = random.uniform(-10, 10)
    reach = side * 0.75
    x, y = random.uniform(reach, SIZE[1] - reach), random.uniform(reach, SIZE[0] - reach)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    turn[:, 2] += np.array([x, y]) - side / 2
    frame = background(random)
    mask = cv2.warpAffine(np.full((side, side), 255, np.uint8), turn, SIZE[::-1])[:, :, None].astype(np.float32) / 255
    warped = cv2.warpAffine(face, turn, SIZE[::-1], borderMode=cv2.BORDER_REPLICATE)
    return (frame * (1 - mask) + warped * mask).astype(np.uint8), np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--n", type=int, default=3589)
    parser.add_argument("--detect-size", type=int, default=320)
    options = parser.parse_args()
    classifier = Classifier(options.model, threads=2)
    card = classifier.card
    detector = YuNetDetector(options.face_model, size=options.detect_size)
    pictures, truth = read_split(options.csv, options.n, card.labels)
    given = np.concatenate([classifier.predict(to_inputs(list(pictures[i : i + 256]), card.input)) for i in range(0, len(pictures), 256)]).argmax(1)
    print(f"given crops: {np.mean(given == truth):.2%} of {len(truth)} PublicTest pictures")
    specs = {"card's rule": card.crop, "turned": CropSpec(alignment="eyes"), "not turned": CropSpec(alignment="none")}
    specs |= {f"margin {m:+.3f}": CropSpec(margin=m, alignment="none") for m in (0.0, 0.06, 0.18, 0.24)}
    for name, factor, colour in (("colour, 3-6 ×", (3, 6), True), ("grey, 3-6 ×", (3, 6), False), ("grey, 1.5-6 ×", (1.5, 6), False)):
        random = np.random.RandomState(1)
        found, crops = [], {spec: [] for spec in specs}
        for index, picture in enumerate(pictures):
            frame, box = paste(picture, random, factor, colour)
            faces = detector.detect(frame)
            best = max(faces, key=lambda face: overlap(face.box[None], box[None])[0, 0], default=None)
            if best is None or overlap(best.box[None].astype(float), box[None])[0, 0] < 0.3:
                continue
            found.append(index)
            for spec, rule in specs.items():
                crops[spec].append(crop_face(frame, best, rule, card.input))
        kept = truth[found]
        base = np.mean(given[found] == kept)
        print(f"\n{name}: found {len(found) / len(truth):.2%}; the same pictures as given crops {base:.2%}")
        probs: dict[str, np.ndarray] = {}
        for spec, inputs in crops.items():
            stacked = np.stack(inputs)
            probs[spec] = np.concatenate([classifier.predict(stacked[i : i + 256]) for i in range(0, len(stacked), 256)])
        probs["three scales"] = sum(probs[f"margin {m:+.3f}"] for m in (0.0, 0.06, 0.18)) / 3
        for spec, rows in probs.items():
            right = np.mean(rows.argmax(1) == kept)
            print(f"  {spec:14s} {right:.2%}  ({100 * (right - base):+.2f} points)")


if __name__ == "__main__":
    main()
