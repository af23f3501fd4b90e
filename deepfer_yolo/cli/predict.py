"""`deepfer predict`: images and folders to labels."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import ModelOption, options_of
from deepfer_yolo.config import PredictConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deepfer_yolo.stream.batch import Labelled


@options_of(
    PredictConfig,
    "sources model format as_json batch workers provider threads faces detector face_model detect_size config",
)
def predict(
    settings: PredictConfig,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Image files, folders (searched through) or glob patterns."),
    ],
    model: ModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format jsonl.")] = False,
) -> None:
    """Label face images: each image is one face, cut out already, or with --faces any image.

    An image that cannot be read becomes a row with its error; the others are labelled, and the exit code is 1.

    Example: deepfer predict faces/ portrait.jpg -m best.onnx --json
    """
    from deepfer_yolo.cli.options import note_haar, open_classifier
    from deepfer_yolo.stream.batch import find_images, label_images

    paths = find_images(sources)
    classifier = open_classifier(model, provider=settings.provider, threads=settings.threads)
    if settings.faces:
        note_haar(settings)
    rows = label_images(paths, classifier, settings)
    write = {"table": _write_table, "jsonl": _write_jsonl, "csv": _write_csv}["jsonl" if as_json else settings.format]
    n_errors = write(rows, classifier.labels, has_faces=settings.faces)
    if n_errors:
        print(f"{n_errors} of {len(paths)} images could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _write_table(rows: Iterable[Labelled], labels: tuple[str, ...], *, has_faces: bool) -> int:
    """One aligned line per image, the path last since it may be long. Returns the number of errors."""
    n_errors = 0
    width = max(7 if has_faces else 5, *map(len, labels))
    for row in rows:
        if row.error is not None:
            n_errors += 1
            print(f"{'error':<{width}}      -  {row.path}  ({row.error})")
        elif row.prediction is None:
            print(f"{'no face':<{width}}      -  {row.path}")
        else:
            place = "" if row.face is None else "  at " + ",".join(f"{v:.0f}" for v in row.face.box)
            print(f"{row.prediction.label:<{width}}  {row.prediction.confidence:5.3f}  {row.path}{place}")
    return n_errors


def _write_jsonl(rows: Iterable[Labelled], labels: tuple[str, ...], *, has_faces: bool) -> int:
    import json

    n_errors = 0
    for row in rows:
        n_errors += row.error is not None
        sys.stdout.write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")
    return n_errors


def _write_csv(rows: Iterable[Labelled], labels: tuple[str, ...], *, has_faces: bool) -> int:
    import csv

    n_errors = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(
        ["path", "label", "confidence", *labels, "error", *(("x1", "y1", "x2", "y2", "score") if has_faces else ())]
    )
    for row in rows:
        n_errors += row.error is not None
        place = [""] * 5 if row.face is None else [*(f"{v:.1f}" for v in row.face.box), f"{row.face.score:.4f}"]
        said = [""] * (2 + len(labels))
        if row.prediction is not None:
            said = [row.prediction.label, *(f"{p:.6f}" for p in (row.prediction.confidence, *row.prediction.probs))]
        writer.writerow([row.path, *said, row.error or "", *(place if has_faces else ())])
    return n_errors
