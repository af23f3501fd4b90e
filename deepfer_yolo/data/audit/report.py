"""An audit as one HTML page with its pictures, the largest groups first."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.data.audit.findings import HELD_OUT, Audit, Finding
from deepfer_yolo.data.audit.inspection import Look
from deepfer_yolo.data.layouts.item import item_pixels
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.report.page import Page
from deepfer_yolo.runtime.preprocess import resize

MAX_GROUPS, MAX_IN_GROUP, MAX_PICTURES = 12, 6, 48
SIDE_PX, MAX_SIDE_PX = 96, 384
"""The shorter side of what is shown, and what the longer one may be."""


def write_page(result: Audit, command: str, path: Path) -> Path:
    """Write the report and return its path."""
    from deepfer_yolo import __version__

    verdict = f"{'passed' if result.passed else 'failed'}, where findings fail from {result.config.fail_on} upward"
    if result.config.fail_on == "never":
        verdict = "passed: nothing fails this gate"
    facts = [("pictures", f"{result.pictures:,}"), ("verdict", verdict), ("deepfer", __version__)]
    page = Page(f"Audit of {result.name}", command, facts)
    rows = [[finding.severity, finding.kind, f"{finding.count:,}", finding.message] for finding in result.findings]
    page.add_table(["severity", "finding", "count", "what"], rows, caption="Findings, the gravest first")
    _add_counts(page, result)
    for finding in result.findings:
        groups = [group for group in finding.groups if any(key in result.looks for key in group)]
        if groups:
            page.add_heading(f"{finding.kind}: {finding.count:,}")
            page.add_text(finding.message)
            if all(len(group) == 1 for group in groups):
                _add_singles(page, result, finding)
            else:
                for group in groups[:MAX_GROUPS]:
                    page.add_pictures(
                        [_shown(result.looks[key]) for key in _telling(result, group)],
                        caption=_what_group(result, group),
                    )
                if len(groups) > MAX_GROUPS:
                    page.add_text(f"The {MAX_GROUPS} largest groups of {len(groups):,}; --json lists them all.")
    return page.write(path)


def _add_counts(page: Page, result: Audit) -> None:
    splits = list(result.counts)
    labels = sorted({label for by_label in result.counts.values() for label in by_label})
    rows = [[label, *(f"{result.counts[split][label]:,}" for split in splits)] for label in labels]
    rows.append(["all", *(f"{sum(result.counts[split].values()):,}" for split in splits)])
    page.add_table(["label", *(split or "pictures" for split in splits)], rows, "Pictures by label")


def _add_singles(page: Page, result: Audit, finding: Finding) -> None:
    noted = list(zip_longest(finding.groups, finding.notes, fillvalue=""))
    shown = [_shown(result.looks[group[0]], note) for group, note in noted[:MAX_PICTURES] if group[0] in result.looks]
    caption = (
        f"The first {len(shown)} of {finding.count:,}; --json lists them all" if finding.count > len(shown) else ""
    )
    page.add_pictures(shown, caption=caption)


def _telling(result: Audit, group: tuple[str, ...]) -> list[str]:
    """The pictures of a group to show: one of each split and label first, the held-out ones before those of train."""
    by_kind: dict[tuple[int, str], list[str]] = defaultdict(list)
    for key in group:
        look = result.looks[key]
        by_kind[-HELD_OUT[look.split], look.label].append(key)
    in_turn = [
        key for turn in zip_longest(*(by_kind[kind] for kind in sorted(by_kind))) for key in turn if key is not None
    ]
    return in_turn[:MAX_IN_GROUP]


def _what_group(result: Audit, group: tuple[str, ...]) -> str:
    kinds = Counter(_where(result.looks[key]) for key in group)
    return (
        f"{len(group):,} pictures: "
        + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
        + (" …" if len(kinds) > 6 else "")
    )


def _where(look: Look) -> str:
    return f"{look.split} {look.label}".strip()


def _shown(look: Look, note: str = "") -> tuple[NDArray[np.uint8], list[str]]:
    pixels = item_pixels(look.item)
    image = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
    name = printable(look.key.removeprefix(f"{look.split}/{look.label}/"))
    height, width = image.shape[:2]
    scale = min(SIDE_PX / min(height, width), MAX_SIDE_PX / max(height, width))
    small = resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
    return small, [line for line in (_where(look), note, name) if line]
