"""`deepfer predict`: images and folders to labels."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import FacesModelOption, options_of
from deepfer_yolo.config import PredictConfig
from deepfer_yolo.errors import EXIT_SOME_SOURCES_FAILED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from deepfer_yolo.stream.batch import Labelled

MAX_REASONS = 10
"""Of the reasons why images could not be read, those that are shown."""
FACE_COLUMNS = ("x1", "y1", "x2", "y2", "score", "reason", "size_px", "brightness", "contrast", "sharpness")
"""What csv has of each face, after the error."""


@options_of(
    PredictConfig,
    "sources model format as_json batch workers provider threads faces detector face_model detect_size config",
)
def predict(
    settings: PredictConfig,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Image files, folders (searched through), glob patterns, frame_%04d.png, or @FILE with one a line.",
        ),
    ],
    model: FacesModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format jsonl.")] = False,
) -> None:
    """Label face images: each image is one face, cut out already, or with --faces any image.

    An image that cannot be read, or a folder that cannot be entered, becomes a row with its error; the others are
    labelled, and the exit code is 4 (1 where none could be read). What a folder holds besides images is counted on
    stderr. Of an animated image the first frame is labelled; videos, cameras and streams are for deepfer stream.

    Example: deepfer predict faces/ portrait.jpg -m best.onnx --json
    """
    from deepfer_yolo.cli.options import note_haar, open_classifier
    from deepfer_yolo.stream.batch import find_images, in_words, label_images

    left_out: Counter[str] = Counter()
    found = find_images(sources, left_out)
    n_images = 0

    def counted() -> Iterator[Path]:
        nonlocal n_images
        for path in found:
            n_images += 1
            yield path

    classifier = open_classifier(
        model, provider=settings.provider, threads=settings.threads, from_frames=settings.faces
    )
    if settings.faces:
        note_haar(settings)
    rows = label_images(counted(), classifier, settings)
    write = {"table": _write_table, "jsonl": _write_jsonl, "csv": _write_csv}["jsonl" if as_json else settings.format]
    errors: Counter[str] = Counter()
    write(_counted(rows, errors), classifier.labels, has_faces=settings.faces)
    if left_out:
        print(f"left out: {in_words(left_out)}", file=sys.stderr)
    if errors:
        n_failed = errors.total()
        print(f"{n_failed:,} of {n_images:,} images could not be read:", file=sys.stderr)
        for why, n in errors.most_common(MAX_REASONS):
            print(f"  {n:,} × {why}", file=sys.stderr)
        raise typer.Exit(1 if n_failed == n_images else EXIT_SOME_SOURCES_FAILED)


def _counted(rows: Iterable[Labelled], errors: Counter[str]) -> Iterator[Labelled]:
    """The rows as they are; their errors are counted on the way."""
    for row in rows:
        if row.error is not None:
            errors[row.error] += 1
        yield row


def _write_table(rows: Iterable[Labelled], labels: tuple[str, ...], *, has_faces: bool) -> None:
    """One aligned line per image, the path last since it may be long."""
    width = max(9 if has_faces else 5, *map(len, labels))
    for row in rows:
        if row.error is not None:
            print(f"{'error':<{width}}      -  {row.path}  ({row.error})")
        elif row.prediction is None:
            print(f"{'no face':<{width}}      -  {row.path}")
        else:
            place = "" if row.face is None else f"  at {','.join(f'{v:.0f}' for v in row.face.box)}"
            place += "" if row.face is None else f"  face {row.face.score:.2f}"
            place += f"  ({row.lack})" if row.lack else ""
            print(f"{row.label:<{width}}  {row.prediction.confidence:5.3f}  {row.path}{place}")


def _write_jsonl(rows: Iterable[Labelled], labels: tuple[str, ...], *, has_faces: bool) -> None:
    import json

    for row in rows:
        sys.stdout.write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")


def _write_csv(rows: Iterable[Labelled], labels: tuple[str, ...], *, has_faces: bool) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "label", "confidence", *labels, "error", *(FACE_COLUMNS if has_faces else ())])
    for row in rows:
        place: list[object] = [""] * len(FACE_COLUMNS)
        if row.face is not None and row.quality is not None:
            box = (f"{v:.1f}" for v in row.face.box)
            place = [*box, f"{row.face.score:.4f}", row.lack or "", *row.quality.to_json().values()]
        said = [""] * (2 + len(labels))
        if row.prediction is not None:
            said = [row.label or "", *(f"{p:.6f}" for p in (row.prediction.confidence, *row.prediction.probs))]
        writer.writerow([row.path, *said, row.error or "", *(place if has_faces else ())])
