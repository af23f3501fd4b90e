"""RAF-DB, basic emotions, aligned pictures.

    EmoLabel/list_patition_label.txt     lines "train_00001.jpg 5" (the file's name is spelt so)
    Image/aligned/train_00001_aligned.jpg

A common copy keeps the codes as folders: ``DATASET/train/5/train_00001_aligned.jpg``. Codes: 1 surprise 2 fear 3
disgust 4 happy 5 sad 6 angry 7 neutral. The official split is train and test; RAF-DB has no val: `--split` makes one of
everything, or train on train and compare on test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deepfer_yolo.data.layouts.item import Item, Layout, Reading, pictures
from deepfer_yolo.data.untrusted import bounded_lines
from deepfer_yolo.emotions import RAFDB_CODES
from deepfer_yolo.errors import SENTENCE, DatasetError

LIST = "EmoLabel/list_patition_label.txt"
SPLITS = ("train", "test")
CODES = {str(code): label for code, label in RAFDB_CODES.items()}


def matches(source: Path) -> bool:
    """True for the original folders (also inside ``basic``), or for the copy with code folders under train."""
    return _root(source) is not None or _copy(source) is not None


def read(reading: Reading) -> Iterator[Item]:
    """The pictures of the list, or of the code folders; `source_id` is the original file's name."""
    root, copy = _root(reading.source), _copy(reading.source)
    if root is not None:
        yield from _read_list(reading, root)
    elif copy is not None:
        yield from _read_copy(reading, copy)
    else:
        raise DatasetError(
            f"has no {LIST} and no DATASET/train/1 to 7", "unpack basic.zip first", path=reading.source, form=SENTENCE
        )


def _read_list(reading: Reading, root: Path) -> Iterator[Item]:
    file = root / LIST
    size = max(1, file.stat().st_size)
    with file.open(encoding="utf-8", errors="replace") as text:
        done = 0
        for number, line in enumerate(bounded_lines(text, file), 1):
            done += len(line)
            reading.fraction = done / size
            words = line.split()
            place = f"{file.name}, line {number}"
            if not words:
                continue
            split = words[0].split("_")[0]
            if len(words) != 2 or split not in SPLITS or words[1] not in CODES or "/" in words[0]:
                reading.problems.add(place, f"not like 'train_00001.jpg 5': '{line.strip()[:60]}'")
                continue
            stem = Path(words[0]).stem
            picture = root / "Image" / "aligned" / f"{stem}_aligned.jpg"
            yield Item(CODES[words[1]], split, stem, place, file=picture, source_id=words[0])


def _read_copy(reading: Reading, root: Path) -> Iterator[Item]:
    folders = [(split, code) for split in SPLITS for code in CODES if (root / split / code).is_dir()]
    for position, (split, code) in enumerate(folders):
        for path in pictures(root / split / code, reading.problems):
            inside = path.relative_to(reading.source).as_posix()
            name = path.name.replace("_aligned", "")
            yield Item(CODES[code], split, Path(name).stem, inside, file=path, source_id=name, key=inside)
        reading.fraction = (position + 1) / len(folders)


def _root(source: Path) -> Path | None:
    return next((root for root in (source, source / "basic") if (root / LIST).is_file()), None)


def _copy(source: Path) -> Path | None:
    return next(
        (root for root in (source, source / "DATASET") if all((root / "train" / code).is_dir() for code in CODES)), None
    )


LAYOUT = Layout(
    "rafdb",
    "RAF-DB",
    "Real-world Affective Faces Database (Li, Deng, CVPR 2017), http://www.whdeld.cn/",
    "research only, on request",
    matches,
    read,
)
