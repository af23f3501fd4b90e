"""`predict`, `evaluate`, `audit` and `stream` over a cluster: the items, the job they make, who looks at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepfer_yolo.cluster import bulk
from deepfer_yolo.cluster.tasks import (
    AuditTask,
    EvaluateTask,
    OpenModel,
    PredictTask,
    RecordingTask,
    audit_items,
    evaluate_items,
    predict_items,
    recording_items,
)
from deepfer_yolo.config import AuditConfig, EvaluateConfig, PredictConfig, StreamConfig
from deepfer_yolo.data.archives import SUFFIXES as ARCHIVES
from deepfer_yolo.data.archives import unpacked
from deepfer_yolo.data.audit.model_checks import FaceCheck
from deepfer_yolo.data.audit.parts import Check, items_of
from deepfer_yolo.data.audit.parts import job_of as audit_job
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.parquet_images import file_of
from deepfer_yolo.data.row_files import RowFolder
from deepfer_yolo.data.shards import Asked, Names
from deepfer_yolo.errors import DatasetError
from deepfer_yolo.evaluate.predictions import check_files, rows_to_score
from deepfer_yolo.evaluate.predictions import job_of as evaluate_job
from deepfer_yolo.records import Json
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.stream.address import Address
from deepfer_yolo.stream.parts import Named
from deepfer_yolo.stream.parts import job_of as predict_job
from deepfer_yolo.stream.recordings import job_of as recordings_job

IS_ARCHIVE = "is an archive, which workers elsewhere cannot see into"
MAX_REASONS = 10


def predict(
    images: Named,
    classifier: Classifier,
    open_model: OpenModel,
    config: PredictConfig,
    asked: Asked,
    progress: bulk.Progress,
) -> bulk.Done:
    """Label images; the rows stay in `asked.out`. Raises DatasetError for an archive among them."""
    for _, path in images:
        if path.name.lower().endswith(ARCHIVES):
            raise DatasetError(IS_ARCHIVE, "unpack it, and name the folder", path=path)
    return bulk.run(
        PredictTask(open_model, config),
        predict_items(images),
        predict_job(images, classifier, config),
        asked.out,
        asked.cluster,
        threads=config.threads,
        files=_first([classifier.path, *(file_of(path) for _, path in images[:1])]),
        counted=("label", "error"),
        summarise=_summary,
        progress=progress,
    )


def _summary(rows: Any) -> Json:
    """Images by label, and why others have none."""
    import pyarrow.compute as pc

    n_by_label = {row["values"]: row["counts"] for row in pc.value_counts(rows["label"]).to_pylist() if row["values"]}
    return {"labels": dict(sorted(n_by_label.items())), **_failures(rows)}


def _failures(rows: Any) -> Json:
    """How many items have an error, and which."""
    import pyarrow.compute as pc

    errors = {row["values"]: row["counts"] for row in pc.value_counts(rows["error"]).to_pylist()}
    reasons = Counter({why: n for why, n in errors.items() if why is not None})
    return {"errors": reasons.total(), "reasons": dict(reasons.most_common(MAX_REASONS))}


def stream(
    recordings: Sequence[Address],
    classifier: Classifier,
    open_model: OpenModel,
    config: StreamConfig,
    asked: Asked,
    progress: bulk.Progress,
) -> bulk.Done:
    """Let the workers read recordings; their records stay in `asked.out`."""
    import pyarrow.compute as pc

    return bulk.run(
        RecordingTask(open_model, config),
        recording_items(recordings),
        recordings_job(recordings, classifier, config),
        asked.out,
        asked.cluster,
        threads=config.threads,
        files=_first([classifier.path, Path(recordings[0].target)]),
        counted=("images", "faces", "error"),
        summarise=lambda rows: {
            "frames": pc.sum(rows["images"]).as_py(),
            "faces": pc.sum(rows["faces"]).as_py(),
            **_failures(rows),
        },
        progress=progress,
    )


def evaluate(
    dataset: Dataset,
    classifier: Classifier,
    open_model: OpenModel,
    config: EvaluateConfig,
    asked: Asked,
    progress: bulk.Progress,
) -> RowFolder:
    """Let the workers run the model over a split."""
    _, rows = rows_to_score(classifier, dataset, config)
    check_files(dataset, rows)
    bulk.run(
        EvaluateTask(open_model, dataset.root.absolute(), config),
        evaluate_items(rows),
        evaluate_job(classifier, dataset, rows, config, flip=config.tta == "flip"),
        asked.out,
        asked.cluster,
        threads=config.threads,
        files=_first([classifier.path, dataset.path(rows[0])]),
        progress=progress,
    )
    return RowFolder(asked.out)


def audit(
    source: Path,
    config: AuditConfig,
    checks: list[Check],
    open_model: OpenModel | None,
    asked: Asked,
    progress: bulk.Progress,
) -> RowFolder:
    """Let the workers look at the images of a source."""
    with unpacked(source, layout=config.layout) as root:
        if root != source:
            hint = f"deepfer convert {source} DEST, and audit that; or unpack it"
            raise DatasetError(IS_ARCHIVE, hint, path=source)
        items = audit_items(items_of(root, config.layout))
    files = [Path(file) for file in items["file"][:1] if file is not None]
    bulk.run(
        AuditTask(open_model, config, any(isinstance(check, FaceCheck) for check in checks)),
        items,
        audit_job(config, checks).over(Names.of(items["key"])),
        asked.out,
        asked.cluster,
        files=_first(files),
        progress=progress,
    )
    return RowFolder(asked.out)


def _first(files: list[Path]) -> list[Path]:
    return [file.absolute() for file in files]
