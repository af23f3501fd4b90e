"""The seven apparent expressions, every spelling and code of them that known data sets use, and how the labels of two
sides meet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

from deepfer_yolo.errors import DatasetError

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
"""Canonical labels in alphabetical order, which is the class index order of folders and models."""

CONTEMPT = "contempt"
"""The eighth label of CK+, FER+ and AffectNet; data sets that carry it train eight-class models."""

# Integer codes by data set, from each data set's own documentation.
FER2013_CODES = {0: "angry", 1: "disgust", 2: "fear", 3: "happy", 4: "sad", 5: "surprise", 6: "neutral"}
EXPW_CODES = FER2013_CODES
RAFDB_CODES = {1: "surprise", 2: "fear", 3: "disgust", 4: "happy", 5: "sad", 6: "angry", 7: "neutral"}
AFFECTNET_CODES = {0: "neutral", 1: "happy", 2: "sad", 3: "surprise", 4: "fear", 5: "disgust", 6: "angry", 7: CONTEMPT}
AFFECTNET_NO_EXPRESSION = {8: "none", 9: "uncertain", 10: "no-face"}
CKPLUS_CODES = {0: "neutral", 1: "angry", 2: CONTEMPT, 3: "disgust", 4: "fear", 5: "happy", 6: "sad", 7: "surprise"}
JAFFE_CODES = dict(zip(("AN", "DI", "FE", "HA", "NE", "SA", "SU"), EMOTIONS, strict=True))
KDEF_CODES = {**{k: v for k, v in JAFFE_CODES.items() if k != "FE"}, "AF": "fear"}
FERPLUS_COLUMNS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", CONTEMPT, "unknown", "not-a-face")
"""The vote columns of ``fer2013new.csv`` after ``Usage, Image name``, in file order."""

_SPELLINGS = {
    "angry": "anger angry an ang mad",
    "disgust": "disgust disgusted di dis",
    "fear": "fear fearful afraid scared fe fea af",
    "happy": "happy happiness joy joyful ha hap",
    "neutral": "neutral neutrality calm normal ne neu",
    "sad": "sad sadness unhappy sa",
    "surprise": "surprise surprised su sur",
    CONTEMPT: "contempt contemptuous",
}
_BY_SPELLING = {spelling: label for label, spellings in _SPELLINGS.items() for spelling in spellings.split()}


@lru_cache(1024)
def canonical_label(name: str) -> str | None:
    """The canonical label for a spelling such as ``Happiness``, ``3_happy`` or ``AFRAID``; None for one not known."""
    word = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", name.strip()).lower()
    return _BY_SPELLING.get(word)


def meeting(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Each of `ours` that `theirs` has too, with its name there: the same one, or another spelling of one expression.

    >>> meeting(("angry", "sad"), ("Sadness", "Contempt"))
    {'sad': 'Sadness'}

    Raises DatasetError where several of one side mean one of the other.
    """
    one, two = _by_meaning(ours), _by_meaning(theirs)
    met: dict[str, str] = {}
    for meaning, names in one.items():
        others = two.get(meaning, names)
        if names != others and (len(names) > 1 or len(others) > 1):
            raise DatasetError(
                f"{', '.join(sorted(names))} and {', '.join(sorted(others))} all mean {meaning}: which meet is unclear",
                "give each of them a name of its own: deepfer convert --map OLD=NEW, deepfer card --labels A,B,…",
            )
        if meaning in two:
            met |= zip(sorted(names), sorted(others), strict=True)
    return {name: met[name] for name in ours if name in met}


def difference(ours: Sequence[str], theirs: Sequence[str], who: tuple[str, str]) -> str:
    """What each side, called as in `who`, knows alone, and all that it knows; empty where all labels meet."""
    sides = ((who[0], ours, meeting(ours, theirs)), (who[1], theirs, meeting(theirs, ours)))
    alone = [(name, labels, [x for x in labels if x not in met]) for name, labels, met in sides]
    parts = [f"{name} alone knows {', '.join(own)}" for name, _, own in alone if own]
    if not parts:
        return ""
    known = "; ".join(f"{name} knows {', '.join(labels)}" for name, labels, _ in alone)
    return f"the labels differ: {'; '.join(parts)} ({known})"


def can_rename(own: Sequence[str], given: Sequence[str]) -> bool:
    """Whether `given` can stand for `own` place by place: as many, and none that means another one."""
    if len(own) != len(given) or len(set(given)) != len(given) or not all(given):
        return False
    old, new = ([canonical_label(name) or name for name in side] for side in (own, given))
    return all(
        a == b or (b not in old and None in (canonical_label(a), canonical_label(b)))
        for a, b in zip(old, new, strict=True)
    )


def _by_meaning(labels: Collection[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for label in labels:
        found.setdefault(canonical_label(label) or label, set()).add(label)
    return found
