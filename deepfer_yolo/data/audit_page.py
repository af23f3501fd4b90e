"""An audit as one HTML page with its pictures, the largest groups first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.findings import Audit, Finding
from deepfer_yolo.data.layouts.pixels import item_pixels
from deepfer_yolo.data.problems import printable
from deepfer_yolo.report.page import Page
from deepfer_yolo.runtime.preprocess import shorter_side

MAX_GROUPS, MAX_IN_GROUP, MAX_PICTURES = 12, 8, 48
SIDE_PX = 96


def write_page(result: Audit, command: str, path: Path) -> Path:
    """Write the report and return its path."""
    from deepfer_yolo import __version__

    facts = [("pictures", f"{result.pictures:,}"), ("verdict", "passed" if result.passed else "failed"), ("deepfer", __version__)]
    page = Page(f"Audit of {result.name}", command, facts)
    rows = [[finding.severity, finding.kind, f"{finding.count:,}", finding.message] for finding in result.findings]
    page.add_table(["severity", "finding", "count", "what"], rows, caption="Findings, the gravest first")
    splits = list(result.counts)
    labels = sorted({label for by_label in result.counts.values() for label in by_label})
    per_label = [[label, *(result.counts[split][label] for split in splits)] for label in labels]
    page.add_table(["label", *(split or "all" for split in splits)], per_label, "Pictures")
    for finding in result.findings:
        pictures = list(_pictures(result, finding))
        if pictures:
            page.add_heading(f"{finding.kind}: {finding.count:,}")
            page.add_text(finding.message)
            page.add_pictures(pictures, caption=f"{len(pictures)} pictures of the {len(finding.groups[:MAX_GROUPS])} largest groups")
    return page.write(path)


def _pictures(result: Audit, finding: Finding) -> Iterator[tuple[NDArray[np.uint8], list[str]]]:
    shown = 0
    singles = all(len(group) == 1 for group in finding.groups)
    for number, group in enumerate(finding.groups[: MAX_PICTURES if singles else MAX_GROUPS]):
        for key in group[:MAX_IN_GROUP]:
            look = result.looks.get(key)
            if look is None or shown >= MAX_PICTURES:
                continue
            shown += 1
            pixels = item_pixels(look.item)
            image = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
            note = finding.notes[number] if number < len(finding.notes) else ""
            place = f"group {number + 1}" if not singles else ""
            lines = [line for line in (place, f"{look.split} {look.label}".strip(), note, printable(key)) if line]
            yield shorter_side(image, SIDE_PX), lines
