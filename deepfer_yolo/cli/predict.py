"""`deepfer predict`: pictures and folders to labels."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepfer_yolo.cli.options import ConfigOption, ModelOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deepfer_yolo.stream.batch import Labelled


def predict(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Picture files, folders (searched through) or glob patterns.")],
    model: ModelOption = None,
    output: Annotated[str | None, typer.Option("--format", help="table, jsonl or csv.", show_default="table")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format jsonl.")] = False,
    batch: Annotated[int | None, typer.Option(help="Pictures given to the model at a time.", show_default="64")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that read pictures.", show_default="2")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model.", show_default="1")] = None,
    config: ConfigOption = None,
) -> None:
    """Label face pictures: each picture is one face, cut out already.

    A picture that cannot be read becomes a row with its error; the others are labelled, and the exit code is 1.

    Example: deepfer predict faces/ portrait.jpg -m best.onnx --json
    """
    from deepfer_yolo.cli.opening import open_classifier
    from deepfer_yolo.config import PredictConfig, resolve
    from deepfer_yolo.stream.batch import find_pictures, predict_pictures

    flags = {"format": "jsonl" if as_json else output, "batch": batch, "workers": workers, "threads": threads}
    settings = resolve(PredictConfig, config, flags)
    paths = find_pictures(sources)
    classifier = open_classifier(model, threads=settings.threads)
    rows = predict_pictures(paths, classifier, batch=settings.batch, workers=settings.workers)
    write = {"table": _write_table, "jsonl": _write_jsonl, "csv": _write_csv}[settings.format]
    n_errors = write(rows, classifier.labels)
    if n_errors:
        print(f"{n_errors} of {len(paths)} pictures could not be read", file=sys.stderr)
        raise typer.Exit(1)


def _write_table(rows: Iterable[Labelled], labels: tuple[str, ...]) -> int:
    """One aligned line a picture, the path last since it may be long. Returns the number of errors."""
    n_errors = 0
    width = max(5, *map(len, labels))
    for row in rows:
        if row.prediction is None:
            n_errors += 1
            print(f"{'error':<{width}}      -  {row.path}  ({row.error})")
        else:
            print(f"{row.prediction.label:<{width}}  {row.prediction.confidence:5.3f}  {row.path}")
    return n_errors


def _write_jsonl(rows: Iterable[Labelled], labels: tuple[str, ...]) -> int:
    import json

    n_errors = 0
    for row in rows:
        record: dict[str, Any] = {"schema": 1, "path": str(row.path)}
        if row.prediction is None:
            n_errors += 1
            record["error"] = row.error
        else:
            probs = dict(zip(labels, (round(float(p), 6) for p in row.prediction.probs), strict=True))
            record |= {"label": row.prediction.label, "confidence": round(row.prediction.confidence, 6), "probs": probs}
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    return n_errors


def _write_csv(rows: Iterable[Labelled], labels: tuple[str, ...]) -> int:
    import csv

    n_errors = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "label", "confidence", *labels, "error"])
    for row in rows:
        if row.prediction is None:
            n_errors += 1
            writer.writerow([row.path, "", "", *([""] * len(labels)), row.error])
        else:
            probs = [f"{p:.6f}" for p in row.prediction.probs]
            writer.writerow([row.path, row.prediction.label, f"{row.prediction.confidence:.6f}", *probs, ""])
    return n_errors
