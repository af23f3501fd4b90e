"""What is wrong with a data set, as findings with a severity, and a verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepfer_yolo.config import AuditConfig
from deepfer_yolo.data.inspection import Inspection, Look, inspect
from deepfer_yolo.data.problems import printable

Severity = Literal["error", "warning", "note"]
RANK = {"error": 2, "warning": 1, "note": 0}
GATE = {"error": 2, "warning": 1, "never": 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of trouble: `groups` are the keys of the pictures that belong together, the largest group first."""

    kind: str
    severity: Severity
    count: int
    message: str
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of one audit."""

    name: str
    pictures: int
    counts: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "schema_version": 1,
            "name": self.name,
            "pictures": self.pictures,
            "counts": self.counts,
            "passed": self.passed,
            "findings": [
                {
                    "kind": f.kind,
                    "severity": f.severity,
                    "count": f.count,
                    "message": f.message,
                    "groups": [[printable(key) for key in group] for group in f.groups],
                }
                for f in self.findings
            ],
        }


def audit(source: Path, config: AuditConfig, *, progress: Callable[[float], None] | None = None) -> Audit:
    """Look at every picture of `source` (a data set folder or any known layout) and judge. Nothing is written."""
    seen = inspect(source, workers=config.workers, progress=progress)
    findings = [*_unreadable(seen), *_blank(seen, config), *_copies(seen), *_balance(seen, config)]
    findings.sort(key=lambda f: -RANK[f.severity])
    passed = all(RANK[f.severity] < GATE[config.fail_on] for f in findings)
    return Audit(seen.name, len(seen.looks) + len(seen.broken), seen.counts(), tuple(findings), passed)


def _unreadable(seen: Inspection) -> list[Finding]:
    if not seen.broken:
        return []
    key, what = seen.broken[0]
    message = f"cannot be read, such as {printable(key)}: {what}"
    return [Finding("unreadable", "error", len(seen.broken), message, tuple((key,) for key, _ in seen.broken))]


def _blank(seen: Inspection, config: AuditConfig) -> list[Finding]:
    keys = [(look.key,) for look in seen.looks if look.contrast < config.min_contrast]
    return [Finding("blank", "warning", len(keys), f"nearly one grey: contrast under {config.min_contrast:g}", tuple(keys))] if keys else []


def _copies(seen: Inspection) -> list[Finding]:
    """Exact copies: within a split, across splits, and under two labels."""
    by_hash: dict[bytes, list[Look]] = defaultdict(list)
    for look in seen.looks:
        by_hash[look.pixel_hash].append(look)
    groups = sorted((group for group in by_hash.values() if len(group) > 1), key=len, reverse=True)
    findings = []
    if groups:
        redundant = sum(len(group) - 1 for group in groups)
        findings.append(Finding("duplicate", "warning", redundant, f"exact copies, in {len(groups):,} groups", _keys(groups)))
    leaking = [group for group in groups if len({look.split for look in group}) > 1]
    if leaking:
        held_out = sum(look.split != "train" for group in leaking for look in group)
        findings.append(Finding("leak", "error", held_out, "exact copies of one picture stand in two splits", _keys(leaking)))
    conflicting = [group for group in groups if len({look.label for look in group}) > 1]
    if conflicting:
        message = f"pictures in {len(conflicting):,} groups of exact copies bear two labels"
        findings.append(Finding("conflict", "warning", sum(map(len, conflicting)), message, _keys(conflicting)))
    return findings


def _balance(seen: Inspection, config: AuditConfig) -> list[Finding]:
    findings = []
    for split, by_label in seen.counts().items():
        absent = [label for label, count in by_label.items() if count == 0]
        if absent:
            findings.append(Finding("missing-class", "error", len(absent), f"{split or 'the set'} has no {', '.join(absent)}"))
        present = {label: count for label, count in by_label.items() if count}
        few = [f"{label} {count}" for label, count in present.items() if count < config.min_per_class]
        if few:
            findings.append(Finding("few", "warning", len(few), f"{split}: under {config.min_per_class} pictures: {', '.join(few)}"))
        ratio = max(present.values()) / min(present.values())
        if ratio > config.max_imbalance:
            message = f"{split}: the largest class is {ratio:.1f} times the smallest, over {config.max_imbalance:g}"
            findings.append(Finding("imbalance", "warning", 1, message))
    if "train" in seen.counts() and "val" not in seen.counts():
        findings.append(Finding("missing-split", "error", 1, "there is no val split"))
    return findings


def _keys(groups: list[list[Look]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(look.key for look in group) for group in groups)
