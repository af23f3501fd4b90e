"""An audit as one HTML page with its images, the largest groups first."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path

from deepfer_yolo.data.audit.findings import HELD_OUT, AuditResult, Finding
from deepfer_yolo.data.audit.inspection import InspectedImage
from deepfer_yolo.data.audit.settled import Settlement
from deepfer_yolo.data.corrected import corrections_line
from deepfer_yolo.data.dataset import count_rows
from deepfer_yolo.data.decisions import UNSURE
from deepfer_yolo.data.images import rgb
from deepfer_yolo.data.layouts.item import item_pixels
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.records import Image
from deepfer_yolo.report.page import Page
from deepfer_yolo.runtime.preprocess import resize

MAX_GROUPS, MAX_IN_GROUP, MAX_SINGLES = 12, 6, 48
SIDE_PX, MAX_SIDE_PX = 96, 384
"""The shorter side of what is shown, and what the longer one may be."""


def write_page(result: AuditResult, command: str, path: Path) -> Path:
    """Write the report and return its path."""
    from deepfer_yolo import __version__

    verdict = f"{'passed' if result.passed else 'failed'}, where findings fail from {result.config.fail_on} upward"
    if result.config.fail_on == "never":
        verdict = "passed: nothing fails this gate"
    facts = [("images", f"{result.n_images:,}"), ("verdict", verdict), ("deepfer", __version__)]
    page = Page(f"Audit of {result.name}", command, facts)
    rows = [[finding.severity, finding.kind, f"{finding.count:,}", finding.message] for finding in result.findings]
    page.add_table(["severity", "finding", "count", "what"], rows, caption="Findings, the gravest first")
    if result.settled is not None:
        _add_before_and_after(page, result, result.settled)
    splits = [split or "images" for split in result.counts]
    page.add_table(["label", *splits], count_rows(result.counts), "Images by label")
    for finding in result.findings:
        groups = [group for group in finding.groups if any(key in result.images for key in group)]
        if not groups:
            continue
        page.add_heading(f"{finding.kind}: {finding.count:,}")
        page.add_text(finding.message)
        if all(len(group) == 1 for group in groups):
            _add_singles(page, result, finding)
            continue
        for group in groups[:MAX_GROUPS]:
            shown = [_shown(result.images[key]) for key in _telling(result, group)]
            page.add_images(shown, caption=_what_group(result, group))
        if len(groups) > MAX_GROUPS:
            page.add_text(f"The {MAX_GROUPS} largest groups of {len(groups):,}; --json lists them all.")
    return page.write(path)


def _add_before_and_after(page: Page, result: AuditResult, settled: Settlement) -> None:
    """What people settled: of each finding, of the labels, and on which images."""
    page.add_heading("Before and after")
    page.add_text(f"What people corrected, the data set itself unchanged: {corrections_line(settled.applied)}.")
    page.add_table(
        ["finding", "before", "settled", "left"],
        [[kind, f"{n.groups:,}", f"{n.settled:,}", f"{n.groups - n.settled:,}"] for kind, n in settled.left.items()],
        "Images, or groups of copies, of each finding",
    )
    page.add_table(["label", *settled.before], settled.label_rows(), "Images by label, before → after")
    if not settled.moves:
        return
    page.add_table(["from", "to", "images"], settled.move_rows(), "Labels that were changed")
    there = ((path, said) for path, said in settled.decided.items() if path in result.images)
    changed = [(path, said) for path, said in there if said.new_label not in (UNSURE, result.images[path].label)]
    shown = [
        _shown(result.images[path], note, f"{result.images[path].label} → {said.new_label}")
        for path, said in changed[:MAX_SINGLES]
        for note in [", ".join(filter(None, (said.reviewer, *said.how)))]
    ]
    page.add_images(shown, f"The first {len(shown)} of {len(changed):,}" if len(changed) > len(shown) else "")


def _add_singles(page: Page, result: AuditResult, finding: Finding) -> None:
    noted = list(zip_longest(finding.groups, finding.notes, fillvalue=""))
    shown = [_shown(result.images[group[0]], note) for group, note in noted[:MAX_SINGLES] if group[0] in result.images]
    is_part = finding.count > len(shown)
    caption = f"The first {len(shown)} of {finding.count:,}; --json lists them all" if is_part else ""
    page.add_images(shown, caption=caption)


def _telling(result: AuditResult, group: tuple[str, ...]) -> list[str]:
    """The images of a group to show: one of each split and label first, the held-out ones before those of train."""
    by_kind: dict[tuple[int, str], list[str]] = defaultdict(list)
    for key in group:
        image = result.images[key]
        by_kind[-HELD_OUT[image.split], image.label].append(key)
    turns = zip_longest(*(by_kind[kind] for kind in sorted(by_kind)))
    return [key for turn in turns for key in turn if key is not None][:MAX_IN_GROUP]


def _what_group(result: AuditResult, group: tuple[str, ...]) -> str:
    kinds = Counter(_where(result.images[key]) for key in group)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
    return f"{len(group):,} images: {listed}{' …' if len(kinds) > 6 else ''}"


def _where(image: InspectedImage) -> str:
    return f"{image.split} {image.label}".strip()


def _shown(image: InspectedImage, note: str = "", title: str = "") -> tuple[Image, list[str]]:
    pixels = rgb(item_pixels(image.item)[0])
    name = printable(image.key.removeprefix(f"{image.split}/{image.label}/"))
    height, width = pixels.shape[:2]
    scale = min(SIDE_PX / min(height, width), MAX_SIDE_PX / max(height, width))
    small = resize(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    return small, [line for line in (title or _where(image), note, name) if line]
