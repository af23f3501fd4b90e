"""What an audit finds, and its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from deepfer_yolo.config import AuditConfig, FindingKind, Severity
from deepfer_yolo.data.audit.inspection import InspectedImage, Inspection
from deepfer_yolo.data.audit.settled import Settlement
from deepfer_yolo.data.dataset import Counts
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.records import Json, Probs, plain

RANK = {"error": 2, "warning": 1, "note": 0}
GATE = {"error": 2, "warning": 1, "never": 3}
HELD_OUT = {"train": 0, "": 0, "val": 1, "test": 2}
"""Which copy stays where one must go: the one that is furthest from learning."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of trouble: `groups` are the keys of the images that belong together, the largest group first; `notes`
    say more of single ones.
    """

    kind: FindingKind
    severity: Severity
    count: int
    message: str
    groups: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The result of one audit. `images` by key are for the report; `probs` by key, in the order of the labels of the
    model or the predictions, for a review; they are no part of the JSON.
    """

    name: str
    n_images: int
    counts: Counts
    findings: tuple[Finding, ...]
    passed: bool
    images: Mapping[str, InspectedImage]
    config: AuditConfig
    probs: Mapping[str, Probs] = field(default_factory=dict)
    settled: Settlement | None = None

    def to_json(self) -> Json:
        """The result as `--json` prints it; `settled` where corrections were given."""
        return {
            "schema_version": 1,
            "name": self.name,
            "pictures": self.n_images,
            "counts": self.counts,
            "passed": self.passed,
            "findings": [plain(finding) | {"groups": _printable(finding.groups)} for finding in self.findings],
            **({} if self.settled is None else {"settled": self.settled.to_json()}),
            "config": self.config.model_dump(mode="json"),
        }

    def to_quarantine(self) -> Iterator[tuple[str, str, str]]:
        """(image, finding, why) of what to leave out, each image once.

        Of copies one stays: the held-out one before that in train. Of images under two labels, those in train go; of
        near copies across splits, those in train go. Everything else that is listed goes whole.
        """
        given: set[str] = set()
        for finding in self.findings:
            if finding.kind not in self.config.quarantine:
                continue
            for group in finding.groups:
                for key in self._leaving(finding.kind, group):
                    if key not in given:
                        given.add(key)
                        yield key, finding.kind, finding.message

    def _leaving(self, kind: FindingKind, group: tuple[str, ...]) -> list[str]:
        if kind in ("duplicate", "leak"):
            kept = max(group, key=lambda key: HELD_OUT[self.images[key].split])  # the first among equals
            return [key for key in group if key != kept]
        if kind in ("conflict", "near-conflict", "near-leak"):
            return [key for key in group if HELD_OUT[self.images[key].split] == 0]
        return list(group)


def _printable(groups: tuple[tuple[str, ...], ...]) -> list[list[str]]:
    return [[printable(key) for key in group] for group in groups]


def judge(seen: Inspection, findings: list[Finding], config: AuditConfig) -> AuditResult:
    """The verdict: severities as the configuration says, what it allows only noted, the gravest findings first."""
    n_images = len(seen.images) + len(seen.broken)
    weighed = []
    for finding in findings:
        severity = config.severity.get(finding.kind, finding.severity)
        if finding.count <= config.allow.get(finding.kind, 0.0) * n_images:
            severity = "note"
        weighed.append(replace(finding, severity=severity))
    weighed.sort(key=lambda finding: -RANK[finding.severity])
    passed = all(RANK[finding.severity] < GATE[config.fail_on] for finding in weighed)
    images = {image.key: image for image in seen.images}
    return AuditResult(seen.name, n_images, seen.counts(), tuple(weighed), passed, images, config)
