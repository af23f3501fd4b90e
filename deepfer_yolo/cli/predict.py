"""`deepfer predict`: images and folders to labels."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from deepfer_yolo.cli.options import ClusterOption, FacesModelOption, MergeOption, OutOption, ShardOption, options_of
from deepfer_yolo.config import PredictConfig
from deepfer_yolo.errors import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deepfer_yolo.cluster.tasks import OpenModel
    from deepfer_yolo.data.shards import Asked
    from deepfer_yolo.runtime.classifier import Classifier
    from deepfer_yolo.stream.batch import Labelled
    from deepfer_yolo.stream.parts import Named

FACE_COLUMNS = ("x1", "y1", "x2", "y2", "score", "reason", "size_px", "brightness", "contrast", "sharpness")
"""What csv has of each face, after the error."""


@options_of(
    PredictConfig,
    "sources model format as_json batch workers provider threads faces detector face_model detect_size shard "
    "cluster out merge config",
)
def predict(
    settings: PredictConfig,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Image files, folders (searched through), parquet files, glob patterns, frame_%04d.png, or @FILE.",
        ),
    ],
    model: FacesModelOption = None,
    shard: ShardOption = None,
    cluster: ClusterOption = None,
    out: OutOption = None,
    merge: MergeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format jsonl.")] = False,
) -> None:
    """Label face images: each image is one face, cut out already, or with --faces any image.

    An image that cannot be read, or a folder that cannot be entered, becomes a row with its error; the others are
    labelled, and the exit code is 4 (1 where none could be read). What a folder holds besides images is counted on
    stderr. Of an animated image the first frame is labelled; videos, cameras and streams are for deepfer stream.

    Example: deepfer predict faces/ portrait.jpg -m best.onnx --json
    """
    from deepfer_yolo.cli.options import note_haar, open_classifier, tell_part, tell_unread
    from deepfer_yolo.data.row_files import answers_in
    from deepfer_yolo.data.shards import asked_of
    from deepfer_yolo.stream import parts
    from deepfer_yolo.stream.batch import in_words, label_images, named_images

    if settings.faces:
        require("cv2")
    asked = asked_of(shard, cluster, out, merge)
    answers = answers_in(asked.merge)
    left_out: Counter[str] = Counter()
    images = named_images(sources, left_out)
    opening = functools.partial(
        open_classifier, model, provider=settings.provider, threads=settings.threads, from_frames=settings.faces
    )
    classifier = opening()
    if settings.faces:
        note_haar(settings)
    if asked.cluster:
        _over_cluster(list(images), classifier, opening, settings, asked, as_json=as_json)
        return
    if asked.shard is not None:
        written = parts.label_part(list(images), classifier, settings, asked.shard, asked.out)
        tell_part(written, asked.out, as_json=as_json)
        return
    if answers is not None:
        rows = parts.rows_again(list(images), classifier, settings, answers)
    else:
        rows = label_images((path for _, path in images), classifier, settings)
    write = {"table": _write_table, "jsonl": _write_jsonl, "csv": _write_csv}["jsonl" if as_json else settings.format]
    seen = _Seen()
    write(seen.passing(rows), classifier.labels, has_faces=settings.faces)
    if left_out:
        print(f"left out: {in_words(left_out)}", file=sys.stderr)
    tell_unread(seen.errors.total(), seen.n_images, seen.errors)


def _over_cluster(
    images: Named, classifier: Classifier, opening: OpenModel, settings: PredictConfig, asked: Asked, *, as_json: bool
) -> None:
    from deepfer_yolo.cli.options import print_json, progress, tell_cluster, tell_unread, tracked
    from deepfer_yolo.cluster.commands import predict as over_cluster
    from deepfer_yolo.data.row_files import summary_of

    with progress() as bar:
        done = over_cluster(images, classifier, opening, settings, asked, tracked(bar, "labelling"))
    tell_cluster(done)
    summary = summary_of(asked.out)
    if as_json:
        print_json(summary)
    else:
        for label, n in summary["labels"].items():
            print(f"{label:<9}  {n:>9,}")
    tell_unread(summary["errors"], done.n, summary["reasons"])


@dataclass(slots=True)
class _Seen:
    """What the rows that pass tell of the images."""

    n_images: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def passing(self, rows: Iterable[Labelled]) -> Iterator[Labelled]:
        """The rows as they are."""
        for row in rows:
            self.n_images = row.index + 1
            if row.error is not None:
                self.errors[row.error] += 1
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
            probs = [f"{p:.6f}" for p in row.prediction.probs.tolist()]
            said = [row.label or "", max(probs), *probs]
        writer.writerow([row.path, *said, row.error or "", *(place if has_faces else ())])
