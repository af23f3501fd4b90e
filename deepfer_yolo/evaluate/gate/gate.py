"""The gate: a contest, its rules, a verdict, and the files that CI reads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from deepfer_yolo.config import GateConfig
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE
from deepfer_yolo.evaluate.gate.promotion import record, times_decided
from deepfer_yolo.evaluate.gate.rules import decide
from deepfer_yolo.evaluate.paired import OnRound, hold_contest
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import plain
from deepfer_yolo.report.tables import interval, percent
from deepfer_yolo.runs import write_json, write_metrics
from deepfer_yolo.runtime.classifier import Classifier

GATE, JUNIT, SUMMARY = "gate.json", "junit.xml", "summary.md"
EXIT_CODES = {"pass": 0, "fail": EXIT_GATE_FAILED, "inconclusive": EXIT_INCONCLUSIVE}
SUMMARY_BYTES = 900_000
"""GitHub refuses a step summary above 1 MiB."""
NO_XML = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, and file names can."""
PAIR_HEADER = ("figure", "challenger", "champion", "difference", "95 % interval")
COMPARED = (
    ("top1", "top-1 accuracy, %"),
    ("macro_f1", "macro F1, %"),
    ("balanced_accuracy", "balanced accuracy, %"),
    ("nll", "NLL"),
    ("brier", "Brier score"),
)


def run_gate(
    challenger: Classifier,
    champion: Classifier | None,
    dataset: Dataset,
    config: GateConfig,
    run: Path,
    promote: Path | None = None,
    on_model: OnRound | None = None,
    learned: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Decide, write the run's files, and return what `gate.json` holds.

    `learned` is the record of `check_models`. With `promote`, the decision is recorded there, and a pass hands over the
    title; see `promotion.record` for what is refused.
    """
    measured = hold_contest(challenger, champion, dataset, config, on_model)
    verdict, rulings = decide(measured, config)
    result: dict[str, Any] = {
        "verdict": verdict,
        "exit_code": EXIT_CODES[verdict],
        "rules": [ruling.as_dict() for ruling in rulings],
        **plain(measured),
        "learned_before": plain(learned),
    }
    try:
        if promote is not None:
            result |= _record(result, promote, challenger.path, run)
    finally:
        write_files(result, run)
    return result


def _record(result: Mapping[str, Any], promote: Path, challenger: Path, run: Path) -> dict[str, Any]:
    data, new, old = result["dataset"], result["challenger"]["sha256"], result.get("champion", {}).get("sha256")
    before = times_decided(promote, data["fingerprint"], data["split"])
    decision = {
        "verdict": result["verdict"],
        "challenger": new,
        "champion": old,
        "fingerprint": data["fingerprint"],
        "split": data["split"],
    }
    decision |= {"d": result.get("pair", {}).get("d"), "run": str(run)}
    crowned = record(promote, decision, challenger, old, promote=result["verdict"] == "pass" and new != old)
    return {"decided_before": before, "promoted_to": str(crowned) if crowned is not None else None}


def write_files(result: Mapping[str, Any], run: Path) -> None:
    """`gate.json`, `metrics.json` for `deepfer runs`, `junit.xml`, and `summary.md`, which is also appended to
    $GITHUB_STEP_SUMMARY.
    """
    write_json(run / GATE, result)
    headline = {key: result["challenger"][key] for key in ("n", "top1", "macro_f1", "ece")}
    write_metrics(run, {"verdict": result["verdict"], **headline, "d": result.get("pair", {}).get("d")})
    write_atomic(run / JUNIT, junit(result))
    text = summary(result)
    write_atomic(run / SUMMARY, text.encode("utf-8", "replace"))
    if step := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(step).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)


def junit(result: Mapping[str, Any]) -> str:
    """One test case a rule: a failure where it failed, an error of type `inconclusive` where the test set cannot tell."""
    rules = result["rules"]
    counts = {kind: sum(rule["verdict"] == kind for rule in rules) for kind in ("fail", "inconclusive")}
    suite = ET.Element(
        "testsuite",
        name="deepfer gate",
        tests=str(len(rules)),
        failures=str(counts["fail"]),
        errors=str(counts["inconclusive"]),
    )
    for rule in rules:
        reason = NO_XML.sub("\ufffd", rule["reason"])
        case = ET.SubElement(suite, "testcase", classname="deepfer.gate", name=rule["rule"])
        if rule["verdict"] == "fail":
            ET.SubElement(case, "failure", message=reason)
        elif rule["verdict"] == "inconclusive":
            ET.SubElement(case, "error", type="inconclusive", message=reason)
        ET.SubElement(case, "system-out").text = reason
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def pair_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The headline figures of both models with the paired difference; shares in per cent, differences in points."""
    challenger, champion, pair = result["challenger"], result.get("champion"), result.get("pair")
    rows = []
    for key, title in COMPARED:
        scale, digits = (1, 3) if key in {"nll", "brier"} else (100, 1)
        row = [title, f"{scale * challenger[key]:.{digits}f}"]
        if champion is not None and pair is not None:
            found = pair["differences"][key]
            low, high = (scale * value for value in found["interval"])
            row += [
                f"{scale * champion[key]:.{digits}f}",
                f"{scale * found['difference']:+.{digits}f}",
                f"{low:+.{digits}f} to {high:+.{digits}f}",
            ]
        else:
            row += ["–", "–", interval(*challenger["intervals"][key]) if scale == 100 else "–"]
        rows.append(row)
    rows.append(_plain_row("ECE, %", challenger, champion, lambda side: percent(side["ece"])))
    rows.append(_plain_row("size, MB", challenger, champion, lambda side: f"{side['size_mb']:.2f}"))
    found = result["latency"]
    rest = [f"{found['champion_ms']:.2f}", f"× {found['ratio']:.2f}"] if champion is not None else ["–", "–"]
    return [*rows, ["latency, ms", f"{found['challenger_ms']:.2f}", *rest, "–"]]


def _plain_row(title: str, challenger: Mapping[str, Any], champion: Mapping[str, Any] | None, text: Any) -> list[str]:
    return [title, text(challenger), text(champion) if champion is not None else "–", "–", "–"]


def class_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Recall of each class for both models, the difference in points, wins and losses, and Holm's corrected p."""
    return [
        [
            row["label"],
            percent(row["challenger"]),
            percent(row["champion"]),
            f"{100 * row['difference']:+.1f}",
            f"{row['wins']}/{row['losses']}",
            f"{row['p_holm']:.3f}" if row["p_holm"] >= 0.001 else "<0.001",
            str(row["n"]),
        ]
        for row in result["pair"]["classes"]
    ]


CLASS_HEADER = ("recall %", "challenger", "champion", "difference", "won/lost", "p (Holm)", "pictures")


def verdict_lines(result: Mapping[str, Any]) -> list[str]:
    """The verdict and what it rests on, a sentence each."""
    data, pair = result["dataset"], result.get("pair")
    lines = [
        f"{result['verdict'].upper()}: {result['challenger']['name']} on {data['name']}, split {data['split']}, n = {data['n']:,}"
    ]
    if pair is None:
        lines.append("There is no champion yet: the challenger was held to its floors alone.")
    else:
        lines.append(
            f"Alone right: challenger {pair['wins']}, champion {pair['losses']}; exact McNemar p = {pair['mcnemar_p']:.3g}. "
            f"Differences below {100 * pair['resolution']:.2f} points cannot be told from none on this test set."
        )
    if "decided_before" in result:
        lines.append(
            f"This test set has decided {result['decided_before']} times before here; each time makes it less independent."
        )
    if result.get("promoted_to"):
        lines.append(f"Promoted to {result['promoted_to']}.")
    return lines


def summary(result: Mapping[str, Any]) -> str:
    """The Markdown summary, cut to SUMMARY_BYTES."""
    first, *rest = verdict_lines(result)
    sides = [
        f"{role} {result[role]['path']} ({result[role]['sha256'][:12]})"
        for role in ("challenger", "champion")
        if role in result
    ]
    rest.append(
        f"Scored now, on the same pictures: {', '.join(sides)}; data fingerprint {result['dataset']['fingerprint'][:12]}."
    )
    parts = [f"## deepfer gate: {_cell(first)}", ""]
    for line in rest:
        parts += [_cell(line), ""]
    parts += _markdown(
        ("rule", "verdict", "reason"), [[rule["rule"], rule["verdict"], rule["reason"]] for rule in result["rules"]]
    )
    parts += _markdown(PAIR_HEADER, pair_rows(result))
    if "pair" in result:
        parts += _markdown(CLASS_HEADER, class_rows(result))
    broken = result.get("must_not_break", {}).get("broken", [])
    if broken:
        parts += ["Protected pictures that are wrong now:", "", *(f"- `{_cell(path)}`" for path in broken), ""]
    text = "\n".join(parts) + "\n"
    if len(text.encode("utf-8", "replace")) <= SUMMARY_BYTES:
        return text
    note = "\n\n… cut here; all of it is in gate.json\n"
    return text.encode("utf-8", "replace")[: SUMMARY_BYTES - len(note.encode())].decode(errors="ignore") + note


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return [*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows), ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
