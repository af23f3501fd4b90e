"""`deepfer predict`: many image files to labels, decoded in threads while the model works on the batch before."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from deepfer_yolo.config import PredictConfig
from deepfer_yolo.data.image_formats import OTHERS, SUFFIXES, why_left_out
from deepfer_yolo.data.images import load_pixels, map_in_order, rgb
from deepfer_yolo.data.parquet_images import ParquetImages, is_parquet, rows_in
from deepfer_yolo.data.untrusted import Problems, walk_files
from deepfer_yolo.errors import DatasetError, SourceError, redact, require
from deepfer_yolo.faces.align import crop_faces
from deepfer_yolo.faces.detect import Detector, open_detector
from deepfer_yolo.faces.quality import lack_of, quality_of
from deepfer_yolo.faces.smooth import UNCERTAIN
from deepfer_yolo.files import os_reason
from deepfer_yolo.records import Crops, Face, Image, Json, JsonValue, Lack, Prediction, Quality
from deepfer_yolo.runtime.card import Card
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.preprocess import to_inputs
from deepfer_yolo.stream.file_names import closed_folders, expanded, is_url, matching

PARQUET = ParquetImages()


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One image file with what the model says, or with the error that kept it from being read.

    Where faces were searched, `face` is the one that the prediction speaks of, `quality` how well it can be seen, and
    `lack` what is too little of it for a label; an image without faces has neither prediction nor error.
    """

    path: Path
    prediction: Prediction | None = None
    error: str | None = None
    face: Face | None = None
    quality: Quality | None = None
    lack: Lack | None = None
    index: int = 0
    """The image's place among all that were asked for."""

    @property
    def label(self) -> str | None:
        """The most probable label; ``uncertain`` for a face that cannot be seen well enough, None without any."""
        if self.prediction is None:
            return None
        return UNCERTAIN if self.lack else self.prediction.label

    def to_json(self) -> Json:
        """The row of `predict --json`."""
        row: dict[str, JsonValue] = {"schema": 1, "path": str(self.path)}
        if self.face is not None:
            row |= self.face.to_json()
        if self.error is not None:
            return row | {"error": self.error}
        if self.prediction is None:
            return row | {"faces": 0}
        confidence = round(self.prediction.confidence, 6)
        row |= {"label": self.label, "confidence": confidence, "probs": self.prediction.by_label(6)}
        return row | ({"reason": self.lack, **self.quality.to_json()} if self.quality is not None else {})


def find_images(sources: Sequence[str], left_out: Counter[str] | None = None) -> Iterator[Path]:
    """The image files behind files, folders (searched through, sorted), glob patterns and lists, in the order named.

    A named file is kept even where it does not exist, and so is an image of a kind that is not read, and a folder that
    cannot be entered: its error belongs into its row. What else lies in a folder is counted in `left_out`, with the
    reason, while they are fetched. Raises SourceError for a folder or a pattern without images, and for what is no file
    at all.
    """
    return (path for _, path in named_images(sources, left_out))


def named_images(sources: Sequence[str], left_out: Counter[str] | None = None) -> Iterator[tuple[str, Path]]:
    """The same with what each image is called wherever its folder is mounted: its path inside of it, else as given."""
    counted: Counter[str] = Counter() if left_out is None else left_out

    def named(source: str, paths: Iterator[Path]) -> Iterator[tuple[str, Path]]:
        start = os.path.join(Path(source), "")  # noqa: PTH118 (ends with the separator)
        return ((str(path).removeprefix(start), path) for path in paths)

    return chain.from_iterable([named(source, _images_of(source, counted)) for source in expanded(sources)])


def _images_of(source: str, left_out: Counter[str]) -> Iterator[Path]:
    """The images that one source names; of a folder only the first is looked for before the iterator is used."""
    if is_url(source):
        raise SourceError(f"{redact(source)} is no image file", f"deepfer stream {redact(source)}")
    before, path = left_out.copy(), Path(source)
    is_folder = os.path.isdir(path)  # noqa: PTH112 (no error where the folder above cannot be entered)
    named = _images_in(path, left_out) if is_folder else matching(source)
    files = [path] if named is None else named if is_folder else _with_rows(named)
    if named is None and is_parquet(path) and path.is_file():
        require("pyarrow")
        files = _rows_of(path) or [path]
    inside = chain(files, () if named is None or is_folder else closed_folders(source))
    first = next(inside, None)
    if first is None:
        others = left_out - before
        what = f"no images in {source}" + (f", but {in_words(others)}" if others else "")
        videos = f"deepfer stream {source}" if "videos" in others else None
        raise SourceError(what, videos or f"known suffixes: {' '.join(sorted(SUFFIXES))}")
    return chain((first,), inside)


def in_words(left_out: Counter[str]) -> str:
    """What was left out, by reason."""
    return ", ".join(f"{n:,} {why}" for why, n in left_out.most_common())


def _images_in(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    """All images of a folder, also those that will have an error instead of a label; last, what cannot be looked at."""
    problems, named = Problems(), SUFFIXES | OTHERS.keys()
    for path in walk_files(folder, problems):
        if path.suffix.lower() in named:
            yield path
        elif is_parquet(path) and (rows := _rows_of(path)) is not None:
            yield from rows
        else:
            left_out[why_left_out(path)] += 1
    unread = {str(path) for path in problems.unread}
    left_out.update(f"× {what}" for place, what in problems.found if place not in unread)
    yield from problems.unread


def _with_rows(files: Iterable[Path]) -> Iterator[Path]:
    for file in files:
        yield from (_rows_of(file) if is_parquet(file) else None) or [file]


def _rows_of(file: Path) -> list[Path] | None:
    """The images of a parquet file; a broken one is itself an image that cannot be read, one without images None."""
    try:
        return rows_in(file)
    except DatasetError:
        return [file]


def label_images(paths: Iterable[Path], classifier: Classifier, config: PredictConfig) -> Iterator[Labelled]:
    """One `Labelled` a path, in order, numbered; with `config.faces` one a face, best score first.

    A few batches a worker wait in memory; where faces are searched, a batch is one image. Raises ModelError for a
    detector's file that cannot be used.
    """
    rest, labels = enumerate(paths), classifier.labels
    if config.faces:
        yield from _label_faces(rest, classifier, config)
        return
    chunks = iter(lambda: list(islice(rest, config.batch)), [])
    read = partial(_read_crops, card=classifier.card)
    for chunk, errors, crops in map_in_order(read, chunks, config.workers, waiting_per_worker=2):
        probs = iter(classifier.predict(crops))
        for index, path in chunk:
            if index in errors:
                yield Labelled(path, None, errors[index], index=index)
            else:
                yield Labelled(path, Prediction(next(probs), labels), index=index)


def _label_faces(
    paths: Iterable[tuple[int, Path]], classifier: Classifier, config: PredictConfig
) -> Iterator[Labelled]:
    open_detector(config, "image")  # A wrong file shows here, not in a thread.
    own = threading.local()  # OpenCV's detectors are not safe to share.

    def read(numbered: tuple[int, Path]) -> tuple[list[Labelled], Crops]:
        if not hasattr(own, "detector"):
            own.detector = open_detector(config, "image")
        return _read_faces(*numbered, classifier.card, own.detector, config)

    for rows, crops in map_in_order(read, paths, config.workers, waiting_per_worker=4):
        probs = iter(classifier.predict(crops))
        for row in rows:
            yield row if row.face is None else replace(row, prediction=Prediction(next(probs), classifier.labels))


Numbered = Sequence[tuple[int, Path]]


def _read_crops(paths: Numbered, card: Card) -> tuple[Numbered, dict[int, str], Crops]:
    """A batch of images: the paths, why some cannot be read, and the crops (m, S, S, 3) of the others."""
    errors: dict[int, str] = {}

    def readable() -> Iterator[Image]:
        for index, path in paths:
            image = _load(path)
            if isinstance(image, str):
                errors[index] = image
            else:
                yield image

    return paths, errors, to_inputs(readable(), card.input)


def _read_faces(
    index: int, path: Path, card: Card, detector: Detector, config: PredictConfig
) -> tuple[list[Labelled], Crops]:
    """A row a face of one image, yet without predictions, and their crops; one row alone where no face is found."""
    image = _load(path)
    if isinstance(image, str):
        return [Labelled(path, None, image, index=index)], np.zeros((0, card.input.size, card.input.size, 3), np.uint8)
    image = rgb(image)
    faces = detector.detect(image)
    crops = crop_faces(image, faces, detector.boxes, card)
    seen = [(face, quality_of(face, crop)) for face, crop in zip(faces, crops, strict=True)]
    rows = [Labelled(path, None, None, face, quality, lack_of(quality, config), index) for face, quality in seen]
    return rows or [Labelled(path, index=index)], crops


def _load(path: Path) -> Image | str:
    """The image at `path`, of a grey one its channel, or why it cannot be read."""
    try:
        content = PARQUET.content(path)
        return load_pixels(path if content is None else content)
    except DatasetError as error:
        return error.reason
    except OSError as error:
        is_folder, why = os.path.isdir(path), os_reason(error)  # noqa: PTH112
        return f"a folder that cannot be read ({why})" if is_folder else why
