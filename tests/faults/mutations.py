"""Files as the program reads them, and random changes of their bytes; as a program, the child process that opens ONNX
files, in which a fault of other software would be seen and taken for one.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import re
import shutil
import signal
import sys
import tarfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepfer_yolo.errors import DeepferError

LIMIT_S = 60.0


class HangError(Exception):
    """A mutation took longer than `LIMIT_S`."""


def mutate(content: bytes, chance: random.Random) -> bytes:
    """`content` changed in one of six ways; never the same."""
    place, way = chance.randrange(len(content)), chance.randrange(6)
    if way == 0:
        return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    if way == 1:
        return content[:place]
    if way == 2:
        return content[:place] + chance.choice([b"\0", b'"', b"9", b"\n", b"\xff", b"{", b","]) + content[place:]
    if way == 3:
        return content[:place] + content[place + chance.randrange(1, 9) :]
    if way == 4:
        lines = content.splitlines(keepends=True)
        at = chance.randrange(len(lines))
        return b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])
    words = list(re.finditer(rb"[\w.+-]+", content))
    one, two = sorted(chance.sample(words, 2), key=re.Match.start) if len(words) > 1 else (words[0], words[0])
    exchanged = b"".join(
        [content[: one.start()], two[0], content[one.end() : two.start()], one[0], content[two.end() :]]
    )
    return exchanged if exchanged != content else content[:place] + b"7" + content[place:]


@dataclass(slots=True)
class Tally:
    """What mutations came to; `changed` counts silent acceptances by what differs."""

    n: int = 0
    refused: int = 0
    unchanged: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, outcome: str) -> None:
        """Count one: `refused`, `unchanged`, `changed: …`, or else a fault."""
        self.n += 1
        kind, _, what = outcome.partition(": ")
        if kind == "changed":
            self.changed[what] += 1
        elif outcome in ("refused", "unchanged"):
            setattr(self, outcome, getattr(self, outcome) + 1)
        else:
            self.faults.append(outcome)


@contextmanager
def limited() -> Iterator[None]:
    """Raise HangError in the body where it takes too long."""

    def end(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


Read = Callable[[bytes], dict[str, Any]]
"""Content to what it means, by parts."""


def outcome_of(read: Read, content: bytes, meant: dict[str, Any]) -> str:
    """What reading mutated content comes to."""
    try:
        with limited():
            found = read(content)
    except (DeepferError, Refused):
        return "refused"
    except HangError:
        return "hang"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback {type(error).__name__}: {error} ({place.filename}:{place.lineno})"[:300]
    parts = [part for part in meant if found.get(part) != meant[part]]
    return f"changed: {', '.join(parts)}" if parts else "unchanged"


class Refused(Exception):  # noqa: N818
    """A refusal that is no DeepferError: an answer of HTTP, or a list of problems."""


def try_all(read: Read, content: bytes, n: int, seed: int = 1) -> Tally:
    """Read `n` mutations of `content`."""
    tally, chance = Tally(), random.Random(seed)
    meant = read(content)
    for _ in range(n):
        changed = mutate(content, chance)
        outcome = outcome_of(read, changed, meant)
        tally.add(outcome)
        if outcome not in ("refused", "unchanged") and not outcome.startswith("changed"):
            print(outcome, changed[-200:])
        if len(tally.faults) > 5:
            raise AssertionError(f"mutation {tally.n}, {outcome}: {changed[:300]!r}")
    return tally


# ---- what the program reads -------------------------------------------------------------------------------------


def csv_reader(folder: Path) -> tuple[bytes, Read]:
    """A source: FER2013's csv, converted."""
    from deepfer_yolo.config import ConvertConfig
    from deepfer_yolo.data.convert import convert
    from deepfer_yolo.data.dataset import read_manifest
    from deepfer_yolo.painted import paint_csv

    def read(content: bytes) -> dict[str, Any]:
        (folder / "a.csv").write_bytes(content)
        shutil.rmtree(folder / "out", ignore_errors=True)
        convert(folder / "a.csv", folder / "out", ConvertConfig(val=0, workers=1))
        rows = read_manifest(folder / "out")
        return {
            "number of rows": len(rows),
            "labels": Counter(row.label for row in rows),
            "splits": Counter(row.split for row in rows),
            "pixels": sorted(row.sha256 for row in rows),
        }

    paint_csv(folder / "a.csv", 1, 2, 1)
    return (folder / "a.csv").read_bytes(), read


def small_set(folder: Path) -> Path:
    """A data set of 14 images with subjects and votes."""
    from PIL import Image

    from deepfer_yolo.data.dataset import Description, Row, register
    from deepfer_yolo.emotions import EMOTIONS
    from deepfer_yolo.files import sha256_of
    from deepfer_yolo.painted import paint_faces

    rows = []
    for index, (face, label) in enumerate(zip(*paint_faces(1, 14), strict=True)):
        name = f"{'val' if index > 6 else 'train'}/{EMOTIONS[label]}/{index}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face[::4, ::4]).save(folder / name)
        split, label_name, _ = name.split("/")
        votes = f"{label_name}:9 fear:1" if label_name != "fear" else "fear:10"
        rows.append(Row(name, split, label_name, str(index), f"S{index % 5}", sha256_of(folder / name), votes))
    options = {"layout": "folders", "seed": 0}
    register(
        rows, Description(name="small", labels=tuple(sorted(set(EMOTIONS))), fingerprint="", options=options), folder
    )
    return folder


def dataset_reader(folder: Path, name: str) -> tuple[bytes, Read]:
    """A part of a data set folder: opened, and every image read."""
    from deepfer_yolo.data.dataset import load_images, open_dataset, read_description

    root = small_set(folder / "data")

    def read(content: bytes) -> dict[str, Any]:
        (root / name).write_bytes(content)
        opened, described = open_dataset(root), read_description(root)
        images = [image.tobytes() for image in load_images(opened, opened.all_rows, workers=0)]
        rows = sorted(zip(opened.all_rows, images, strict=True), key=lambda pair: (pair[0].sha256, pair[0].label))
        parts = ("split", "label", "sha256", "source_id", "subject", "votes")
        found = {part: [getattr(row, part) for row, _ in rows] for part in parts}
        return {
            **found,
            "images": [image for _, image in rows],
            "fingerprint": opened.fingerprint,
            **described.to_json(),
        }

    return (root / name).read_bytes(), read


def card_reader(folder: Path) -> tuple[bytes, Read]:
    """A card beside a model file."""
    from deepfer_yolo.runtime.card import Card, Golden, InputSpec, TrainedOn, pack_hashes, read_sidecar, write_sidecar

    (folder / "best.pt").touch()
    golden = Golden(seed=0, n=2, inputs_sha256="0" * 64, probs=[[0.25, 0.75], [0.5, 0.5]])
    card = Card(
        name="small",
        labels=("happy", "sad"),
        input=InputSpec(size=32),
        golden=golden,
        trained_on=TrainedOn(name="faces", fingerprint="1" * 64),
        metrics={"top1": 0.7},
        trained_hashes=pack_hashes(np.arange(9, dtype=np.uint64)),
    )
    path = write_sidecar(card, folder / "best.pt")

    def read(content: bytes) -> dict[str, Any]:
        path.write_bytes(content)
        found = read_sidecar(folder / "best.pt")
        return {**found.model_dump(), "hashes": found.trained_hashes}

    return path.read_bytes(), read


def yaml_reader(folder: Path) -> tuple[bytes, Read]:
    """A configuration file."""
    from deepfer_yolo.presets import resolve
    from deepfer_yolo.servers import ServeConfig

    def read(content: bytes) -> dict[str, Any]:
        (folder / "a.yaml").write_bytes(content)
        found = resolve(ServeConfig, str(folder / "a.yaml")).model_dump()
        return {"values": found}

    text = "host: 127.0.0.1\nport: 8123\nmax_body_mb: 12.5\nrate_per_s: 20\nburst: 40\nallow_host:\n- box.example\n"
    return f"{text}detector: whole\nthreads: 2\n".encode(), read


def metrics_reader(folder: Path) -> tuple[bytes, Read]:
    """The record of a run, as `deepfer runs` lists, shows and compares it."""
    from deepfer_yolo.config import EvaluateConfig
    from deepfer_yolo.runs import create_run, diff_runs, list_row, read_runs, release, write_metrics

    run = create_run("evaluate", "x", EvaluateConfig(), folder)
    values = {"n": 96, "top1": 0.71, "macro_f1": 0.65, "ece": 0.02, "dataset": {"name": "small", "fingerprint": "ab"}}
    path = write_metrics(run, {**values, "confusion": [[3, 1], [0, 4]]})
    release(run)

    def read(content: bytes) -> dict[str, Any]:
        path.write_bytes(content)
        (record,) = read_runs(folder)
        json.dumps([list_row(record), record.to_json(), diff_runs(record, record)])
        if record.problems:
            raise Refused(record.problems)
        return {"figures": record.metrics}

    return path.read_bytes(), read


def corrections_reader(folder: Path) -> tuple[bytes, Read]:
    """What people decided of a data set's images, as `--corrections` applies it."""
    from dataclasses import replace

    from deepfer_yolo.data.corrected import with_corrections
    from deepfer_yolo.data.corrections import read_corrections, write_corrections
    from deepfer_yolo.data.dataset import open_dataset
    from deepfer_yolo.data.decisions import Decision

    dataset = open_dataset(small_set(folder / "small"))
    path = folder / "corrections.csv"
    answers = ("fear", "leave-out", "unsure", "sad")
    for row, answer in zip(dataset.rows("train"), answers, strict=False):
        said = Decision(row.path, row.sha256, row.split, row.label, answer, "Ada", "blur", ("blind",), 0.5)
        write_corrections(path, [replace(said, time="2026-11-28T02:10:16Z")])

    def read(content: bytes) -> dict[str, Any]:
        path.write_bytes(content)
        found = read_corrections(path)
        rows = with_corrections(dataset, found).all_rows
        told = [(one.reviewer, one.why, one.how, one.seconds, one.time) for one in found.decisions]
        return {
            "images left": sorted(row.sha256 for row in rows),
            "labels": sorted((row.sha256, row.label) for row in rows),
            "decisions": {one.image: (one.old_label, one.new_label) for one in found.settled()},
            "words about them": told,
        }

    return path.read_bytes(), read


def archive_reader(folder: Path, name: str) -> tuple[bytes, Read]:
    """An archive of two small PNGs and a table; PNGs are decoded."""
    from deepfer_yolo.data.archives import unpacked
    from deepfer_yolo.data.images import load_image

    pngs = sorted(small_set(folder / "data").rglob("*.png"))[:2]
    members = {f"train/happy/{i}.png": png.read_bytes() for i, png in enumerate(pngs)} | {"labels.csv": b"a,b\n1,2\n"}
    packed = io.BytesIO()
    if name == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0)), content)
    else:
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for member, content in members.items():
                head = tarfile.TarInfo(member)
                head.size = len(content)
                tar.addfile(head, io.BytesIO(content))
    whole = gzip.compress(packed.getvalue(), mtime=0) if name == "tar.gz" else packed.getvalue()

    def read(content: bytes) -> dict[str, Any]:
        (folder / f"a.{name}").write_bytes(content)
        with unpacked(folder / f"a.{name}", folder / "out") as out:
            files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
            images = {n: load_image(path).tobytes() for n, path in files.items() if n.endswith(".png")}
            others = {n: path.read_bytes() for n, path in files.items() if n not in images}
            return {"names": sorted(files), "pixels": sorted(images.values()), "content": sorted(others.values())}

    return whole, read


def multipart_reader(folder: Path) -> tuple[bytes, Read]:
    """An upload."""
    from starlette.requests import Request

    from deepfer_yolo.serve.schemas import ProblemError
    from deepfer_yolo.serve.upload import Form, read_form

    async def form_of(content: bytes) -> Form:
        pieces = [content[start : start + 100] for start in range(0, len(content), 100)]

        async def receive() -> dict[str, Any]:
            body = pieces.pop(0) if pieces else b""
            return {"type": "http.request", "body": body, "more_body": bool(pieces)}

        headers = [(b"content-type", b"multipart/form-data; boundary=limit7")]
        return await read_form(Request({"type": "http", "headers": headers}, receive), file_field="files", max_files=4)

    def read(content: bytes) -> dict[str, Any]:
        try:
            form = asyncio.run(form_of(content))
            return {
                "a file's name": [file.name for file in form.files],
                "a file's content": [file.content for file in form.files],
                "another field": {**form.fields, "faces": form.flag("faces", False)},
            }
        except ProblemError as problem:
            raise (Refused if 400 <= problem.status < 500 else RuntimeError)(problem) from None

    parts = [('name="faces"', "true"), ('name="files"; filename="a.png"', "\x89PNG one"), ('name="files"', "two")]
    parts[2] = ('name="files"; filename="b.png"', "two\r\nlines")
    head = "--limit7\r\nContent-Disposition: form-data; "
    body = "".join(f"{head}{words}\r\n\r\n{content}\r\n" for words, content in parts)
    return f"{body}--limit7--\r\n".encode("latin-1"), read


READERS: dict[str, Callable[..., tuple[bytes, Read]]] = {
    "csv": csv_reader,
    "manifest": lambda folder: dataset_reader(folder, "manifest.csv"),
    "dataset.json": lambda folder: dataset_reader(folder, "dataset.json"),
    "card": card_reader,
    "yaml": yaml_reader,
    "metrics.json": metrics_reader,
    "corrections": corrections_reader,
    "zip": lambda folder: archive_reader(folder, "zip"),
    "tar": lambda folder: archive_reader(folder, "tar"),
    "tar.gz": lambda folder: archive_reader(folder, "tar.gz"),
    "multipart": multipart_reader,
}


def child(model: Path, path: Path, n: int) -> None:
    """Open `n` mutations of an ONNX file, and ask those that are accepted; one line for each."""
    from deepfer_yolo.runtime.classifier import Classifier

    crops = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)

    def read(content: bytes) -> dict[str, Any]:
        path.write_bytes(content)
        opened = Classifier(path)
        return {"card": opened.card.to_json(), "answers": opened.predict(crops).tobytes()}

    content, chance = model.read_bytes(), random.Random(1)
    meant = read(content)
    for _ in range(n):
        print(outcome_of(read, mutate(content, chance), meant).replace("\n", " "), flush=True)


if __name__ == "__main__":
    child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
