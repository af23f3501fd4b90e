"""`deepfer predict`: many picture files to labels, decoded in threads while the model works on the batch before."""

from __future__ import annotations

import glob
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepfer_yolo.data.images import SUFFIXES, load_image, map_in_order
from deepfer_yolo.errors import DatasetError, SourceError
from deepfer_yolo.faces.align import crop_face
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.files import os_reason
from deepfer_yolo.records import Crops, Face, Image, Prediction
from deepfer_yolo.runtime.card import Card, InputSpec
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import to_input


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One picture file with what the model says, or with the error that kept it from being read.

    Where faces were searched, `face` is the one that the prediction speaks of; a picture without faces has neither
    prediction nor error.
    """

    path: Path
    prediction: Prediction | None = None
    error: str | None = None
    face: Face | None = None


def find_pictures(sources: Sequence[str]) -> list[Path]:
    """The picture files behind files, folders (searched through, sorted) and glob patterns, in the order named.

    A named file is kept even where it does not exist: its error belongs into its row. Raises SourceError for a folder
    or a pattern without pictures.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        elif not path.exists() and glob.has_magic(source):
            inside = sorted(
                Path(p)
                for p in glob.glob(source, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
                if Path(p).is_file()
            )
        else:
            inside = [path]
        if not inside:
            raise SourceError(f"no pictures in {source}", f"known suffixes: {' '.join(sorted(SUFFIXES))}")
        found += inside
    return found


def predict_pictures(
    paths: Sequence[Path], classifier: Classifier, *, batch: int = 64, workers: int = 2
) -> Iterator[Labelled]:
    """One `Labelled` a path, in order. At most two batches a worker wait in memory."""
    spec = classifier.card.input
    chunks = [paths[start : start + batch] for start in range(0, len(paths), batch)]
    decoded = map_in_order(lambda chunk: _decode(chunk, spec), chunks, workers, waiting_per_worker=2)
    for chunk, (crops, errors) in zip(chunks, decoded, strict=True):
        yield from _label(chunk, crops, errors, classifier)


def _decode(paths: Sequence[Path], spec: InputSpec) -> tuple[Crops, list[str | None]]:
    """The readable pictures of one batch as crops (m, S, S, 3), and an error or None for each path."""
    crops = np.empty((len(paths), spec.size, spec.size, 3), np.uint8)
    errors: list[str | None] = []
    n = 0
    for path in paths:
        try:
            crops[n] = to_input(load_image(path), spec)
        except DatasetError as error:
            errors.append(error.reason)
        except OSError as error:
            errors.append(os_reason(error))
        else:
            errors.append(None)
            n += 1
    return crops[:n], errors


def _label(
    paths: Sequence[Path], crops: Crops, errors: Sequence[str | None], classifier: Classifier
) -> Iterator[Labelled]:
    probs = iter(classifier.predict(crops))
    for path, error in zip(paths, errors, strict=True):
        if error is None:
            yield Labelled(path, Prediction(next(probs), classifier.labels))
        else:
            yield Labelled(path, error=error)


def predict_faces(
    paths: Sequence[Path], classifier: Classifier, detectors: Callable[[], Detector], *, workers: int = 2
) -> Iterator[Labelled]:
    """One `Labelled` a face, best score first, in the order of the paths; a picture without faces gives one without a
    prediction.

    `detectors` makes one detector a thread, since OpenCV's are not safe to share.
    """
    own = threading.local()

    def look(path: Path) -> tuple[list[Face], list[Image], str | None]:
        if not hasattr(own, "detector"):
            own.detector = detectors()
        return _look(path, own.detector, classifier.card)

    for path, (faces, crops, error) in zip(
        paths, map_in_order(look, paths, workers, waiting_per_worker=4), strict=True
    ):
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
