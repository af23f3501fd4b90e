"""`deepfer predict --faces`: pictures to the faces in them, and those to labels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from deepfer_yolo.data.images import load_image
from deepfer_yolo.data.ordered import map_in_order
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.faces.align import crop_face
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.files import os_reason
from deepfer_yolo.records import Face, Image, Prediction
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.batch import Labelled


def predict_faces(paths: Sequence[Path], classifier: Classifier, detectors: Callable[[], Detector], *, workers: int = 2) -> Iterator[Labelled]:
    """One `Labelled` a face, best score first, in the order of the paths; a picture without faces gives one without a prediction.

    `detectors` makes one detector a thread, since OpenCV's are not safe to share.
    """
    own = threading.local()

    def look(path: Path) -> tuple[list[Face], list[Image], str | None]:
        if not hasattr(own, "detector"):
            own.detector = detectors()
        return _look(path, own.detector, classifier.card)

    for path, (faces, crops, error) in zip(paths, map_in_order(look, paths, workers, waiting_per_worker=4), strict=True):
        if not crops:
            yield Labelled(path, error=error)
            continue
        for face, row in zip(faces, classifier.predict(np.stack(crops)), strict=True):
            yield Labelled(path, Prediction(row, classifier.labels), face=face)


def _look(path: Path, detector: Detector, card: Card) -> tuple[list[Face], list[Image], str | None]:
    try:
        image = load_image(path)
    except DatasetError as error:
        return [], [], error.reason
    except OSError as error:
        return [], [], os_reason(error)
    faces = detector.detect(image)
    rule = card.crop if detector.boxes == "face" else None
    return faces, [crop_face(image, face, rule, card.input) for face in faces], None
