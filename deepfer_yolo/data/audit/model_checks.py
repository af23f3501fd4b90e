"""The checks of an audit that need a model, a face detector or another data set."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import AuditConfig, FindingKind, Severity
from deepfer_yolo.data.audit.findings import Finding
from deepfer_yolo.data.audit.inspection import InspectedImage, Inspection
from deepfer_yolo.data.audit.label_errors import Predictions, likely_errors
from deepfer_yolo.data.images import rgb
from deepfer_yolo.data.leaks import short_hash
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.records import Image, JsonValue, Probs
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest
from deepfer_yolo.runtime.preprocess import to_input

BATCH = 64
HELD_OUT_ANSWERS = "deepfer train DATASET --folds 5 writes held-out answers for --predictions"
LIGHT: dict[FindingKind, str] = {
    "drift-brightness": "brightness",
    "drift-contrast": "contrast",
    "drift-sharpness": "sharpness",
}


class LabelCheck:
    """Likely label errors by a model's answer to every image; see `label_errors`."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._batch: list[Image] = []
        self._probs: list[NDArray[np.float32]] = []

    @property
    def model(self) -> str:
        """The SHA-256 of the model."""
        return digest(self._classifier.path)

    def prepare(self, pixels: NDArray[np.uint8]) -> Image:
        """The image as the model wants it."""
        return to_input(rgb(pixels), self._classifier.card.input)

    def take(self, image: InspectedImage, prepared: Image) -> None:
        """Take one image into the batch."""
        self._batch.append(prepared)
        if len(self._batch) == BATCH:
            self._predict()

    def notes(self) -> Iterator[JsonValue]:
        """The probabilities of each image."""
        self._finish()
        return (probs.tolist() for part in self._probs for probs in part)

    def recall(self, image: InspectedImage, note: Any) -> None:
        """Take the probabilities of one image."""
        self._probs.append(np.array(note, np.float32).reshape(1, len(self._classifier.labels)))

    def probs(self, seen: Inspection) -> dict[str, Probs]:
        """The model's probabilities for every image, by key."""
        self._finish()
        keys = (image.key for image in seen.images)
        return dict(zip(keys, (row for part in self._probs for row in part), strict=True))

    def findings(self, seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
        """Images whose label is likely wrong, the likeliest first."""
        self._finish()
        keys = [image.key for image in seen.images]
        probs = dict(zip(keys, np.concatenate(self._probs), strict=True))
        yield from likely_errors(seen.images, Predictions(self._classifier.labels, probs, self._remark(seen.images)))

    def _remark(self, images: list[InspectedImage]) -> str:
        """What a model that has learned the images is worth here."""
        known = self._classifier.card.learned
        if known is None:
            return f"a model may have learned wrong labels with the images: {HELD_OUT_ANSWERS}"
        n = int(np.isin(np.array([short_hash(image.pixel_hash) for image in images], np.uint64), known).sum())
        if not n:
            return ""
        learned = f"the model has learned {n:,} of the {len(images):,} images, perhaps with their wrong labels"
        return f"{learned}: {HELD_OUT_ANSWERS}"

    def _finish(self) -> None:
        if self._batch:
            self._predict()

    def _predict(self) -> None:
        self._probs.append(self._classifier.predict(np.stack(self._batch)))
        self._batch = []


class FaceCheck:
    """Looks for faces: none, several, or one that is small in its image."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._lock = threading.Lock()  # OpenCV's detectors are not safe to share.
        self._found: list[tuple[str, int, float]] = []
        """Key, faces, and the share of the shorter side that the first one takes."""

    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[int, float]:
        """How many faces the image shows, and the share of its shorter side that the first one takes."""
        with self._lock:
            faces = self._detector.detect(rgb(pixels))
        x1, y1, x2, y2 = faces[0].box.tolist() if faces else (0.0, 0.0, 0.0, 0.0)
        return len(faces), max(x2 - x1, y2 - y1) / min(pixels.shape[:2])

    def take(self, image: InspectedImage, prepared: tuple[int, float]) -> None:
        """Note what was found in one image."""
        self._found.append((image.key, *prepared))

    def notes(self) -> Iterator[JsonValue]:
        """How many faces each image shows, and the share that the first one takes."""
        return ([n, share] for _, n, share in self._found)

    def recall(self, image: InspectedImage, note: Any) -> None:
        """Take what was found in one image."""
        n, share = note
        self._found.append((image.key, int(n), float(share)))

    def findings(self, seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
        """One finding a kind; notes all, since detectors err too."""
        found, by = self._found, f"found by {self._detector.name}"
        small = f"the face is under {100 * config.min_face:g} % of the image's shorter side"
        kinds: tuple[tuple[FindingKind, str, list[str]], ...] = (
            ("face-none", f"no face {by}", [key for key, n, _ in found if n == 0]),
            ("face-several", f"several faces {by}", [key for key, n, _ in found if n > 1]),
            ("face-small", small, [key for key, n, share in found if n == 1 and share < config.min_face]),
        )
        for kind, message, keys in kinds:
            if keys:
                yield Finding(kind, "note", len(keys), message, tuple((key,) for key in keys))


def drift(seen: Inspection, other: Inspection, config: AuditConfig) -> list[Finding]:
    """How far another data set is: class shares, and light in standard deviations (Cohen's d)."""
    if not other.images:
        reason = f"no image of {other.name} can be read, so nothing can be compared with it"
        raise DatasetError(reason, "audit it by itself first")
    labels = sorted({image.label for image in [*seen.images, *other.images]})
    here, there = (_shares(images, labels) for images in (seen.images, other.images))
    shift, largest = float(np.abs(here - there).sum() / 2), int(np.abs(here - there).argmax())
    message = f"{100 * shift:.1f} % of the class mix differs from {other.name}, most in {labels[largest]}: "
    message += f"{100 * here[largest]:.1f} % here, {100 * there[largest]:.1f} % there"
    findings = [Finding("drift-classes", _severity(shift > config.max_class_shift), 1, message)]
    for kind, what in LIGHT.items():
        one, two = (np.array([getattr(image, what) for image in images]) for images in (seen.images, other.images))
        spread = float(np.sqrt((one.var() + two.var()) / 2))
        distance = abs(float(one.mean() - two.mean())) / max(spread, 1e-9)
        message = f"mean {what} {one.mean():.1f} here, {two.mean():.1f} in {other.name}: "
        message += f"{distance:.2f} standard deviations apart"
        findings.append(Finding(kind, _severity(distance > config.max_drift), 1, message))
    return findings


def _severity(is_far: bool) -> Severity:
    return "warning" if is_far else "note"


def _shares(images: list[InspectedImage], labels: list[str]) -> NDArray[np.float64]:
    counts = Counter(image.label for image in images)
    return np.array([counts[label] for label in labels]) / max(1, len(images))
