"""The gate: what is measured, the verdict, the champion's folder, and the files that CI reads."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from deepfer_yolo.config import GateConfig
from deepfer_yolo.data.corrected import Judged, SplitCorrections
from deepfer_yolo.data.dataset import Dataset
from deepfer_yolo.data.leaks import Learned, check_models
from deepfer_yolo.emotions import meeting
from deepfer_yolo.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, ConfigError, DatasetError, did_you_mean, listed
from deepfer_yolo.evaluate.evaluation import DataUsed, ScoredModel
from deepfer_yolo.evaluate.gate.promotion import GateDecision, record, times_decided
from deepfer_yolo.evaluate.gate.rules import Evidence, LabelsOf, Protected, Ruling, StandIn, Verdict, decide
from deepfer_yolo.evaluate.paired import DIFFERENCES, Latency, OnModel, compare_pair, latency, score_models
from deepfer_yolo.evaluate.predictions import Scores, common_labels
from deepfer_yolo.evaluate.subsets import relabelled
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import Json, plain, without_none
from deepfer_yolo.report.page import interval, percent
from deepfer_yolo.runs import write_json, write_metrics
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.runtime.model_file import DEFAULT

GATE, JUNIT, SUMMARY = "gate.json", "junit.xml", "summary.md"
EXIT_CODES = {"pass": 0, "fail": EXIT_GATE_FAILED, "inconclusive": EXIT_INCONCLUSIVE}
SUMMARY_BYTES = 900_000
"""GitHub refuses a step summary above 1 MiB."""
NO_XML = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, and file names can."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """How often this split had decided in a champion's folder before, and where the new champion lies."""

    decided_before: int
    promoted_to: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class OtherLabels:
    """How people corrected the judged split, and what the gate would say under the labels that do not decide."""

    how: SplitCorrections
    verdict: Verdict
    rulings: tuple[Ruling, ...]
    evidence: Evidence

    def to_json(self) -> Json:
        """As `gate.json` holds it."""
        found = self.evidence
        compared = {"challenger": found.challenger, "champion": found.champion, "pair": found.comparison}
        labels = {"labels": found.labels_of, "verdict": self.verdict, "rules": self.rulings, "dataset": found.dataset}
        return {**self.how.to_json(), "other": {**plain(labels), **without_none(compared)}}


@dataclass(frozen=True, slots=True, eq=False)
class GateResult:
    """The verdict, the rulings behind it, and what they looked at; `other` where people corrected the judged split."""

    verdict: Verdict
    rulings: tuple[Ruling, ...]
    evidence: Evidence
    learned_before: Learned | None = None
    promotion: Promotion | None = None
    other: OtherLabels | None = None

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return EXIT_CODES[self.verdict]

    @property
    def d(self) -> float | None:
        """The top-1 difference; None without a champion."""
        return None if self.evidence.comparison is None else self.evidence.comparison.decision.d

    def to_json(self) -> Json:
        """As `gate.json` holds it; without a champion, a list, a folder or a stand-in their keys are not there."""
        found = self.evidence
        compared = {"challenger": found.challenger, "champion": found.champion, "pair": found.comparison}
        rest = {"latency": found.latency, "must_not_break": found.protected, "stand_in": found.stand_in}
        return {
            **plain({"verdict": self.verdict, "exit_code": self.exit_code, "rules": self.rulings}),
            "dataset": plain(found.dataset) | {"n": found.challenger.metrics.n},
            "labels": found.labels,
            **({} if self.other is None else {"judged_by": found.labels_of, "corrections": self.other.to_json()}),
            **without_none(compared | rest),
            "learned_before": self.learned_before.to_json() if self.learned_before is not None else None,
            **({} if self.promotion is None else plain(self.promotion)),
        }


def run_gate(
    challenger: Classifier,
    champion: Classifier | None,
    dataset: Dataset,
    config: GateConfig,
    learned: Learned,
    on_model: OnModel,
    stand_in: StandIn | None = None,
) -> GateResult:
    """Score both models now, measure, and decide. `learned` is what `check_models` found, `stand_in` what
    `find_stand_in` said.
    """
    models = [challenger] if champion is None else [challenger, champion]
    labels = common_labels([model.labels for model in models], dataset.labels, config.labels)
    floors = config.floors
    names = meeting(floors.recall, labels)
    for label in floors.recall:
        if label not in names:
            hint = f"labels: {', '.join(labels)}"
            raise ConfigError(f"floors.recall: unknown label '{label}'{did_you_mean(label, labels)}", hint)
    floors = floors.model_copy(update={"recall": {names[label]: floor for label, floor in floors.recall.items()}})
    protected = None if config.must_not_break is None else read_protected(config.must_not_break)
    judged = Judged.of(dataset, config.split)
    scores = score_models(
        zip(("challenger", "champion"), models, strict=False), judged.original, config, labels, on_model
    )
    speed = latency(challenger, champion, judged.original, scores[0])
    scene = _Scene(models, config, labels, speed, protected, stand_in)
    config = config.model_copy(update={"floors": floors})
    evidence = scene.evidence(judged.original, scores, "original")
    if judged.how is None:
        return GateResult(*decide(evidence, config), evidence, learned)
    rest = scene.evidence(dataset, [relabelled(one, dataset) for one in scores], "corrected")
    if config.judge == "corrected":
        evidence, rest = rest, evidence
    other = OtherLabels(judged.how, *decide(rest, config), rest)
    return GateResult(*decide(evidence, config), evidence, learned, other=other)


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What is the same under both labels of a split."""

    models: Sequence[Classifier]
    config: GateConfig
    labels: tuple[str, ...]
    speed: Latency
    protected: Sequence[str] | None
    stand_in: StandIn | None

    def evidence(self, data: Dataset, scores: Sequence[Scores], labels_of: LabelsOf) -> Evidence:
        """What the rules look at under the labels of `data`; images that corrections left out protect nothing."""
        measured = [ScoredModel.of(model, one, self.config) for model, one in zip(self.models, scores, strict=True)]
        protected = self.protected
        if protected is not None and labels_of == "corrected":
            there = set(scores[0].paths)
            protected = [path for path in protected if path in there]
        return Evidence(
            dataset=DataUsed.of(data, self.config.split),
            labels=self.labels,
            challenger=measured[0],
            champion=None if len(scores) == 1 else measured[1],
            comparison=None if len(scores) == 1 else compare_pair(scores[0], scores[1], self.config),
            latency=self.speed,
            # Of protected images the shipped model excuses none: nobody has chosen it as the champion.
            protected=None
            if protected is None
            else check_protected(protected, scores[:1] if self.stand_in else scores),
            stand_in=self.stand_in,
            labels_of=labels_of,
        )


def find_stand_in(
    challenger: Classifier, dataset: Dataset, config: GateConfig
) -> tuple[Classifier | None, StandIn | None]:
    """The shipped model in the place of a champion that there is not: where no floor asks for accuracy, it knows every
    label that the challenger is judged on, and has not learned the images; else None, and why.
    """
    if config.floors.asks_for_accuracy:
        return None, None
    judged_on = common_labels([challenger.labels], dataset.labels, config.labels)
    shipped = Classifier(Path(DEFAULT), threads=config.threads)
    try:
        known = common_labels([challenger.labels, shipped.labels], dataset.labels, config.labels)
        check_models({f"it, {DEFAULT},": shipped}, dataset, config.split, allow=config.allow_leak)
    except DatasetError as error:
        return None, StandIn(DEFAULT, error.reason)
    if known != judged_on:
        missing = [label for label in judged_on if label not in known]
        return None, StandIn(DEFAULT, f"it does not know {listed(missing)}")
    return shipped, StandIn(DEFAULT)


def read_protected(path: Path) -> list[str]:
    """The image paths of a must-not-break file, one a line, without blank lines and `#` lines."""
    hint = "it holds one image path a line, relative to the data set"
    if not path.is_file():
        raise ConfigError(f"no such must-not-break file: {path}", hint)
    # Names of files need not be text: they are read as the manifest is.
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines())
    found = [posixpath.normpath(line) for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"the must-not-break file names no image: {path}", hint)
    return found


def check_protected(paths: Sequence[str], scores: Sequence[Scores]) -> Protected:
    """Which protected images the challenger gets wrong, and which of them it broke."""
    place = {path: i for i, path in enumerate(scores[0].paths)}
    unknown = [path for path in paths if path not in place]
    if unknown:
        raise DatasetError(
            f"{len(unknown)} must-not-break images are not in the split, such as {unknown[0]}",
            "paths are relative to the data set",
        )
    right = [score.probs.argmax(1) == score.targets for score in scores]
    wrong = tuple(path for path in paths if not right[0][place[path]])
    broken = tuple(path for path in wrong if len(right) == 1 or right[1][place[path]])
    return Protected(len(paths), wrong, broken)


def conclude(result: GateResult, run: Path, promote: Path | None, held: str | None = None) -> GateResult:
    """Write the run's files; record the decision in the folder `promote`, where a pass hands over the title. `held` is
    who had it when the gate began, see `title_of`.
    """
    try:
        if promote is not None:
            result = replace(result, promotion=_record(result, promote, run, held))
    finally:
        write_files(result, run)
    return result


def _record(result: GateResult, promote: Path, run: Path, held: str | None) -> Promotion:
    data, new = result.evidence.dataset, result.evidence.challenger.model
    before = times_decided(promote, data.fingerprint, data.split)
    decision = GateDecision(result.verdict, new.sha256, held, data.fingerprint, data.split, result.d, str(run))
    wins = result.verdict == "pass" and new.sha256 != held
    return Promotion(before, record(promote, decision, new.path, promote=wins))


def write_files(result: GateResult, run: Path) -> None:
    """`gate.json`, `metrics.json` for `deepfer runs`, `junit.xml`, and `summary.md`, also in $GITHUB_STEP_SUMMARY."""
    write_json(run / GATE, result.to_json())
    headline = {name: getattr(result.evidence.challenger.metrics, name) for name in ("n", "top1", "macro_f1", "ece")}
    write_metrics(run, {"verdict": result.verdict, **headline, "d": result.d})
    write_atomic(run / JUNIT, junit(result.rulings))
    text = summary(result)
    write_atomic(run / SUMMARY, text.encode("utf-8", "replace"))
    if step := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(step).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)


def junit(rulings: Sequence[Ruling]) -> str:
    """One test case a rule: a failure, or an error of type `inconclusive` where the test set cannot tell."""
    verdicts = [ruling.verdict for ruling in rulings]
    counts = {"tests": len(rulings), "failures": verdicts.count("fail"), "errors": verdicts.count("inconclusive")}
    suite = ET.Element("testsuite", {"name": "deepfer gate"} | {key: str(count) for key, count in counts.items()})
    for ruling in rulings:
        reason = NO_XML.sub("\ufffd", ruling.reason)
        case = ET.SubElement(suite, "testcase", classname="deepfer.gate", name=ruling.rule)
        if ruling.verdict == "fail":
            ET.SubElement(case, "failure", message=reason)
        elif ruling.verdict == "inconclusive":
            ET.SubElement(case, "error", type="inconclusive", message=reason)
        ET.SubElement(case, "system-out").text = reason
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


PAIR_HEADER = ("figure", "challenger", "champion", "difference", "95 % interval")
CLASS_HEADER = ("recall %", "challenger", "champion", "difference", "won/lost", "p (Holm)", "images")
RULE_HEADER = ("rule", "verdict", "reason")


def pair_rows(found: Evidence) -> list[list[str]]:
    """The headline figures of both models with the paired difference; shares in per cent, differences in points."""
    sides = [one for one in (found.challenger, found.champion) if one is not None]
    rows = []
    for name, title in DIFFERENCES.items():
        scale, digits = (100, 1) if title.endswith("%") else (1, 3)
        values = [f"{scale * getattr(side.metrics, name):.{digits}f}" for side in sides]
        if found.comparison is not None:
            values += found.comparison.difference(name).shown(scale, digits)
        elif scale == 100:
            values += ["–", "–", interval(*getattr(found.challenger.metrics.intervals, name))]
        rows.append([title, *values])
    rows.append(["ECE, %", *(percent(side.metrics.ece) for side in sides)])
    rows.append(["size, MB", *(f"{side.model.size_mb:.2f}" for side in sides)])
    times = [f"{ms:.2f}" for ms in (found.latency.challenger_ms, found.latency.champion_ms) if ms is not None]
    rows.append(["latency, ms", *times, *([] if found.latency.ratio is None else [f"× {found.latency.ratio:.2f}"])])
    return [[*row, *["–"] * (len(PAIR_HEADER) - len(row))] for row in rows]


def class_rows(found: Evidence) -> list[list[str]]:
    """Recall of each class for both, the difference in points, wins and losses, Holm's p; none without a champion."""
    rows = []
    for row in found.comparison.classes if found.comparison is not None else ():
        shares = [percent(row.challenger), percent(row.champion), f"{100 * row.difference:+.1f}"]
        p = f"{row.p_holm:.3f}" if row.p_holm >= 0.001 else "<0.001"
        rows.append([row.label, *shares, f"{row.wins}/{row.losses}", p, str(row.n)])
    return rows


def rule_rows(rulings: Sequence[Ruling]) -> list[list[str]]:
    """One row a rule."""
    return [[ruling.rule, ruling.verdict, ruling.reason] for ruling in rulings]


def verdict_lines(result: GateResult) -> list[str]:
    """The verdict and what it rests on, a sentence each."""
    found = result.evidence
    data, pair = found.dataset, found.comparison
    n = found.challenger.metrics.n
    lines = [f"{result.verdict.upper()}: {found.challenger.model.name} on {data.name}, split {data.split}, n = {n:,}"]
    lines += _without_champion(found.stand_in, pair is None)
    if pair is not None:
        lines.append(
            f"Alone right: challenger {pair.wins}, champion {pair.losses}; exact McNemar p = {pair.mcnemar_p:.3g}. "
            f"Differences below {100 * pair.decision.resolution:.2f} points cannot be told from none on this test set."
        )
    if result.other is not None:
        lines += other_lines(result.other, found.labels_of)
    if result.promotion is not None:
        before = result.promotion.decided_before
        lines.append(f"This test set has decided {before} times before here; each time makes it less independent.")
        if result.promotion.promoted_to is not None:
            lines.append(f"Promoted to {result.promotion.promoted_to}.")
    return lines


def other_lines(other: OtherLabels, decided: LabelsOf) -> list[str]:
    """How the split was corrected, which labels decided, and what the others say, a sentence each."""
    found = other.evidence
    sides = [("challenger", found.challenger), ("champion", found.champion)]
    scores = (f"{who} {percent(one.metrics.top1)} %" for who, one in sides if one is not None)
    said = (
        f"By the {found.labels_of} ones the verdict would be {other.verdict}: top-1 of the {', of the '.join(scores)}"
    )
    n = f"n = {found.challenger.metrics.n:,}"
    return [*other.how.lines(found.dataset.split), f"The {decided} labels decided (--judge).", f"{said}, {n}."]


def _without_champion(stand_in: StandIn | None, alone: bool) -> list[str]:
    if stand_in is None:
        return ["There is no champion yet: the challenger was held to its floors alone."] if alone else []
    if stand_in.refused is None:
        return [f"There is no champion yet: the shipped {stand_in.model} stood in for one."]
    reason = f"There is no champion yet, and the shipped {stand_in.model} cannot stand in for one: {stand_in.refused}."
    return [reason, "So the challenger was held to the largest class; floors of your own would ask for more."]


def summary(result: GateResult) -> str:
    """The Markdown summary, cut to SUMMARY_BYTES."""
    found = result.evidence
    first, *rest = verdict_lines(result)
    sides = [("challenger", found.challenger), ("champion", found.champion)]
    named = [f"{role} {one.model.path} ({one.model.sha256[:12]})" for role, one in sides if one is not None]
    fingerprint = found.dataset.fingerprint[:12]
    rest.append(f"Scored now, on the same images: {', '.join(named)}; data fingerprint {fingerprint}.")
    parts = [f"## deepfer gate: {_cell(first)}", ""]
    for line in rest:
        parts += [_cell(line), ""]
    parts += _markdown(RULE_HEADER, rule_rows(result.rulings))
    parts += _markdown(PAIR_HEADER, pair_rows(found))
    if found.comparison is not None:
        parts += _markdown(CLASS_HEADER, class_rows(found))
    if found.protected is not None and found.protected.broken:
        broken = (f"- `{_cell(path)}`" for path in found.protected.broken)
        parts += ["Protected images that are wrong now:", "", *broken, ""]
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
