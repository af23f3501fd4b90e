"""CK+: posed sequences, subjects kept, no official split.

    cohn-kanade-images/S005/001/S005_001_00000011.png    Emotion/S005/001/S005_001_00000011_emotion.txt   ("
    3.0000000e+00")

Of each sequence with an emotion file the last three frames bear its label and the first is neutral. Codes: 0 neutral 1
angry 2 contempt 3 disgust 4 fear 5 happy 6 sad 7 surprise. The copy called CK+48 has the peak frames alone, in class
folders, and no neutral: ``anger/S010_004_00000017.png``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, first_pictures, pictures
from deepfer_yolo.emotions import CKPLUS_CODES

IMAGES, EMOTION = "cohn-kanade-images", "Emotion"
NAME = re.compile(r"(S\d{3})_\d{3}_\d{8}")
N_PEAK = 3
MAX_BYTES = 200


def matches(source: Path) -> bool:
    """True for the original folders, or for class folders whose pictures are named by subject, sequence and frame."""
    if not source.is_dir():
        return False
    if (source / IMAGES).is_dir() and (source / EMOTION).is_dir():
        return True
    first = first_pictures(source)
    return bool(first) and all(NAME.fullmatch(path.stem) for path in first)


def read(reading: Reading) -> Iterator[Item]:
    """The labelled frames; `source_id` is the path inside the tree."""
    root = reading.source
    if (root / IMAGES).is_dir():
        yield from _read_sequences(reading)
        return
    for path in pictures(root, reading.problems):
        name = NAME.fullmatch(path.stem)
        inside = path.relative_to(root).as_posix()
        if name is None:
            reading.problems.add(inside, "the name is not like S010_004_00000017")
        else:
            yield Item(path.parent.name, "", path.stem, inside, file=path, source_id=inside, subject=name[1])


def _read_sequences(reading: Reading) -> Iterator[Item]:
    root = reading.source
    notes = sorted((root / EMOTION).glob("S*/*/*_emotion.txt"))
    for done, note in enumerate(notes):
        reading.fraction = done / len(notes)
        subject, sequence = note.parent.parent.name, note.parent.name
        place = note.relative_to(root).as_posix()
        code = _code(note)
        if code not in CKPLUS_CODES:
            reading.problems.add(place, "does not hold a code from 0 to 7")
            continue
        folder = root / IMAGES / subject / sequence
        frames = list(pictures(folder, reading.problems)) if folder.is_dir() else []
        if len(frames) <= N_PEAK:
            reading.problems.add(place, f"its sequence has {len(frames)} frames, and more than {N_PEAK} are needed")
            continue
        for frame in (frames[0], *frames[-N_PEAK:]):
            label = "neutral" if frame is frames[0] else CKPLUS_CODES[code]
            inside = frame.relative_to(root).as_posix()
            yield Item(label, "", frame.stem, inside, file=frame, source_id=inside, subject=subject)


def _code(note: Path) -> int:
    if not note.is_file() or note.stat().st_size > MAX_BYTES:
        return -1
    try:
        return int(float(note.read_text(encoding="ascii", errors="replace").strip()))
    except (ValueError, OverflowError):
        return -1


LAYOUT = Layout(
    "ckplus",
    "CK+",
    "Extended Cohn-Kanade (Lucey et al., CVPR Workshops 2010)",
    "research only, on request",
    matches,
    read,
)
