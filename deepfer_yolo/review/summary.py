"""What a file of corrections comes to: counts, how reviewers agree, how consistent each is, which labels changed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from deepfer_yolo.data.corrections import Agreement, Conflict, Consistency, Corrections
from deepfer_yolo.data.decisions import UNDO
from deepfer_yolo.data.untrusted import printable
from deepfer_yolo.records import Json
from deepfer_yolo.report.page import percent

MAX_CONFLICTS = 1000
"""How many conflicts the JSON names; their number is always said."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one file. `moves` are settled images by old and new label, the most first; `median_s` is the time
    of a decision.
    """

    file: str
    digest: str
    is_torn: bool
    counts: Json
    agreement: tuple[Agreement, ...]
    consistency: tuple[Consistency, ...]
    conflicts: tuple[Conflict, ...]
    moves: tuple[tuple[str, str, int], ...]
    median_s: float | None

    def to_json(self) -> Json:
        """The summary as `--json` prints it."""
        return {
            "schema_version": 1,
            "file": printable(self.file),
            "sha256": self.digest,
            "torn": self.is_torn,
            **self.counts,
            "median_s": self.median_s,
            "agreement": [
                {
                    "reviewers": [printable(name) for name in pair.reviewers],
                    "n": pair.n,
                    "agreement": pair.agreement,
                    "kappa": None if math.isnan(pair.kappa) else pair.kappa,
                }
                for pair in self.agreement
            ],
            "consistency": [
                {"reviewer": printable(one.reviewer), "n": one.n, "same": one.same} for one in self.consistency
            ],
            "in_conflict": [
                {
                    "path": printable(conflict.path),
                    "answers": [
                        {"reviewer": printable(one.reviewer), "label": printable(one.new_label)}
                        for one in conflict.decisions
                    ],
                }
                for conflict in self.conflicts[:MAX_CONFLICTS]
            ],
            "moves": [{"from": printable(old), "to": printable(new), "n": n} for old, new, n in self.moves],
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """The summary as (what, figure), for the terminal."""
        for name, words in COUNTS.items():
            yield words, f"{self.counts[name]:,}"
        if self.median_s is not None:
            yield "median time of a decision", f"{self.median_s:.1f} s"
        for pair in self.agreement:
            one, two = (printable(name) or "no name" for name in pair.reviewers)
            kappa = "no kappa: one answer alone" if math.isnan(pair.kappa) else f"Cohen's kappa {pair.kappa:.2f}"
            yield f"{one} and {two}", f"{kappa}, {percent(pair.agreement)} % the same of {pair.n:,}"
        for who in self.consistency:
            name = printable(who.reviewer) or "no name"
            yield f"consistency of {name}", f"{who.same:,} of {who.n:,} shown twice got the same answer"
        for old, new, n in self.moves[:10]:
            yield f"{printable(old)} → {printable(new)}", f"{n:,}"


COUNTS = {
    "decisions": "decisions",
    "images": "images decided",
    "changed": "given another label",
    "kept": "label kept",
    "left_out": "left out",
    "unsure": "unsure",
    "conflicts": "in conflict between reviewers",
    "blind": "settled blind",
    "with_model": "settled with the model's answer in view",
}


def summarise(corrections: Corrections) -> Summary:
    """The summary of a file."""
    moves = Counter((one.old_label, one.new_label) for one in corrections.settled() if one.is_change)
    took = [one.seconds for one in corrections.decisions if one.seconds is not None and one.new_label != UNDO]
    return Summary(
        str(corrections.path),
        corrections.digest,
        corrections.is_torn,
        corrections.counts(),
        corrections.kappa(),
        corrections.consistency(),
        corrections.conflicts(),
        tuple((old, new, n) for (old, new), n in moves.most_common()),
        statistics.median(took) if took else None,
    )
