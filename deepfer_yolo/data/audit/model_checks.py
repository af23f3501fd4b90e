"""The checks of an audit that need a model, a face detector or another data set."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import AuditConfig, FindingKind
from deepfer_yolo.data.audit.findings import Finding
from deepfer_yolo.data.audit.inspection import Inspection, Look
from deepfer_yolo.errors import DatasetError, MissingDependencyError
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.records import Image
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import resize, to_input

BATCH = 64
FACE_PX = 160
"""Smaller pictures are enlarged to this before faces are looked for: detectors are made for larger ones."""
MAX_FACE_PX = 640
"""Longer sides are reduced to this: the detectors look at no more."""
BORDER = 0.2


class ModelVisit:
    """Asks a model for the probabilities of every picture, then finds likely label errors by confident learning
    (Northcutt et al., JAIR 2021).
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._batch: list[Image] = []
        self._probs: list[NDArray[np.float32]] = []

    def prepare(self, pixels: NDArray[np.uint8]) -> Image:
        """The picture as the model wants it."""
        return to_input(_rgb(pixels), self._classifier.card.input)

    def take(self, look: Look, prepared: Image) -> None:
        """Take one picture into the batch."""
        self._batch.append(prepared)
        if len(self._batch) == BATCH:
            self._run()

    def findings(self, seen: Inspection, config: AuditConfig) -> list[Finding]:
        """Pictures whose label is likely wrong, the likeliest first."""
        try:
            from cleanlab.filter import find_label_issues
        except ModuleNotFoundError:
            raise MissingDependencyError.for_extra("eval", "cleanlab") from None
        if self._batch:
            self._run()
        labels = self._classifier.labels
        strangers = sorted({look.label for look in seen.looks} - set(labels))
        if strangers:
            hint = f"it knows {', '.join(labels)}; convert with --drop or --map"
            raise DatasetError(f"the model does not know the labels {', '.join(strangers)}", hint)
        probs = np.concatenate(self._probs).astype(np.float64)
        probs /= probs.sum(axis=1, keepdims=True)
        given = np.array([labels.index(look.label) for look in seen.looks])
        if len(set(given.tolist())) < 2:
            raise DatasetError(
                "label errors can be ranked among two labels or more, and all pictures bear one",
                "leave out --with-model",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # classes of few pictures: the finding `few` says so
            ranked = find_label_issues(given, probs, return_indices_ranked_by="self_confidence", n_jobs=1)
        if not len(ranked):
            return []
        groups = tuple((seen.looks[index].key,) for index in ranked)
        notes = tuple(
            f"the model: {labels[int(probs[i].argmax())]} {probs[i].max():.2f}, its label {probs[i][given[i]]:.2f}"
            for i in ranked
        )
        message = "likely by confident learning, the likeliest first; a model hides the errors of pictures that it learned from"
        return [Finding("label-error", "note", len(ranked), message, groups, notes)]

    def _run(self) -> None:
        self._probs.append(self._classifier.predict(np.stack(self._batch)))
        self._batch = []


class FaceVisit:
    """Looks for faces: none, several, or one that is small in its picture."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._found: dict[FindingKind, list[tuple[str]]] = {"face-none": [], "face-several": [], "face-small": []}
        self._shares: dict[str, float] = {}

    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[Image, int]:
        """The picture with room around it, of a size that detectors like, and the length of its own shorter side in
        there.
        """
        height, width = pixels.shape[:2]
        scale = min(max(1.0, FACE_PX / min(height, width)), MAX_FACE_PX / max(height, width))
        image = resize(_rgb(pixels), max(1, round(width * scale)), max(1, round(height * scale)))
        side = min(image.shape[:2])
        edge = round(side * BORDER)
        return np.pad(image, ((edge, edge), (edge, edge), (0, 0)), "edge"), side

    def take(self, look: Look, prepared: tuple[Image, int]) -> None:
        """Look for faces in one picture."""
        image, side = prepared
        faces = self._detector.detect(image)
        if not faces:
            self._found["face-none"].append((look.key,))
        elif len(faces) > 1:
            self._found["face-several"].append((look.key,))
        else:
            x1, y1, x2, y2 = faces[0].box.tolist()
            self._shares[look.key] = max(x2 - x1, y2 - y1) / side

    def findings(self, seen: Inspection, config: AuditConfig) -> list[Finding]:
        """One finding a kind; notes all, since detectors err too."""
        self._found["face-small"] = [(key,) for key, share in self._shares.items() if share < config.min_face]
        words: dict[FindingKind, str] = {
            "face-none": f"no face found by {self._detector.name}",
            "face-several": f"several faces found by {self._detector.name}",
            "face-small": f"the face is under {100 * config.min_face:g} % of the picture's shorter side",
        }
        return [
            Finding(kind, "note", len(groups), words[kind], tuple(groups))
            for kind, groups in self._found.items()
            if groups
        ]


def drift(seen: Inspection, other: Inspection, config: AuditConfig) -> list[Finding]:
    """How far the pictures are from those of another data set: class shares, and light in standard deviations (Cohen's
    d).
    """
    if not other.looks:
        raise DatasetError(
            f"no picture of {other.name} can be read, so nothing can be compared with it", "audit it by itself first"
        )
    findings = []
    labels = sorted({look.label for look in [*seen.looks, *other.looks]})
    here, there = (_shares(looks, labels) for looks in (seen.looks, other.looks))
    shift = float(np.abs(here - there).sum() / 2)
    largest = int(np.abs(here - there).argmax())
    message = f"{100 * shift:.1f} % of the class mix differs from {other.name}, most in {labels[largest]}: "
    message += f"{100 * here[largest]:.1f} % here, {100 * there[largest]:.1f} % there"
    findings.append(Finding("drift-classes", "warning" if shift > config.max_class_shift else "note", 1, message))
    light: tuple[tuple[FindingKind, str], ...] = (
        ("drift-brightness", "brightness"), ("drift-contrast", "contrast"), ("drift-sharpness", "sharpness")
    )  # fmt: skip
    for kind, what in light:
        one, two = (np.array([getattr(look, what) for look in looks]) for looks in (seen.looks, other.looks))
        spread = float(np.sqrt((one.var() + two.var()) / 2))
        distance = abs(float(one.mean() - two.mean())) / max(spread, 1e-9)
        message = f"mean {what} {one.mean():.1f} here, {two.mean():.1f} in {other.name}: {distance:.2f} standard deviations apart"
        findings.append(Finding(kind, "warning" if distance > config.max_drift else "note", 1, message))
    return findings


def _shares(looks: list[Look], labels: list[str]) -> NDArray[np.float64]:
    counts = Counter(look.label for look in looks)
    return np.array([counts[label] for label in labels]) / max(1, len(looks))


def _rgb(pixels: NDArray[np.uint8]) -> Image:
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
