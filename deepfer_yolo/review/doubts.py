"""What an audit doubts of a data set, kept between reviews: its findings, copies, and a model's probabilities."""

from __future__ import annotations

import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from deepfer_yolo.config import AuditConfig, FindingKind
from deepfer_yolo.data import audit as audit_package
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.audit.findings import AuditResult
from deepfer_yolo.data.audit.label_errors import Predictions
from deepfer_yolo.data.dataset import MANIFEST, Dataset
from deepfer_yolo.errors import DeepferError
from deepfer_yolo.files import sha256_of, write_atomic
from deepfer_yolo.records import Probs
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import cache_dir
from deepfer_yolo.servers import ReviewConfig

KINDS: Mapping[str, tuple[FindingKind, ...]] = {
    "conflicts": ("conflict", "near-conflict"),
    "label-errors": ("label-error", "vote-disagreement"),
    "low-quality": ("blank", "dark", "bright", "blurred", "low-entropy", "tiny", "odd-aspect"),
    "duplicates": ("duplicate", "leak", "near-duplicate", "near-leak"),
}
"""The findings of an audit behind each kind of doubt."""
WORST_FIRST: tuple[FindingKind, ...] = (
    *("conflict", "label-error", "vote-disagreement", "near-conflict"),
    *KINDS["low-quality"],
    *KINDS["duplicates"],
)
"""One label of an exact conflict is wrong for certain; then what model and voters doubt; copies may well be right."""
EXACT, NEAR = ("duplicate",), ("near-duplicate",)
MAX_COPIES = 24
"""Copies of one image that are named; a video may leave hundreds."""
MAX_CACHED_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Doubt:
    """A finding of an audit: groups of paths that belong together, the worst first, and notes on single ones; `message`
    is what the audit says of all of them.
    """

    kind: str
    groups: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    message: str = ""


@dataclass(frozen=True, eq=False)
class Doubts:
    """All of them, and by path the probabilities of a model in the order of its `labels`; both empty without one."""

    found: tuple[Doubt, ...]
    labels: tuple[str, ...] = ()
    probs: Mapping[str, Probs] | None = None

    def copies(self) -> dict[str, list[tuple[str, bool]]]:
        """By path, its copies in other files, and whether they are exact; the exact ones first."""
        found: dict[str, dict[str, bool]] = defaultdict(dict)
        for kinds, is_exact in ((EXACT, True), (NEAR, False)):
            for doubt in self.found:
                for group in doubt.groups if doubt.kind in kinds else ():
                    for path in group:
                        for other in group[: MAX_COPIES + 1]:
                            if other != path and len(found[path]) < MAX_COPIES:
                                found[path].setdefault(other, is_exact)
        return {path: list(others.items()) for path, others in found.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Who answers for the images: a model, or the predictions of several; `source` are the SHA-256 of their files."""

    name: str
    source: tuple[str, ...]
    classifier: Classifier | None = None
    predictions: Predictions | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the answers know."""
        known = self.classifier if self.classifier is not None else self.predictions
        return tuple(known.labels) if known is not None else ()


NO_ANSWERS = Answers("", ())


def find_doubts(
    dataset: Dataset,
    config: ReviewConfig,
    answers: Answers = NO_ANSWERS,
    progress: Callable[[float], None] | None = None,
) -> Doubts:
    """The audit of `dataset`, with the label errors that `answers` show; what an earlier review found of the same
    images with the same program is read from the cache.
    """
    settings = AuditConfig(near=config.near, workers=config.workers, fail_on="never")
    kept = cache_dir() / "review" / f"{_key(dataset, settings, answers)}.zip"
    with suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return _read(kept)
    result = audit(
        dataset.root, settings, classifier=answers.classifier, predictions=answers.predictions, progress=progress
    )
    doubts = _of(result, answers.labels)
    with suppress(OSError, DeepferError):  # without a cache the next review looks again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, _packed(doubts))
    return doubts


def _key(dataset: Dataset, settings: AuditConfig, answers: Answers) -> str:
    """What the result depends on: the manifest, the settings, who answers and this program's checks."""
    from deepfer_yolo import __version__

    checks = sorted(Path(audit_package.__path__[0]).glob("*.py"))
    parts = [
        __version__,
        *map(sha256_of, checks),
        sha256_of(dataset.root / MANIFEST),
        settings.model_dump_json(exclude={"workers"}),
        *answers.source,
    ]
    return sha256("\n".join(parts).encode()).hexdigest()[:32]


def _of(result: AuditResult, labels: Sequence[str]) -> Doubts:
    found = tuple(
        Doubt(finding.kind, finding.groups, finding.notes, finding.message)
        for finding in result.findings
        if finding.kind in WORST_FIRST
    )
    return Doubts(found, tuple(labels), dict(result.probs))


def _packed(doubts: Doubts) -> bytes:
    probs = doubts.probs or {}
    told = {
        "found": [[doubt.kind, doubt.groups, doubt.notes, doubt.message] for doubt in doubts.found],
        "labels": doubts.labels,
        "paths": list(probs),
    }
    content, numbers = io.BytesIO(), io.BytesIO()
    np.save(numbers, np.stack(list(probs.values())) if probs else np.empty((0, 0), np.float32), allow_pickle=False)
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("doubts.json", json.dumps(told))
        archive.writestr("probs.npy", numbers.getvalue())
    return content.getvalue()


def _read(path: Path) -> Doubts:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_CACHED_BYTES:
            raise ValueError("too large")
        told = json.loads(archive.read("doubts.json"))
        numbers = np.load(io.BytesIO(archive.read("probs.npy")), allow_pickle=False)
    found = tuple(
        Doubt(kind, tuple(tuple(map(str, group)) for group in groups), tuple(notes), str(message))
        for kind, groups, notes, message in told["found"]
    )
    return Doubts(found, tuple(told["labels"]), dict(zip(told["paths"], numbers, strict=True)))
