"""The published numbers of FER2013, on the real csv."""

from __future__ import annotations

import gzip
from collections import defaultdict
from pathlib import Path

import pytest

from deepfer_yolo.config import AuditConfig, ConvertConfig
from deepfer_yolo.data.audit.audit import audit
from deepfer_yolo.data.convert import convert

TRAINING = {"angry": 3995, "disgust": 436, "fear": 4097, "happy": 7215, "sad": 4830, "surprise": 3171, "neutral": 4965}
PUBLIC_TEST = {"angry": 467, "disgust": 56, "fear": 496, "happy": 895, "sad": 653, "surprise": 415, "neutral": 607}


@pytest.mark.slow
def test_the_full_csv(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "datasets" / "fer2013_dev.csv.gz"
    content = convert(source, tmp_path / "fer", ConvertConfig())
    assert content.counts == {"train": TRAINING, "val": PUBLIC_TEST}
    groups: dict[str, list[int]] = defaultdict(list)
    with gzip.open(source, "rt") as lines:
        for index, line in enumerate(lines):
            if index:
                groups[line.split(",")[1]].append(index - 1)
    expected = {frozenset(rows) for rows in groups.values() if len(rows) > 1}
    result = audit(tmp_path / "fer", AuditConfig())
    found = {finding.kind: finding for finding in result.findings}
    assert {frozenset(int(Path(key).stem) for key in group) for group in found["duplicate"].groups} == expected
    assert found["duplicate"].count == sum(len(rows) - 1 for rows in expected)
    assert found["leak"].count == 280
