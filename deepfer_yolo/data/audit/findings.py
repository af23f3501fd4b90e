"""What an audit finds, and its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from deepfer_yolo.config import AuditConfig, FindingKind
from deepfer_yolo.data.audit.inspection import Inspection, Look
from deepfer_yolo.data.untrusted import printable

Severity = Literal["error", "warning", "note"]
RANK = {"error": 2, "warning": 1, "note": 0}
GATE = {"error": 2, "warning": 1, "never": 3}
HELD_OUT = {"train": 0, "": 0, "val": 1, "test": 2}
"""Which copy stays where one must go: the one that is furthest from learning."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of trouble: `groups` are the keys of the pictures that belong together, the largest group first; `notes`
    say more of single ones.
    """

    kind: FindingKind
    severity: Severity
    count: int
    message: str
    groups: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of one audit. `looks` are for the report; they are no part of the JSON."""

    name: str
    pictures: int
    counts: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    passed: bool
    looks: dict[str, Look]
    config: AuditConfig

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        findings = [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "count": finding.count,
                "message": finding.message,
                "groups": [[printable(key) for key in group] for group in finding.groups],
                "notes": [printable(note) for note in finding.notes],
            }
            for finding in self.findings
        ]
        return {
            "schema_version": 1,
            "name": self.name,
            "pictures": self.pictures,
            "counts": self.counts,
            "passed": self.passed,
            "findings": findings,
            "config": self.config.model_dump(mode="json"),
        }

    def to_quarantine(self) -> Iterator[tuple[str, str, str]]:
        """(picture, finding, why) of what to leave out, each picture once.

        Of copies one stays: the held-out one before that in train. Of pictures under two labels, those in train go; of
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
            kept = max(group, key=lambda key: HELD_OUT[self.looks[key].split])  # the first among equals
            return [key for key in group if key != kept]
        if kind in ("conflict", "near-conflict", "near-leak"):
            return [key for key in group if HELD_OUT[self.looks[key].split] == 0]
        return list(group)


def judge(seen: Inspection, findings: list[Finding], config: AuditConfig) -> Audit:
    """The verdict: severities as the configuration says, findings within what it allows only noted, the gravest first."""
    pictures = len(seen.looks) + len(seen.broken)
    weighed = []
    for finding in findings:
        severity = config.severity.get(finding.kind, finding.severity)
        if finding.count <= config.allow.get(finding.kind, 0.0) * pictures:
            severity = "note"
        weighed.append(replace(finding, severity=severity))
    weighed.sort(key=lambda finding: -RANK[finding.severity])
    passed = all(RANK[finding.severity] < GATE[config.fail_on] for finding in weighed)
    return Audit(
        seen.name, pictures, seen.counts(), tuple(weighed), passed, {look.key: look for look in seen.looks}, config
    )
