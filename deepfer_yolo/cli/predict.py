"""`deepfer predict`: pictures and folders to labels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfer_yolo.cli.options import ConfigOption, ModelOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deepfer_yolo.stream.batch import Labelled


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Picture files, folders (searched through) or glob patterns."),
    ],
    model: ModelOption = None,
    output: Annotated[str | None, typer.Option("--format", help="table, jsonl or csv.", show_default="table")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format jsonl.")] = False,
    batch: Annotated[int | None, typer.Option(help="Pictures given to the model at a time.", show_default="64")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that read pictures.", show_default="2")] = None,
    provider: Annotated[
        str | None, typer.Option(help="What runs the model: cpu, cuda, tensorrt or openvino.", show_default="cpu")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model.", show_default="1")] = None,
    faces: Annotated[
        bool | None, typer.Option("--faces", help="Find the faces in each picture first.", show_default="off")
    ] = None,
    detector: Annotated[
        str | None, typer.Option("--detector", help="With --faces: auto, yunet or haar.", show_default="auto")
    ] = None,
    face_model: Annotated[
        Path | None, typer.Option("--face-model", help="The YuNet file.", show_default="$DEEPFER_FACE_MODEL or pulled")
    ] = None,
    detect_size: Annotated[
        int | None, typer.Option("--detect-size", help="Longer side of what the detector sees.", show_default="640 px")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Label face pictures: each picture is one face, cut out already, or with --faces any picture.

    A picture that cannot be read becomes a row with its error; the others are labelled, and the exit code is 1.

    Example: deepfer predict faces/ portrait.jpg -m best.onnx --json
    """
    from deepfer_yolo.cli.options import note_haar, open_classifier
    from deepfer_yolo.config import PredictConfig
    from deepfer_yolo.presets import resolve
    from deepfer_yolo.stream.batch import find_images, label_images

    flags: dict[str, Any] = {
        "format": "jsonl" if as_json else output,
        "batch": batch,
        "workers": workers,
        "provider": provider,
        "threads": threads,
    }
    flags |= {"faces": faces, "detector": detector, "face_model": face_model, "detect_size_px": detect_size}
    settings = resolve(PredictConfig, config, flags)
    paths = find_images(sources)
    classifier = open_classifier(model, provider=settings.provider, threads=settings.threads)
    if settings.faces:
        note_haar(settings)
    rows = label_images(paths, classifier, settings)
    write = {"table": _write_table, "jsonl": _write_jsonl, "csv": _write_csv}[settings.format]
    n_errors = write(rows, classifier.labels, has_faces=settings.faces)
    if n_errors:
        print(f"{n_errors} of {len(paths)} images could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _write_table(rows: Iterable[Labelled], labels: tuple[str, ...], *, has_faces: bool) -> int:
    """One aligned line an image, the path last since it may be long. Returns the number of errors."""
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
