"""What is wrong with a data set, as findings with a severity, and a verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.checks import CHECKS
from deepfer_yolo.data.findings import Audit, Finding, judge
from deepfer_yolo.data.inspection import Visitor, inspect
from deepfer_yolo.data.visits import FaceVisit, ModelVisit, drift
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
) -> Audit:
    """Look at every picture of `source` (a data set folder or any known layout) and judge. Nothing is written.

    With a `classifier` likely label errors are ranked, with a `detector` faces are looked for, with `against` drift is measured.
    """
    visits: list[ModelVisit | FaceVisit] = []
    if classifier is not None:
        visits.append(ModelVisit(classifier))
    if detector is not None:
        visits.append(FaceVisit(detector))
    visitors: list[Visitor] = list(visits)
    seen = inspect(source, workers=config.workers, progress=progress, visitors=visitors)
    findings = [finding for check in CHECKS for finding in check(seen, config)]
    if seen.looks:
        findings += [finding for visit in visits for finding in visit.findings(seen, config)]
    if against is not None:
        findings += drift(seen, inspect(against, workers=config.workers), config)
    return judge(seen, findings, config)
