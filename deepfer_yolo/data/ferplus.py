"""FER+ votes joined to FER2013 by row (Barsoum et al., arXiv:1608.01041; https://github.com/microsoft/FERPlus).

Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0
"""

from __future__ import annotations

from pathlib import Path

from deepfer_yolo.data.untrusted import Problems, csv_rows
from deepfer_yolo.emotions import FERPLUS_COLUMNS
from deepfer_yolo.errors import REASON_FIRST, DatasetError

USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
"""Splits by the Usage column that FER2013 and FER+ share."""

NOT_EMOTIONS = ("unknown", "not-a-face")
N_COLUMNS = 2 + len(FERPLUS_COLUMNS)


def read_ferplus(file: Path) -> list[tuple[str, dict[str, int]]]:
    """(split, votes by label) of each row of ``fer2013new.csv``. Raises DatasetError with every bad line."""
    if not file.is_file():
        raise DatasetError(
            "no such FER+ file",
            "fer2013new.csv from https://github.com/microsoft/FERPlus",
            path=file,
            form=REASON_FIRST,
        )
    problems, rows = Problems(), []
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        read = csv_rows(lines, file)
        header = next(read, (0, []))[1]
        if len(header) != N_COLUMNS or header[0].strip() != "Usage":
            raise DatasetError(
                "not the header of fer2013new.csv", "Usage,Image name,neutral,happiness,…,unknown,NF", path=file, line=1
            )
        for number, values in read:
            place = f"{file.name}, line {number}"
            if len(values) != N_COLUMNS:
                problems.add(place, f"{len(values)} values where {N_COLUMNS} belong")
            elif values[0] not in USAGES:
                problems.add(place, f"Usage is '{values[0][:40]}', not one of {', '.join(USAGES)}")
            elif not all(value.isascii() and value.isdigit() and len(value) < 4 for value in values[2:]):
                problems.add(place, "votes must be whole numbers")
            else:
                rows.append((USAGES[values[0]], dict(zip(FERPLUS_COLUMNS, map(int, values[2:]), strict=True))))
    problems.raise_if_any("fetch fer2013new.csv again")
    return rows


def majority(votes: dict[str, int]) -> str | None:
    """The paper's rule: single votes are noise; what has more than half of the rest wins.

    None: no majority, unknown, or not a face.
    """
    kept = {label: count for label, count in votes.items() if count > 1}
    if not kept:
        return None
    winner = max(kept, key=lambda label: kept[label])
    if 2 * kept[winner] <= sum(kept.values()) or winner in NOT_EMOTIONS:
        return None
    return winner


def plurality(votes: dict[str, int], original: str) -> str | None:
    """The emotion with the most votes, the original label among equals; None where no emotion has any."""
    emotions = {label: count for label, count in votes.items() if label not in NOT_EMOTIONS and count}
    if not emotions:
        return None
    most = max(emotions.values())
    return (
        original if emotions.get(original) == most else min(label for label, count in emotions.items() if count == most)
    )


def is_unknown(votes: dict[str, int]) -> bool:
    """True where the voters mostly saw no known emotion, or no face."""
    most = max(votes.values())
    return any(votes[label] == most for label in NOT_EMOTIONS)


def votes_text(votes: dict[str, int]) -> str:
    """Votes as the manifest keeps them: ``label:count`` with blanks between, labels without votes left out."""
    return " ".join(f"{label}:{count}" for label, count in votes.items() if count)


def parse_votes(text: str) -> dict[str, int]:
    """The inverse of `votes_text`. Raises DatasetError where it is something else."""
    try:
        return {label: int(count) for label, _, count in (part.rpartition(":") for part in text.split())}
    except ValueError:
        raise DatasetError(
            f"votes must be 'label:count label:count', not '{text[:60]}'", "convert the source again"
        ) from None
