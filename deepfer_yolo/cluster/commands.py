"""`predict`, `evaluate` and `audit` over a cluster: which items there are, which job they make, who looks at them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from deepfer_yolo.cluster import bulk
from deepfer_yolo.cluster.tasks import (
    AuditTask,
    EvaluateTask,
    OpenModel,
    PredictTask,
    audit_items,
    evaluate_items,
    predict_items,
)
from deepfer_yolo.config import AuditConfig, EvaluateConfig, PredictConfig
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
from deepfer_yolo.stream.parts import Named
from deepfer_yolo.stream.parts import job_of as predict_job

MAX_REASONS = 10


def predict(
    images: Named, classifier: Classifier, open_model: OpenModel, config: PredictConfig, asked: Asked
) -> bulk.Done:
    """Label images; the rows stay in `asked.out`."""
    return bulk.run(
        PredictTask(open_model, config),
        predict_items(images),
        predict_job(images, classifier, config),
        asked.out,
        asked.cluster,
        threads=config.threads,
        files=_first([classifier.path, *(file_of(path) for _, path in images[:1])]),
        summarise=_summary,
    )


def _summary(rows: Any) -> Json:
    """Images by label, and why others have none."""
    import pyarrow.compute as pc

    labels, errors = (pc.value_counts(rows[name]).to_pylist() for name in ("label", "error"))
    n_by_label = {row["values"]: row["counts"] for row in labels if row["values"] is not None}
    reasons = Counter({row["values"]: row["counts"] for row in errors if row["values"] is not None})
    return {
        "labels": dict(sorted(n_by_label.items())),
        "errors": reasons.total(),
        "reasons": dict(reasons.most_common(MAX_REASONS)),
    }


def evaluate(
    dataset: Dataset, classifier: Classifier, open_model: OpenModel, config: EvaluateConfig, asked: Asked
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
    )
    return RowFolder(asked.out)


def audit(
    source: Path, config: AuditConfig, checks: list[Check], open_model: OpenModel | None, asked: Asked
) -> RowFolder:
    """Let the workers look at the images of a source."""
    with unpacked(source, layout=config.layout) as root:
        if root != source:
            hint = f"deepfer convert {source} DEST, and audit that; or unpack it"
            raise DatasetError("is an archive, which workers elsewhere cannot see into", hint, path=source)
        items = audit_items(items_of(root, config.layout))
    files = [Path(file) for file in items["file"][:1] if file is not None]
    bulk.run(
        AuditTask(open_model, config, any(isinstance(check, FaceCheck) for check in checks)),
        items,
        audit_job(config, checks).over(Names.of(items["key"])),
        asked.out,
        asked.cluster,
        files=_first(files),
    )
    return RowFolder(asked.out)


def _first(files: list[Path]) -> list[Path]:
    return [file.absolute() for file in files]
