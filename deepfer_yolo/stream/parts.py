"""`deepfer predict` in parts: what is kept of an image, and the rows made of it again, equal to the last digit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.config import PredictConfig
from deepfer_yolo.data.shards import Answers, Job, Names, Part, Shard, check_folder, write_part, wrong_row
from deepfer_yolo.records import Face, Json, JsonValue, Prediction, Quality, plain
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import digest
from deepfer_yolo.stream.batch import Labelled, label_images

Named = Sequence[tuple[str, Path]]
"""All images of a job: what each is called in it, and where it is."""
NOT_OF_ROWS = {"threads", "batch", "workers", "format"}
"""Settings that do not change what is found."""


def job_of(images: Named, classifier: Classifier, config: PredictConfig) -> Job:
    """What all parts of this work have in common."""
    settings = config.model_dump(mode="json", exclude=NOT_OF_ROWS) if config.faces else {"provider": config.provider}
    job = Job(command="predict", model=digest(classifier.path), settings=settings | {"faces": config.faces})
    return job.over(Names.of(name for name, _ in images))


def label_part(images: Named, classifier: Classifier, config: PredictConfig, shard: Shard, out: Path) -> Part:
    """Label the images of one shard, and write what was found into `out`."""
    job = job_of(images, classifier, config)
    check_folder(out, shard, job)
    places = [place for place, (name, _) in enumerate(images) if shard.has(name)]
    rows = label_images((images[place][1] for place in places), classifier, config)
    return write_part(out, shard, job, (found | {"index": places[found["index"]]} for found in found_in(rows)))


def found_in(rows: Iterable[Labelled]) -> Iterator[dict[str, Any]]:
    """What is kept of each image, its place under `index`."""
    for index, of_image in groupby(rows, key=lambda row: row.index):
        yield {"index": index, "rows": [_kept(row) for row in of_image]}


def _kept(row: Labelled) -> Json:
    kept: dict[str, JsonValue] = {}
    if row.error is not None:
        kept["error"] = row.error
    if row.prediction is not None:
        kept["probs"] = row.prediction.probs.tolist()
    if row.face is not None and row.quality is not None:
        kept |= {"face": plain(row.face), "quality": plain(row.quality), "lack": row.lack}
    return kept


def rows_again(images: Named, classifier: Classifier, config: PredictConfig, answers: Answers) -> Iterator[Labelled]:
    """The rows of all images, from the answers of whoever looked at them.

    Raises DatasetError where those are of another job, or not whole.
    """
    found = answers.of(job_of(images, classifier, config))
    return (row for (_, path), kept in zip(images, found, strict=True) for row in rows_of(path, kept, classifier))


def rows_of(path: Path, found: Mapping[str, Any], classifier: Classifier) -> Iterator[Labelled]:
    """The rows of one image."""
    try:
        for kept in found["rows"]:
            row = Labelled(path, error=kept.get("error"), index=found["index"])
            if "probs" in kept:
                row = replace(row, prediction=Prediction(np.array(kept["probs"], np.float32), classifier.labels))
            if "face" in kept:
                face, marks = kept["face"], kept["face"]["landmarks"]
                marks = None if marks is None else np.array(marks, np.float32)
                row = replace(
                    row,
                    face=Face(np.array(face["box"], np.float32), float(face["score"]), marks),
                    quality=Quality(**kept["quality"]),
                    lack=kept.get("lack"),
                )
            yield row
    except (KeyError, TypeError, ValueError, AttributeError):
        raise wrong_row(path) from None
