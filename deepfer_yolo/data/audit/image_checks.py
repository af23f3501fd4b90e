"""The checks of an audit that need nothing but the images themselves; each turns an inspection into findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from deepfer_yolo.config import AuditConfig, FindingKind, Severity
from deepfer_yolo.data.audit.findings import Finding
from deepfer_yolo.data.audit.inspection import InspectedImage, Inspection
from deepfer_yolo.data.duplicates import group, near_pairs
from deepfer_yolo.data.ferplus import NOT_EMOTIONS, parse_votes
from deepfer_yolo.data.near_candidates import SIDE, Pairs
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.errors import listed

Group = list[InspectedImage]


def unreadable(seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
    """Images that cannot be decoded, rows that cannot be read."""
    if seen.broken:
        keys, reasons = zip(*seen.broken, strict=True)
        message = f"cannot be read, such as {printable(keys[0])}: {reasons[0]}"
        yield Finding("unreadable", "error", len(keys), message, tuple((key,) for key in keys), reasons)


def left_out(seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
    """What the layout's reader does not count as an image with a label."""
    what = ", ".join(f"{count:,} {why}" for why, count in seen.left_out.most_common(5))
    if what:
        yield Finding("left-out", "note", seen.left_out.total(), f"not read: {what}")


def light_and_size(seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
    """Blank, dark, bright, blurred, empty, tiny and odd images; a blank one is not also dark or blurred."""
    measured = [(i.contrast, i.brightness, i.sharpness, i.entropy, i.width, i.height) for i in seen.images]
    contrast, brightness, sharpness, entropy, *sides = np.array(measured, np.float64).reshape(-1, 6).T
    short, long = np.sort(sides, axis=0)
    few_values, no_edge = entropy < config.min_entropy_bits, sharpness < config.min_sharpness
    blank = contrast < config.min_contrast
    rules: tuple[tuple[FindingKind, Severity, str, NDArray[np.bool_]], ...] = (
        ("blank", "warning", f"nearly one grey: contrast under {config.min_contrast:g}", blank),
        ("dark", "note", f"mean brightness under {config.min_brightness:g}", brightness < config.min_brightness),
        ("bright", "note", f"mean brightness over {config.max_brightness:g}", brightness > config.max_brightness),
        ("blurred", "note", f"hardly an edge: mean Laplacian under {config.min_sharpness:g}", no_edge),
        ("low-entropy", "note", f"few grey values: entropy under {config.min_entropy_bits:g} bits", few_values),
        ("tiny", "warning", f"a side under {config.min_px} pixels", short < config.min_px),
        (
            "odd-aspect",
            "note",
            f"one side over {config.max_aspect:g} times the other",
            long > config.max_aspect * short,
        ),
    )
    for kind, severity, message, applies in rules:
        counted = applies & ~blank if kind in ("dark", "bright", "blurred", "low-entropy") else applies
        keys = tuple((seen.images[index].key,) for index in np.flatnonzero(counted))
        if keys:
            yield Finding(kind, severity, len(keys), message, keys)


def copies(seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
    """Exact copies, those in two splits, those under two labels; then near copies that are not exact, the same way."""
    by_hash: dict[bytes, Group] = defaultdict(list)
    for image in seen.images:
        by_hash[image.pixel_hash].append(image)
    exact = _largest_first(same for same in by_hash.values() if len(same) > 1)
    if exact:
        message = f"exact copies, in {len(exact):,} groups"
        yield Finding("duplicate", "warning", sum(len(same) - 1 for same in exact), message, _keys(exact))
    yield from _across(exact, "leak", "error", "exact copies of one image stand in two splits")
    yield from _conflicts(exact, "conflict", "warning", "exact copies")
    if not config.near:
        return
    # One image of each exact group takes part: the others would only repeat what it finds.
    first = [same[0] for same in by_hash.values()]
    thumbs = np.frombuffer(seen.thumbs, np.uint8).reshape(-1, SIDE, SIDE)
    splits = [_splits(same) for same in by_hash.values()]
    kinds = np.unique(["/".join(sorted(names)) for names in splits], return_inverse=True)[1].astype(np.int64)
    pairs = near_pairs(thumbs, config.near_radius_bits, config.near_correlation, kinds)
    joined = _joined(first, pairs)
    near = _with_copies(joined, by_hash)
    if near:
        message = f"near copies that are not exact, in {len(near):,} groups"
        yield Finding("near-duplicate", "note", sum(len(same) - 1 for same in joined), message, _keys(near))
    known = {image.key for same in exact if len(_splits(same)) > 1 for image in same if image.split != "train"}
    is_torn = np.array([len(splits[i] | splits[j]) > 1 for i, j in pairs], bool)
    torn = _with_copies(_joined(first, pairs[is_torn]), by_hash)
    yield from _across(torn, "near-leak", "warning", "near copies stand in two splits, exact ones not counted", known)
    yield from _conflicts(near, "near-conflict", "note", "near copies")


def subjects(seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
    """People whose images stand in two splits."""
    by_subject: dict[str, Group] = defaultdict(list)
    for image in seen.images:
        if image.item.subject:
            by_subject[image.item.subject].append(image)
    torn = _largest_first(same for same in by_subject.values() if len(_splits(same)) > 1)
    if torn:
        names = ", ".join(printable(same[0].item.subject) for same in torn[:5]) + (" …" if len(torn) > 5 else "")
        message = f"of {len(by_subject):,} subjects stand in two splits: {names}; convert with --group-by subject"
        yield Finding("subject-leak", "error", len(torn), message, _keys(torn))


def balance(seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
    """Missing classes and splits, small classes, imbalance, splits too small to say anything."""
    counts = seen.counts()
    for split, by_label in counts.items():
        here = split or "the set"
        absent = [label for label, count in by_label.items() if count == 0]
        if absent:
            yield Finding("missing-class", "error", len(absent), f"{here} has no {listed(absent)}")
        present = {label: count for label, count in by_label.items() if count}
        few = [f"{label} {count}" for label, count in present.items() if count < config.min_per_class]
        if few:
            message = f"{here}: under {config.min_per_class} images: {listed(few)}"
            yield Finding("few", "warning", len(few), message)
        ratio = max(present.values()) / min(present.values())
        if ratio > config.max_imbalance:
            message = f"{here}: the largest class is {ratio:.1f} times the smallest, over {config.max_imbalance:g}"
            yield Finding("imbalance", "warning", 1, message)
        share = sum(present.values()) / len(seen.images)
        if share < config.min_share:
            message = f"{here} has {100 * share:.1f} % of the images, under {100 * config.min_share:g} %"
            yield Finding("split-ratio", "warning", 1, message)
    if "train" in counts and "val" not in counts:
        yield Finding("missing-split", "error", 1, "there is no val split")


def disagreement(seen: Inspection, config: AuditConfig) -> Iterator[Finding]:
    """Images whose voters mostly chose another label."""
    other, n_voted = [], 0
    for image in seen.images:
        votes = parse_votes(image.item.votes)
        if votes:
            n_voted += 1
            winner = max(votes, key=lambda label: votes[label])
            if votes.get(image.label, 0) < votes[winner]:
                other.append((votes[winner], winner, image.key))
    if other:
        other.sort(key=lambda found: -found[0])
        n_nobody = sum(winner in NOT_EMOTIONS for _, winner, _ in other)
        message = f"{100 * len(other) / n_voted:.1f} % of {n_voted:,} voted images bear another label than most votes; "
        message += f"{n_nobody:,} unknown or no face"
        notes = tuple(f"{winner}, {count} votes" for count, winner, _ in other)
        yield Finding("vote-disagreement", "note", len(other), message, tuple((key,) for *_, key in other), notes)


def _splits(images: Group) -> set[str]:
    return {image.split for image in images}


def _joined(images: Group, pairs: Pairs) -> list[Group]:
    """Groups of two or more that `pairs` join, also in chains."""
    groups: dict[int, Group] = defaultdict(list)
    for image, number in zip(images, group(len(images), pairs).tolist(), strict=True):
        groups[number].append(image)
    return [same for same in groups.values() if len(same) > 1]


def _with_copies(groups: list[Group], by_hash: dict[bytes, Group]) -> list[Group]:
    """The groups with all exact copies of their members, the largest first."""
    return _largest_first([image for member in same for image in by_hash[member.pixel_hash]] for same in groups)


def _across(
    groups: list[Group], kind: FindingKind, severity: Severity, message: str, known: set[str] | None = None
) -> Iterator[Finding]:
    torn = [same for same in groups if len(_splits(same)) > 1]
    held_out = {image.key for same in torn for image in same if image.split != "train"} - (known or set())
    if held_out:
        torn = [same for same in torn if any(image.key in held_out for image in same)]
        yield Finding(kind, severity, len(held_out), message, _keys(torn))


def _conflicts(groups: list[Group], kind: FindingKind, severity: Severity, what: str) -> Iterator[Finding]:
    torn = [same for same in groups if len({image.label for image in same}) > 1]
    if torn:
        message = f"images in {len(torn):,} groups of {what} bear two labels or more"
        yield Finding(kind, severity, sum(map(len, torn)), message, _keys(torn))


def _largest_first(groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=len, reverse=True)


def _keys(groups: list[Group]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(image.key for image in same) for same in groups)


CHECKS = (unreadable, left_out, light_and_size, copies, subjects, balance, disagreement)
