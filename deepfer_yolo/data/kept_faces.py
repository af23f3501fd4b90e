"""The folder of `stream --sink review=DIR`: faces that a model was unsure of, kept to be labelled, and for how long.

train/happy/clip-0-000120-3-20261128T021010Z-0.png    manifest.csv    dataset.json

It is a data set folder: an image stands in train under the model's own answer, until a person says otherwise. Its name
says when it was kept, dataset.json for how many days. What is older goes whenever the folder is opened to be written or
reviewed, as does what a killed run left that no manifest names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from deepfer_yolo.config import MAX_KEEP_DAYS
from deepfer_yolo.data.dataset import Description, Row, is_dataset, read_description, read_manifest, register
from deepfer_yolo.data.untrusted import printable, safe_name
from deepfer_yolo.errors import DatasetError, DeepferError
from deepfer_yolo.files import MOMENT_S, hold, refuse_existing, write_atomic

LAYOUT = "stream-review"
KEEP_DAYS = "keep_days"
SPLIT = "train"
MAX_IMAGES = 10_000
"""More than anyone reviews; a camera that runs for weeks must not fill the disk."""
STAMP = "%Y%m%dT%H%M%SZ"
NAME = re.compile(r"[A-Za-z0-9._-]+-(\d{8}T\d{6}Z)-\d+\.png")
ELSEWHERE = "name a new folder, or one that --sink review=DIR made"


def consent(days: int) -> str:
    """What whoever keeps faces must know; it stands in the folder, too."""
    return (
        "faces of people, kept so that their labels can be corrected: only with the consent of those who are shown, or "
        f"on another ground that the law gives; each goes {days} {'day' if days == 1 else 'days'} after it was kept, "
        "when the stream or deepfer review next opens the folder"
    )


def is_kept_faces(folder: Path) -> bool:
    """Whether a stream made this data set folder."""
    return is_dataset(folder) and read_description(folder).options.get("layout") == LAYOUT


def refuse_other(folder: Path) -> None:
    """Raise DeepferError where faces cannot be kept in `folder`: it is a file or link, or holds something else."""
    refuse_existing(folder, overwrite=True)
    if folder.is_dir() and any(folder.iterdir()) and not is_kept_faces(folder):
        raise DeepferError(f"the folder holds something else than a stream's faces: {folder}", ELSEWHERE)


@dataclass(slots=True)
class KeptFaces:
    """An open folder; `save` writes what `add` took into the manifest."""

    folder: Path
    description: Description
    rows: list[Row]
    n_removed: int = 0
    is_saved: bool = True
    _known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known = {row.sha256 for row in self.rows}

    @property
    def is_full(self) -> bool:
        """Whether it takes no more."""
        return len(self.rows) >= MAX_IMAGES

    def add(self, content: bytes, row: Row, stem: str, now: datetime) -> bool:
        """Keep a PNG as `row` says, whose path and hash are set here; False where it is there already."""
        digest = sha256(content).hexdigest()
        if digest in self._known:
            return False
        self._known.add(digest)
        path = f"{SPLIT}/{safe_name(row.label)}/{stem}-{now.strftime(STAMP)}-{len(self.rows)}.png"
        write_atomic(self.folder / path, content)
        self.rows.append(replace(row, path=path, split=SPLIT, sha256=digest))
        self.is_saved = False
        return True

    def save(self) -> None:
        """Write manifest and description, if anything is new."""
        if not self.is_saved:
            self.description = register(self.rows, self.description, self.folder)
            self.is_saved = True


@contextmanager
def kept_faces(folder: Path, labels: Sequence[str], keep_days: int, now: datetime) -> Iterator[KeptFaces]:
    """The folder, made where it is not there, without what is too old, and saved at the end.

    Of its own days and `keep_days` the fewer hold. Raises DeepferError where it holds something else, other labels or
    links, or another process writes it.
    """
    refuse_other(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        if not is_dataset(folder):
            options = {"layout": LAYOUT, KEEP_DAYS: keep_days}
            made = Description(name=folder.name, source="deepfer stream", labels=tuple(sorted(labels)), options=options,
                               notes=(consent(keep_days),), fingerprint="")  # fmt: skip
            register([], made, folder)
        kept = _without_old(folder, keep_days, now)
        if set(kept.description.labels) != set(labels):
            reason = f"the faces in {folder} have other labels than the model: {', '.join(kept.description.labels)}"
            raise DatasetError(printable(reason), "name another folder for this model")
        try:
            yield kept
        finally:
            kept.save()


def remove_old(folder: Path, now: datetime | None = None) -> int:
    """Remove the faces that were kept long enough, and return their number; nothing in a folder of another kind, or
    while a stream writes it, which has removed them itself.
    """
    if not is_kept_faces(folder):
        return 0
    try:
        with _alone(folder):
            kept = _without_old(folder, MAX_KEEP_DAYS, now or datetime.now(UTC))
            kept.save()
            return kept.n_removed
    except BlockingIOError:
        return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        handle = hold(folder, wait_s=MOMENT_S)
    except BlockingIOError as error:
        error.strerror = f"another process keeps faces in {folder}"
        raise
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _without_old(folder: Path, keep_days: int, now: datetime) -> KeptFaces:
    """The folder without the images that are too old, and those that its manifest does not name."""
    described = read_description(folder)
    own = described.options.get(KEEP_DAYS)
    if not isinstance(own, int) or isinstance(own, bool) or not 1 <= own <= MAX_KEEP_DAYS:
        reason = f"options.{KEEP_DAYS} must be 1 to {MAX_KEEP_DAYS}, not {printable(str(own)[:40])}"
        raise DatasetError(reason, ELSEWHERE, path=folder)
    days = min(own, keep_days)
    oldest = now - timedelta(days=days)
    rows = {row.path: row for row in read_manifest(folder)}
    for row in rows.values():
        if not _is_own(row, described.labels):
            reason = f"names '{printable(row.path[:200])}', which no stream wrote"
            raise DatasetError(reason, ELSEWHERE, path=folder)
    there = _images(folder)
    left = {path: file for path, (file, kept_at) in there.items() if path in rows and kept_at > oldest}
    for path in there.keys() - left.keys():
        there[path][0].unlink()
    if days < own:
        described = described.model_copy(
            update={"options": {**described.options, KEEP_DAYS: days}, "notes": (consent(days),)}
        )
    kept = [row for path, row in rows.items() if path in left]
    is_saved = len(kept) == len(rows) and days == own
    return KeptFaces(folder, described, kept, len(there) - len(left), is_saved)


def _is_own(row: Row, labels: Sequence[str]) -> bool:
    folder, _, name = row.path.rpartition("/")
    is_placed = row.split == SPLIT and row.label in labels and folder == f"{SPLIT}/{safe_name(row.label)}"
    return is_placed and NAME.fullmatch(name) is not None


def _images(folder: Path) -> dict[str, tuple[Path, datetime]]:
    """The images that a stream wrote, by path, and when. Raises DatasetError for a link, which may lead anywhere."""
    found = {}
    for path in sorted(folder.glob(f"{SPLIT}/*/*")) + sorted(folder.glob(f"{SPLIT}/*")) + [folder / SPLIT]:
        if path.is_symlink():
            raise DatasetError(f"is a link: {printable(str(path))}", ELSEWHERE, path=folder)
        if (name := NAME.fullmatch(path.name)) and path.is_file():
            try:
                kept_at = datetime.strptime(name[1], STAMP).replace(tzinfo=UTC)
            except ValueError:
                continue
            found[path.relative_to(folder).as_posix()] = (path, kept_at)
    return found
