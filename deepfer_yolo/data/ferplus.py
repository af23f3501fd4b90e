"""FER+ votes joined to FER2013 by row (Barsoum et al., arXiv:1608.01041; https://github.com/microsoft/FERPlus).

Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.untrusted import Problems, csv_rows, open_list, small_number
from deepfer_yolo.emotions import FERPLUS_COLUMNS
from deepfer_yolo.errors import DatasetError

Votes = dict[str, int]

USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
"""Splits by the Usage column that FER2013 and FER+ share."""
NOT_EMOTIONS = ("unknown", "not-a-face")
N_COLUMNS = 2 + len(FERPLUS_COLUMNS)


def read_ferplus(file: Path) -> list[tuple[str, Votes]]:
    """(split, votes by label) of each row of ``fer2013new.csv``. Raises DatasetError with every bad line."""
    if not file.is_file():
        raise DatasetError("no such FER+ file", "fer2013new.csv from https://github.com/microsoft/FERPlus", path=file)
    problems, rows = Problems(), []
    with open_list(file) as text:
        read = csv_rows(text, file)
        header = next(read, (0, []))[1]
        if len(header) != N_COLUMNS or header[0].strip() != "Usage":
            columns = "Usage,Image name,neutral,happiness,…,unknown,NF"
            raise DatasetError("not the header of fer2013new.csv", columns, path=file, line=1)
        for number, values in read:
            place, votes = f"{file.name}, line {number}", votes_of(values[2:])
            if len(values) != N_COLUMNS:
                problems.add(place, f"{len(values)} values where {N_COLUMNS} belong")
            elif values[0] not in USAGES:
                problems.add(place, f"Usage is '{values[0][:40]}', not one of {', '.join(USAGES)}")
            elif votes is None:
                problems.add(place, "votes must be whole numbers")
            else:
                rows.append((USAGES[values[0]], votes))
    problems.raise_if_any("fetch fer2013new.csv again")
    return rows


def votes_of(values: Sequence[str]) -> Votes | None:
    """Votes by label from the numbers in FER+'s order; None where they are anything else."""
    counts = [small_number(value) for value in values]
    return (
        dict(zip(FERPLUS_COLUMNS, counts, strict=True)) if len(counts) == N_COLUMNS - 2 and min(counts) >= 0 else None
    )


def voted(votes: Votes, original: str, options: ConvertConfig) -> tuple[str | None, str]:
    """The label that `options` ask for and the votes to keep with it; None and why where the image is left out."""
    if options.drop_unknown and is_unknown(votes):
        return None, "FER+ unknown or not a face"
    if options.labels == "ferplus-majority":
        label, text = majority(votes), ""
    else:
        keeps = options.labels == "original" and original
        label, text = original if keeps else plurality(votes, original), votes_text(votes)
    return label, text if label else "no FER+ majority"


def majority(votes: Votes) -> str | None:
    """The paper's rule: single votes are noise; what has more than half of the rest wins.

    None: no majority, unknown, or not a face.
    """
    kept = {label: count for label, count in votes.items() if count > 1}
    winner = max(kept, key=lambda label: kept[label], default="unknown")
    return None if winner in NOT_EMOTIONS or 2 * kept[winner] <= sum(kept.values()) else winner


def clear_winner(votes: Mapping[str, int]) -> str | None:
    """The label, unknown and not-a-face included, that has more votes than any other; None where none has."""
    ranked = sorted(votes.values(), reverse=True)
    is_clear = bool(ranked) and ranked[0] > (ranked[1] if len(ranked) > 1 else 0)
    return max(votes, key=lambda label: votes[label]) if is_clear else None


def plurality(votes: Votes, original: str) -> str | None:
    """The emotion with the most votes, the original label among equals; None where no emotion has any."""
    emotions = {label: count for label, count in votes.items() if label not in NOT_EMOTIONS and count}
    if not emotions:
        return None
    best = [label for label, count in emotions.items() if count == max(emotions.values())]
    return original if original in best else min(best)


def is_unknown(votes: Votes) -> bool:
    """True where the voters mostly saw no known emotion, or no face."""
    most = max(votes.values())
    return any(votes[label] == most for label in NOT_EMOTIONS)


def votes_text(votes: Votes) -> str:
    """Votes as the manifest keeps them: ``label:count`` with blanks between, labels without votes left out."""
    return " ".join(f"{label}:{count}" for label, count in votes.items() if count)


def parse_votes(text: str) -> Votes:
    """The inverse of `votes_text`. Raises DatasetError where it is something else."""
    try:
        return {label: int(count) for label, _, count in (part.rpartition(":") for part in text.split())}
    except ValueError:
        reason = f"votes must be 'label:count label:count', not '{text[:60]}'"
        raise DatasetError(reason, "convert the source again") from None
