"""What is wrong with a data set, as findings with a severity, and a verdict."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.archives import unpacked
from deepfer_yolo.data.audit.findings import Audit, Finding, judge
from deepfer_yolo.data.audit.image_checks import CHECKS
from deepfer_yolo.data.audit.inspection import Visitor, inspect
from deepfer_yolo.data.audit.model_checks import FaceVisit, ModelVisit, drift
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.runtime.classifier import Classifier

__all__ = ["Audit", "Finding", "audit"]


def audit(
    source: Path,
    config: AuditConfig,
    *,
    classifier: Classifier | None = None,
    detector: Detector | None = None,
    against: Path | None = None,
    progress: Callable[[float], None] | None = None,
    then: Callable[[Audit], object] | None = None,
) -> Audit:
    """Look at every picture of `source` (a data set folder, any known layout, or an archive of one) and judge. Nothing
    is written into it.

    With a `classifier` likely label errors are ranked, with a `detector` faces are looked for, with `against` drift is
    measured. An archive is unpacked into the system's folder for temporary files, and removed at the end; `then` is
    called with the result before that, while the pictures can still be read.
    """
    with unpacked(source, beside=Path(tempfile.gettempdir()) / source.name) as root:
        result = _audit(
            root, config, classifier=classifier, detector=detector, against=against, progress=progress, name=source.name
        )
        if then is not None:
            then(result)
    return result


def _audit(
    source: Path,
    config: AuditConfig,
    *,
    classifier: Classifier | None,
    detector: Detector | None,
    against: Path | None,
    progress: Callable[[float], None] | None,
    name: str,
) -> Audit:
    visits: list[ModelVisit | FaceVisit] = []
    if classifier is not None:
        visits.append(ModelVisit(classifier))
    if detector is not None:
        visits.append(FaceVisit(detector))
    visitors: list[Visitor] = list(visits)
    seen = inspect(source, workers=config.workers, progress=progress, visitors=visitors, name=name)
    findings = [finding for check in CHECKS for finding in check(seen, config)]
    if seen.looks:
        findings += [finding for visit in visits for finding in visit.findings(seen, config)]
    if against is not None and seen.looks:
        with unpacked(against, beside=Path(tempfile.gettempdir()) / against.name) as root:
            other = inspect(root, workers=config.workers)
        other.name = against.name  # both may state the same title
        findings += drift(seen, other, config)
    return judge(seen, findings, config)
