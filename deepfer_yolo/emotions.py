"""The seven apparent expressions, and every spelling and code of them that known data sets use."""

from __future__ import annotations

import re
from functools import lru_cache

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
