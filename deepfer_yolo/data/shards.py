"""One job in parts, where no engine spreads it: `--shard i/n` does a part, `--merge DIR` puts all of them together.

    DIR/2-of-4.jsonl   a line an image: its place in the list of all images, and what was found
    DIR/2-of-4.json    the job that it is a part of, and the SHA-256 of the lines; written last, so that it says: whole

Every part lists all images itself and takes those whose names hash to it, wherever they are mounted.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, Field, JsonValue, ValidationError

from deepfer_yolo.data.untrusted import bounded_lines, open_list
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.files import atomic_path, sha256_of, write_atomic

MAX_SHARDS = 10_000
MAX_JSON_BYTES = 1_000_000
FILE_NAME = re.compile(r"(\d{1,5})-of-(\d{1,5})\.json")
AGAIN = "run the missing --shard again, with the same images, model and settings, into the same --out"


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of `count` parts of a job, `number` from 1 on."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `2/4` names. Raises ConfigError for any other text."""
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text, re.ASCII)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count <= MAX_SHARDS:
            reason = f"--shard takes I/N, from 1/N to N/N, N at most {MAX_SHARDS:,}, not '{text}'"
            raise ConfigError(reason, "the second of four parts: --shard 2/4")
        return cls(number, count)

    def has(self, name: str) -> bool:
        """Whether what is called `name` belongs to this shard: one and only one of `count` says yes, on any machine."""
        key = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(key, "big") % self.count == self.number - 1

    @property
    def stem(self) -> str:
        """What its files are called, but for the suffix."""
        return f"{self.number}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(slots=True)
class Names:
    """The names of all images of a job, as they come by: how many, and a SHA-256 over them in order."""

    n: int = 0
    total: Any = field(default_factory=hashlib.sha256)

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """All of `names`."""
        found = cls()
        for name in names:
            found.add(name)
        return found

    def add(self, name: str) -> None:
        """Take the next one."""
        self.n += 1
        self.total.update(name.encode("utf-8", "surrogateescape") + b"\0")


class Job(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """What all parts have in common: the command, the SHA-256 of the model, the settings that decide what is found, and
    the images: how many, and a SHA-256 over their names in order.
    """

    command: str
    model: str = ""
    settings: dict[str, JsonValue] = {}
    n: int = Field(0, ge=0)
    images: str = ""

    def over(self, names: Names) -> Job:
        """The same job over the images of these names."""
        return self.model_copy(update={"n": names.n, "images": names.total.hexdigest()})

    def difference(self, other: Job) -> str:
        """In what `other` is another job than this one, in words; empty where it is the same. Where the images are not
        known yet (`images` is empty), they are not compared.
        """
        if other.command != self.command:
            return f"of {other.command}, not of {self.command}"
        if other.model != self.model:
            return f"of another model: SHA-256 {other.model[:12] or 'none'}, not {self.model[:12] or 'none'}"
        for key in sorted({*self.settings, *other.settings}):
            here, there = self.settings.get(key), other.settings.get(key)
            if here != there:
                return f"made with other settings: {key} {json.dumps(there)[:80]}, not {json.dumps(here)[:80]}"
        if self.images and (other.n, other.images) != (self.n, self.images):
            what = "as many, with other names or in another order" if other.n == self.n else f"{self.n:,}"
            return f"of other images: {other.n:,} in all, here {what}"
        return ""


class Part(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """What `2-of-4.json` holds."""

    schema_version: int = Field(1, ge=1, le=1)
    number: int
    count: int
    job: Job
    n_rows: int
    sha256: str

    @property
    def shard(self) -> Shard:
        """Which one it says it is."""
        return Shard(self.number, self.count)


class Answers(Protocol):
    """What was found of every image of a job, by whatever ran it."""

    def of(self, job: Job) -> Iterator[Mapping[str, Any]]:
        """What was found of each image, in their order, the place in the list under `index`.

        Raises DatasetError where it belongs to another job than this one (see `Job.difference`), or is not whole.
        """
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command shall do of a job: a part, all of it over a `cluster`, or take the answers that are in `merge`."""

    shard: Shard | None = None
    cluster: str = ""
    out: Path = Path()
    merge: Path | None = None


def asked_of(shard: str | None, cluster: str | None, out: Path | None, merge: Path | None) -> Asked:
    """What these flags ask for. Raises ConfigError where they do not go together."""
    given = [flag for flag, value in (("--shard", shard), ("--cluster", cluster), ("--merge", merge)) if value]
    if len(given) > 1:
        reason = f"{' and '.join(given)}: --shard does a part, --cluster all of it, --merge puts together what was done"
        raise ConfigError(reason, "leave one of them out")
    if out is None and (shard or cluster):
        raise ConfigError(f"{given[0]} needs a folder to write into", f"add --out {'parts' if shard else 'rows'}")
    if out is not None and not (shard or cluster):
        raise ConfigError("--out is the folder of --shard or --cluster: both are missing", "--shard 2/4 --out parts")
    return Asked(Shard.parse(shard) if shard else None, cluster or "", out or Path(), merge)


def check_folder(folder: Path, shard: Shard, job: Job) -> None:
    """Raise, before any work, where `folder` holds parts of another job."""
    for file in _part_files(folder):
        part = _read_part(file)
        if part.count != shard.count:
            raise DatasetError(f"is a part of {part.count}, not of {shard.count}", "name another --out", path=file)
        if difference := job.difference(part.job):
            raise DatasetError(f"is {difference}", "name another --out", path=file)


def write_part(folder: Path, shard: Shard, job: Job, rows: Iterable[Mapping[str, JsonValue]]) -> Part:
    """Write the rows of a part, which have their places under `index`, and then what they are a part of."""
    n = 0
    file = folder / f"{shard.stem}.jsonl"
    with atomic_path(file) as unfinished, unfinished.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row, separators=(",", ":")) + "\n")
            n += 1
        lines.flush()
    part = Part(number=shard.number, count=shard.count, job=job, n_rows=n, sha256=sha256_of(file))
    write_atomic(folder / f"{shard.stem}.json", part.model_dump_json(indent=1) + "\n")
    return part


class Parts:
    """The parts of one job in a folder: all of them, each once. Raises DatasetError that names what is wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = {file: _read_part(file) for file in _part_files(folder)}
        if not self._parts:
            hint = "--shard I/N --out DIR writes them"
            raise DatasetError("holds no parts of a job", hint, path=folder)
        first, one = next(iter(self._parts.items()))
        seen: dict[Shard, Path] = {}
        for file, part in self._parts.items():
            if part.count != one.count:
                reason = f"is a part of {part.count}, and {first.name} one of {one.count}"
                raise DatasetError(reason, "leave one set of parts in the folder", path=file)
            if part.shard in seen:
                reason = f"says that it is part {part.shard}, and so does {seen[part.shard].name}"
                raise DatasetError(reason, AGAIN, path=file)
            seen[part.shard] = file
            if file.stem != part.shard.stem:
                raise DatasetError(f"says that it is part {part.shard}: it was renamed", AGAIN, path=file)
        missing = [str(shard) for number in range(1, one.count + 1) if (shard := Shard(number, one.count)) not in seen]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise DatasetError(f"lacks the parts {', '.join(missing[:5])}{more}", AGAIN, path=folder)

    def of(self, job: Job) -> Iterator[Mapping[str, Any]]:
        """See `Answers`."""
        first, *_ = self._parts.values()
        job = job if job.images else job.model_copy(update={"n": first.job.n, "images": first.job.images})
        for file, part in self._parts.items():
            if difference := job.difference(part.job):
                raise DatasetError(f"is {difference}", AGAIN, path=file)
            rows = file.with_suffix(".jsonl")
            if not rows.is_file() or sha256_of(rows) != part.sha256:
                raise DatasetError(f"is missing, or not what {file.name} was written for", AGAIN, path=rows)
        return self._in_order(job)

    def _in_order(self, job: Job) -> Iterator[Mapping[str, Any]]:
        read = [_rows(file.with_suffix(".jsonl")) for file in self._parts]
        n = 0
        for row in heapq.merge(*read, key=lambda row: row["index"]):
            if row["index"] != n:
                what = "two answers" if row["index"] < n else "no answer"
                raise DatasetError(f"has {what} to image {min(n, row['index'])}", AGAIN, path=self.folder)
            n += 1
            yield row
        if n != job.n:
            raise DatasetError(f"has answers to {n:,} images of {job.n:,}", AGAIN, path=self.folder)


def wrong_row(image: Path | str) -> DatasetError:
    """The error for an answer that holds something else than it should."""
    return DatasetError("what the parts say of it is no answer of this command", AGAIN, path=image)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with open_list(file) as text:
        for number, line in enumerate(bounded_lines(text, file), 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("index"), int):
                raise DatasetError("is no row of a part", AGAIN, path=file, line=number)
            yield row


def _part_files(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        return []
    found = [(FILE_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return [path for _, _, path in sorted((int(name[2]), int(name[1]), path) for name, path in found if name)]


def _read_part(file: Path) -> Part:
    if file.stat().st_size > MAX_JSON_BYTES:
        raise DatasetError(f"is larger than {MAX_JSON_BYTES // 1_000_000} MB", AGAIN, path=file)
    try:
        return Part.model_validate_json(file.read_bytes(), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"is no part of a job: {'.'.join(map(str, fault['loc']))} {fault['msg']}"
        raise DatasetError(reason, AGAIN, path=file) from None
