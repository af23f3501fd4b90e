"""The folder that a cluster fills: a row an image in parquet files, and which job they belong to.

DIR/job.json        the job; DIR is refused for any other
DIR/items.arrow     what is to be looked at, by its place
DIR/rows/*.parquet  what was found, in any order; `index` is the place
DIR/checkpoint/     which of them are whole, while the job runs
DIR/summary.json    written last: the rows are whole, each once
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from deepfer_yolo.data.shards import MAX_JSON_BYTES, Answers, Job, Parts
from deepfer_yolo.errors import DatasetError, DeepferError, explained_imports
from deepfer_yolo.files import write_atomic
from deepfer_yolo.records import parse_json

JOB, ITEMS, ROWS, CHECKPOINT, SUMMARY = "job.json", "items.arrow", "rows", "checkpoint", "summary.json"
LOG = "ray.log"
ANOTHER = "name another --out, or remove this one"
GO_ON = "the same command with --cluster and the same --out goes on with what is missing"
BATCH, OPEN_FILES = 1024, 4


def answers_in(folder: Path | None) -> Answers | None:
    """The answers that `--merge` names: the parts of `--shard`, or what a cluster has filled."""
    if folder is None:
        return None
    return RowFolder(folder) if is_row_folder(folder) else Parts(folder)


def is_row_folder(folder: Path) -> bool:
    """True for a folder that a cluster fills, or has filled."""
    return (folder / JOB).is_file()


def claim(folder: Path, job: Job) -> bool:
    """Make `folder` the one of a job; True where an earlier run of this very job began it.

    Raises DeepferError for one that is finished, belongs to another job, or holds anything else.
    """
    if is_row_folder(folder):
        if difference := job.difference(_job_of(folder)):
            raise DatasetError(f"is {difference}", ANOTHER, path=folder)
        if (folder / SUMMARY).is_file():
            raise DeepferError(f"{folder} is finished", f"--merge {folder} reads it; or name another --out")
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DeepferError(f"{folder} is not empty, and was not begun by --cluster", ANOTHER)
    (folder / ROWS).mkdir(parents=True, exist_ok=True)
    write_atomic(folder / JOB, job.model_dump_json(indent=1) + "\n")
    return False


def _job_of(folder: Path) -> Job:
    file = folder / JOB
    if file.stat().st_size > MAX_JSON_BYTES:
        raise DatasetError(f"is larger than {MAX_JSON_BYTES // 1_000_000} MB", ANOTHER, path=file)
    try:
        return Job.model_validate_json(file.read_bytes(), strict=True)
    except ValidationError as error:
        raise DatasetError(f"is no job: {error.errors()[0]['msg']}", ANOTHER, path=file) from None


def summary_of(folder: Path) -> Any:
    """What `summary.json` says."""
    return parse_json((folder / SUMMARY).read_text(encoding="utf-8"))


class RowFolder:
    """The rows of a job that a cluster has finished; see `Answers`."""

    def __init__(self, folder: Path) -> None:
        if not (folder / SUMMARY).is_file():
            raise DatasetError("is not finished", GO_ON, path=folder)
        self.folder = folder

    def of(self, job: Job) -> Iterator[Mapping[str, Any]]:
        """What was found of each image, in the order of the list; the rows of a few files are in memory at once."""
        known = _job_of(self.folder)
        if difference := job.difference(known):
            raise DatasetError(f"is {difference}", "name the images, model and settings of that job", path=self.folder)
        return map(_row, _in_order(self.folder, sorted_rows(self.folder, known.n, ["index"])))


def sorted_rows(folder: Path, n: int, columns: list[str]) -> Any:
    """Columns of all rows as a table of pyarrow, ordered by `index`, with the number of the `file` that each stands in
    and its `place` there. Raises DatasetError where they are not the n of the job.
    """
    with explained_imports():
        import pyarrow as pa

    parts = [_read(file, columns) for file in _files(folder)]
    for number, part in enumerate(parts):
        at = [pa.array(np.full(len(part), number)), pa.array(np.arange(len(part)))]
        parts[number] = part.append_column("file", at[0]).append_column("place", at[1])
    none = pa.table(dict.fromkeys(("index", "file", "place"), pa.array([], pa.int64())))
    table = pa.concat_tables(parts).sort_by("index") if parts else none
    indices = table["index"].to_numpy()
    if len(indices) != n or not np.array_equal(indices, np.arange(n)):
        n_met = len(np.unique(indices))
        reason = f"holds {len(indices):,} rows of {n_met:,} images, and the job has {n:,}"
        raise DatasetError(reason, GO_ON if n_met == len(indices) else ANOTHER, path=folder)
    return table


def _files(folder: Path) -> list[Path]:
    return sorted((folder / ROWS).glob("*.parquet"))


def _read(file: Path, columns: list[str] | None = None) -> Any:
    """One file: a data set over all would take the folder's name for a column where it has a `=`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file).read(columns=columns)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DatasetError(f"holds rows that cannot be read ({error})", GO_ON, path=file) from None


def _in_order(folder: Path, table: Any) -> Iterator[dict[str, Any]]:
    """The whole rows of a table of `sorted_rows`. Blocks of a run that went on lie among those of the one before."""
    files, (file_of, place_of) = _files(folder), (table[name].to_numpy() for name in ("file", "place"))
    read = functools.lru_cache(OPEN_FILES)(_read)
    starts = np.flatnonzero(np.diff(file_of, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(file_of)], strict=True):
        rows = read(files[file_of[start]]).take(place_of[start:end])
        for at in range(0, len(rows), BATCH):
            yield from rows.slice(at, BATCH).to_pylist()


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it stands in a part: what is empty left out, inner records as they were."""
    found = {key: value for key, value in row.items() if value is not None}
    if isinstance(notes := found.get("notes"), str):
        found["notes"] = json.loads(notes)
    if "rows" in found:
        found["rows"] = [{key: value for key, value in one.items() if value is not None} for one in found["rows"]]
    return found
