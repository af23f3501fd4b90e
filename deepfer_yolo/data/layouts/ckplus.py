"""CK+: posed sequences, subjects kept, no official split.

    cohn-kanade-images/S005/001/S005_001_00000011.png
    Emotion/S005/001/S005_001_00000011_emotion.txt       "   3.0000000e+00"

Of each sequence with an emotion file the last three frames bear its label and the first is neutral. Codes: 0 neutral 1
angry 2 contempt 3 disgust 4 fear 5 happy 6 sad 7 surprise. The copy called CK+48 has the peak frames alone, in class
folders, and no neutral: ``anger/S010_004_00000017.png``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, images_in, read_named, share_named
from deepfer_yolo.data.untrusted import walk_files
from deepfer_yolo.emotions import CKPLUS_CODES

IMAGES, EMOTION = "cohn-kanade-images", "Emotion"
NAME = re.compile(r"(?P<subject>S\d{3})_\d{3}_\d{8}")
N_PEAK = 3
MAX_BYTES = 200
ORIGIN = "Extended Cohn-Kanade (Lucey et al., CVPR Workshops 2010)"


def matches(source: Path) -> bool:
    """True for the original folders, or for class folders whose images are named by subject, sequence and frame."""
    return ((source / IMAGES).is_dir() and (source / EMOTION).is_dir()) or share_named(source, NAME) == 1


def read(reading: Reading) -> Iterator[Item]:
    """The labelled frames; `source_id` is the path inside the tree."""
    if (reading.source / IMAGES).is_dir():
        return _read_sequences(reading)
    return read_named(reading, NAME, None, example="S010_004_00000017")


def _read_sequences(reading: Reading) -> Iterator[Item]:
    root = reading.source
    notes = [note for note in walk_files(root / EMOTION, reading.problems) if _is_note(note.relative_to(root).parts)]
    for done, note in enumerate(notes):
        reading.fraction = done / len(notes)
        subject, sequence = note.parent.parent.name, note.parent.name
        place, label = note.relative_to(root).as_posix(), CKPLUS_CODES.get(_code(note))
        if label is None:
            reading.problems.add(place, "does not hold a code from 0 to 7")
            continue
        folder = root / IMAGES / subject / sequence
        frames = list(images_in(folder, reading)) if folder.is_dir() else []
        if len(frames) <= N_PEAK:
            reading.problems.add(place, f"its sequence has {len(frames)} frames, and more than {N_PEAK} are needed")
            continue
        yield Item.of_file(root, frames[0], "neutral", subject=subject)
        for frame in frames[-N_PEAK:]:
            yield Item.of_file(root, frame, label, subject=subject)


def _is_note(parts: tuple[str, ...]) -> bool:
    """Whether a path inside the data set is like `Emotion/S005/001/S005_001_00000011_emotion.txt`."""
    return len(parts) == 4 and parts[1].startswith("S") and parts[3].endswith("_emotion.txt")


def _code(note: Path) -> int:
    if not note.is_file() or note.stat().st_size > MAX_BYTES:
        return -1
    try:
        return int(float(note.read_text(encoding="ascii", errors="replace").strip()))
    except (ValueError, OverflowError):
        return -1


LAYOUT = Layout("ckplus", "CK+", ORIGIN, "research only, on request", matches, read)
