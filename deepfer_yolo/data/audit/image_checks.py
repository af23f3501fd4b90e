"""The checks of an audit that need nothing but the pictures themselves; each turns an inspection into findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from deepfer_yolo.config import AuditConfig, FindingKind
from deepfer_yolo.data.audit.findings import Finding, Severity
from deepfer_yolo.data.audit.inspection import Inspection, Look
from deepfer_yolo.data.duplicates import SIDE, Pairs, group, near_pairs
from deepfer_yolo.data.ferplus import NOT_EMOTIONS, parse_votes
from deepfer_yolo.data.untrusted import printable

Groups = list[list[Look]]


def unreadable(seen: Inspection, config: AuditConfig) -> list[Finding]:
    """Pictures that cannot be decoded, rows that cannot be read."""
    if not seen.broken:
        return []
    key, what = seen.broken[0]
    message = f"cannot be read, such as {printable(key)}: {what}"
    keys, notes = tuple((key,) for key, _ in seen.broken), tuple(what for _, what in seen.broken)
    return [Finding("unreadable", "error", len(seen.broken), message, keys, notes)]


def left_out(seen: Inspection, config: AuditConfig) -> list[Finding]:
    """What the layout's reader does not count as a picture with a label."""
    what = ", ".join(f"{count:,} {why}" for why, count in seen.left_out.most_common(5))
    return [Finding("left-out", "note", seen.left_out.total(), f"not read: {what}")] if what else []


def light_and_size(seen: Inspection, config: AuditConfig) -> list[Finding]:
    """Blank, dark, bright, blurred, empty, tiny and odd pictures; a blank one is not also dark or blurred."""
    rules: list[tuple[FindingKind, Severity, str, Callable[[Look], bool]]] = [
        (
            "blank",
            "warning",
            f"nearly one grey: contrast under {config.min_contrast:g}",
            lambda look: look.contrast < config.min_contrast,
        ),
        (
            "dark",
            "note",
            f"mean brightness under {config.min_brightness:g}",
            lambda look: look.brightness < config.min_brightness,
        ),
        (
            "bright",
            "note",
            f"mean brightness over {config.max_brightness:g}",
            lambda look: look.brightness > config.max_brightness,
        ),
        (
            "blurred",
            "note",
            f"hardly an edge: mean Laplacian under {config.min_sharpness:g}",
            lambda look: look.sharpness < config.min_sharpness,
        ),
        (
            "low-entropy",
            "note",
            f"few grey values: entropy under {config.min_entropy_bits:g} bits",
            lambda look: look.entropy < config.min_entropy_bits,
        ),
    ]
    shape_rules: list[tuple[FindingKind, Severity, str, Callable[[Look], bool]]] = [
        (
            "tiny",
            "warning",
            f"a side under {config.min_px} pixels",
            lambda look: min(look.width, look.height) < config.min_px,
        ),
        (
            "odd-aspect",
            "note",
            f"one side over {config.max_aspect:g} times the other",
            lambda look: _aspect(look) > config.max_aspect,
        ),
    ]
    blank = {look.key for look in seen.looks if rules[0][3](look)}
    findings = []
    for kind, severity, message, applies in [*rules, *shape_rules]:
        is_light = kind in ("dark", "bright", "blurred", "low-entropy")
        keys = [(look.key,) for look in seen.looks if applies(look) and not (is_light and look.key in blank)]
        if keys:
            findings.append(Finding(kind, severity, len(keys), message, tuple(keys)))
    return findings


def copies(seen: Inspection, config: AuditConfig) -> list[Finding]:
    """Exact copies within a split, across splits, and under two labels; then near copies the same way, those not exact."""
    by_hash: dict[bytes, list[Look]] = defaultdict(list)
    for look in seen.looks:
        by_hash[look.pixel_hash].append(look)
    exact = _largest_first([same for same in by_hash.values() if len(same) > 1])
    redundant = sum(len(same) - 1 for same in exact)
    findings = (
        [Finding("duplicate", "warning", redundant, f"exact copies, in {len(exact):,} groups", _keys(exact))]
        if exact
        else []
    )
    findings += _across(exact, "leak", "error", "exact copies of one picture stand in two splits")
    findings += _conflicts(exact, "conflict", "warning", "exact copies")
    # One picture of each exact group takes part: the others would only repeat what it finds.
    first = [same[0] for same in by_hash.values()]
    thumbs = np.array([look.thumb for look in first], np.uint8).reshape(-1, SIDE, SIDE)
    splits = [{look.split for look in same} for same in by_hash.values()]
    kinds = np.unique(["/".join(sorted(names)) for names in splits], return_inverse=True)[1].astype(np.int64)
    pairs = near_pairs(thumbs, config.near_radius_bits, config.near_correlation, kinds)
    across = [len(splits[i] | splits[j]) > 1 for i, j in pairs]
    joined = _joined(first, pairs)
    whole = _with_copies(joined, by_hash)
    if joined:
        count = sum(len(same) - 1 for same in joined)
        findings.append(
            Finding(
                "near-duplicate",
                "note",
                count,
                f"near copies that are not exact, in {len(joined):,} groups",
                _keys(whole),
            )
        )
    known = {
        look.key for same in exact if len({look.split for look in same}) > 1 for look in same if look.split != "train"
    }
    torn = _with_copies(_joined(first, pairs[np.array(across, bool)]), by_hash)
    findings += _across(torn, "near-leak", "warning", "near copies stand in two splits, exact ones not counted", known)
    findings += _conflicts(whole, "near-conflict", "note", "near copies")
    return findings


def subjects(seen: Inspection, config: AuditConfig) -> list[Finding]:
    """People whose pictures stand in two splits."""
    by_subject: dict[str, list[Look]] = defaultdict(list)
    for look in seen.looks:
        if look.item.subject:
            by_subject[look.item.subject].append(look)
    torn = _largest_first([same for same in by_subject.values() if len({look.split for look in same}) > 1])
    names = ", ".join(printable(same[0].item.subject) for same in torn[:5])
    message = f"of {len(by_subject):,} subjects stand in two splits: {names}{' …' if len(torn) > 5 else ''}; convert with --group-by subject"
    return [Finding("subject-leak", "error", len(torn), message, _keys(torn))] if torn else []


def balance(seen: Inspection, config: AuditConfig) -> list[Finding]:
    """Missing classes and splits, small classes, imbalance, splits too small to say anything."""
    findings = []
    counts = seen.counts()
    for split, by_label in counts.items():
        here = split or "the set"
        absent = [label for label, count in by_label.items() if count == 0]
        if absent:
            findings.append(Finding("missing-class", "error", len(absent), f"{here} has no {', '.join(absent)}"))
        present = {label: count for label, count in by_label.items() if count}
        few = [f"{label} {count}" for label, count in present.items() if count < config.min_per_class]
        if few:
            findings.append(
                Finding("few", "warning", len(few), f"{here}: under {config.min_per_class} pictures: {', '.join(few)}")
            )
        ratio = max(present.values()) / min(present.values())
        if ratio > config.max_imbalance:
            message = f"{here}: the largest class is {ratio:.1f} times the smallest, over {config.max_imbalance:g}"
            findings.append(Finding("imbalance", "warning", 1, message))
        share = sum(present.values()) / len(seen.looks)
        if share < config.min_share:
            message = f"{here} has {100 * share:.1f} % of the pictures, under {100 * config.min_share:g} %"
            findings.append(Finding("split-ratio", "warning", 1, message))
    if "train" in counts and "val" not in counts:
        findings.append(Finding("missing-split", "error", 1, "there is no val split"))
    return findings


def disagreement(seen: Inspection, config: AuditConfig) -> list[Finding]:
    """Pictures whose voters mostly chose another label."""
    other, voted = [], 0
    for look in seen.looks:
        if look.item.votes:
            votes = parse_votes(look.item.votes)
            voted += 1
            winner = max(votes, key=lambda label: votes[label], default="")
            if votes and votes.get(look.label, 0) < votes[winner]:
                other.append((look, winner, votes[winner]))
    if not other:
        return []
    other.sort(key=lambda found: -found[2])
    nobody = sum(winner in NOT_EMOTIONS for _, winner, _ in other)
    message = f"{100 * len(other) / voted:.1f} % of {voted:,} voted pictures bear another label than most votes; {nobody:,} unknown or no face"
    notes = tuple(f"{winner}, {count} votes" for _, winner, count in other)
    return [
        Finding("vote-disagreement", "note", len(other), message, tuple((look.key,) for look, _, _ in other), notes)
    ]


def _joined(looks: list[Look], pairs: Pairs) -> Groups:
    """Groups of two or more that `pairs` join, also in chains."""
    groups: dict[int, list[Look]] = defaultdict(list)
    for look, number in zip(looks, group(len(looks), pairs).tolist(), strict=True):
        groups[number].append(look)
    return [same for same in groups.values() if len(same) > 1]


def _with_copies(groups: Groups, by_hash: dict[bytes, list[Look]]) -> Groups:
    """The groups with all exact copies of their members, the largest first."""
    return _largest_first([[look for member in same for look in by_hash[member.pixel_hash]] for same in groups])


def _across(
    groups: Groups, kind: FindingKind, severity: Severity, message: str, known: set[str] | None = None
) -> list[Finding]:
    torn = [same for same in groups if len({look.split for look in same}) > 1]
    held_out = {look.key for same in torn for look in same if look.split != "train"} - (known or set())
    torn = [same for same in torn if any(look.key in held_out for look in same)]
    return [Finding(kind, severity, len(held_out), message, _keys(torn))] if held_out else []


def _conflicts(groups: Groups, kind: FindingKind, severity: Severity, what: str) -> list[Finding]:
    torn = [same for same in groups if len({look.label for look in same}) > 1]
    message = f"pictures in {len(torn):,} groups of {what} bear two labels or more"
    return [Finding(kind, severity, sum(map(len, torn)), message, _keys(torn))] if torn else []


def _aspect(look: Look) -> float:
    return max(look.width, look.height) / min(look.width, look.height)


def _largest_first(groups: Groups) -> Groups:
    return sorted(groups, key=len, reverse=True)


def _keys(groups: Groups) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(look.key for look in same) for same in groups)


CHECKS = (unreadable, left_out, light_and_size, copies, subjects, balance, disagreement)
