"""An audit from end to end: every image inspected once, every check run, the findings judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.archives import unpacked
from deepfer_yolo.data.audit.findings import AuditResult, Finding, judge
from deepfer_yolo.data.audit.image_checks import CHECKS
from deepfer_yolo.data.audit.inspection import inspect
from deepfer_yolo.data.audit.label_errors import Predictions, likely_errors
from deepfer_yolo.data.audit.model_checks import LabelCheck, drift
from deepfer_yolo.data.audit.parts import checks_with, inspection_again
from deepfer_yolo.data.audit.settled import settle
from deepfer_yolo.data.corrections import Corrections
from deepfer_yolo.data.dataset import is_dataset, open_dataset, read_description, read_manifest, why_changed
from deepfer_yolo.data.shards import Answers
from deepfer_yolo.faces.detect import Detector
from deepfer_yolo.runtime.classifier import Classifier


def audit(
    source: Path,
    config: AuditConfig,
    *,
    classifier: Classifier | None = None,
    predictions: Predictions | None = None,
    detector: Detector | None = None,
    against: Path | None = None,
    answers: Answers | None = None,
    corrections: Corrections | None = None,
    progress: Callable[[float], None] | None = None,
    then: Callable[[AuditResult], object] | None = None,
) -> AuditResult:
    """Inspect every image of `source` (a data set folder, any known layout, or an archive of one) and judge.

    By a `classifier` or by `predictions` likely label errors are ranked, with a `detector` faces are looked for, with
    `against` drift is measured; with `answers` what was seen of the images comes from there, and `corrections` say what
    people settled. `then` is called with the result while the images can still be read: an archive is unpacked for the
    audit alone. Nothing is written into the source.
    """
    checks = checks_with(classifier, detector)
    with unpacked(source, layout=config.layout) as root:
        if answers is None:
            seen = inspect(root, config.layout, source.name, workers=config.workers, progress=progress, checks=checks)
        else:
            seen = inspection_again(root, config, source.name, checks, answers, progress)
        findings = [finding for check in CHECKS for finding in check(seen, config)]
        changed = why_changed(read_description(root), read_manifest(root)) if is_dataset(root) else ""
        if changed:
            findings.append(Finding("changed", "error", 1, f"not what was converted: {changed}"))
        if seen.images:
            findings += [finding for check in checks for finding in check.findings(seen, config)]
        if seen.images and predictions is not None:
            findings += likely_errors(seen.images, predictions)
        if seen.images and against is not None:
            with unpacked(against) as other_root:
                other = inspect(other_root, workers=config.workers)
            other.name = against.name  # both may state the same title
            findings += drift(seen, other, config)
        result = judge(seen, findings, config)
        by_model = [check.probs(seen) for check in checks if isinstance(check, LabelCheck)]
        for probs in by_model if predictions is None else [predictions.probs]:
            result = replace(result, probs=probs)
        if corrections is not None:
            groups = {finding.kind: finding.groups for finding in result.findings}
            result = replace(result, settled=settle(groups, result.counts, open_dataset(root), corrections))
        if then is not None:
            then(result)
    return result
