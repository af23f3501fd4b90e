"""Labels that people correct: what strangers put into corrections.csv, imports, and a review under way."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.data.corrections import read_corrections
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.data.decisions import COLUMNS

kind = pytest.mark.fault
HEADER = ",".join(COLUMNS)
TOKEN = "0123456789abcdef"
LET_IN = {"authorization": f"Bearer {TOKEN}"}
ME = {"session": "browser-one", "reviewer": "Ada"}
REVIEW = f"--only all --no-near --repeat 0 --token {TOKEN}"
MADE = ["data", "c.csv", "log.txt", "disk"]
REPORT = ("review", "data", "--report", "--out", "c.csv")


@pytest.fixture
def lines(data: Path) -> list[str]:
    """A decision on each of three images of `data`, as corrections.csv holds them."""
    return [
        f"{row.path},{row.sha256},train,{row.label},unsure,Ada,,,0.5,2026-11-28T02:10:16Z"
        for row in open_dataset(data).rows("train")[:3]
    ]


def edited(change: Callable[[str], str]) -> Callable[[list[str]], str]:
    """The file whose second decision was changed."""
    return lambda lines: "\n".join([HEADER, lines[0], change(lines[1]), lines[2], ""])


SPOILT: list[Any] = [
    pytest.param(edited(lambda line: "../../" + line), marks=kind(
        "corrections: path that leaves it", "a decision on `../../train/…`", "refused with line and field")),
    pytest.param(edited(lambda line: line[:-30]), marks=kind(
        "corrections: torn in the middle", "a decision without its end between others", "refused with the line")),
    pytest.param(edited(lambda line: f"{HEADER}\n{line}"), marks=kind(
        "corrections: two headers", "a second header, as two files in one have it", "refused with the line")),
    pytest.param(edited(lambda line: line.replace("Ada", "A" * 200_000)), marks=kind(
        "corrections: huge cell", "a name of 200,000 characters", "refused with the line")),
    pytest.param(edited(lambda line: line.replace("unsure", "bored")), marks=kind(
        "corrections: unknown label", "a label that the data set does not have", "refused with the label")),
    pytest.param(edited(lambda line: line.replace("unsure", '"=HYPERLINK(""http://x"")"')), marks=kind(
        "corrections: formula", "a formula for a label", "refused, and printed as text")),
    pytest.param(edited(lambda line: line.replace(",train,", ",val,")), marks=kind(
        "corrections: train and val in one", "a decision on val in a file of train", "refused with the line")),
    pytest.param(lambda lines: "\n".join([HEADER, lines[0].replace(lines[0].split(",")[1], "0" * 64), ""]), marks=kind(
        "corrections: other SHA-256", "a known path with the SHA-256 of no image", "refused with the path")),
    pytest.param(lambda lines: "\n".join([HEADER.replace("path,sha256", "sha256,path"), *lines, ""]), marks=kind(
        "corrections: order of columns", "the first two columns exchanged", "refused with both orders")),
    pytest.param(lambda lines: "\n".join([HEADER, lines[0], lines[1].replace(",,,", ",,guess,")]), marks=kind(
        "corrections: last line wrong", "a last line without an end, whole but for a wrong word", "refused; it stays")),
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_decisions_of_strangers(fault: Any, lines: list[str], spoil: Callable[[list[str]], str]) -> None:
    (fault.folder / "c.csv").write_text(spoil(lines))
    fault.see(*REPORT)


@kind("corrections: cut off", "a file whose last line a kill cut short", "said; that line alone does not count")
def test_cut_off(fault: Any, lines: list[str]) -> None:
    (fault.folder / "c.csv").write_text("\n".join([HEADER, *lines])[:-9])
    done = fault.see(*REPORT, "--json", code=0, environ={"COLUMNS": "200"})
    assert json.loads(done.stdout)["images"] == 2


TABLE = "path,sha256,new_label,reviewer\n"


@kind("import: JSON cut off", "the first half of an export of Label Studio", "refused; nothing imported")
def test_cut_json(fault: Any, data: Path) -> None:
    row = open_dataset(data).rows("train")[0]
    text = json.dumps([{"data": {"path": row.path}, "annotations": []}])
    (fault.folder / "a.json").write_text(text[: len(text) // 2])
    fault.see("review", "data", "--import", "a.json")


@kind("import: image that is not there", "a table with a path outside of the data set", "refused with the row")
def test_stranger(fault: Any, data: Path) -> None:
    row = open_dataset(data).rows("train")[0]
    (fault.folder / "a.csv").write_text(f"{TABLE}{row.path},{row.sha256},sad,Ada\n../../x.png,,sad,Ada\n")
    fault.see("review", "data", "--import", "a.csv")


@kind("import: one reviewer, two answers", "a table that says two things of an image", "refused with both rows")
def test_two_answers(fault: Any, data: Path) -> None:
    row = open_dataset(data).rows("train")[0]
    (fault.folder / "a.csv").write_text(TABLE + "".join(f"{row.path},,{label},Ada\n" for label in ("sad", "fear")))
    fault.see("review", "data", "--import", "a.csv")


@kind("import: path that leaves the zip", "an export of Roboflow with `../../a.png`", "refused; nothing unpacked")
def test_zip(fault: Any, data: Path) -> None:
    with zipfile.ZipFile(fault.folder / "a.zip", "w") as archive:
        archive.writestr("../../sad/00000_png.rf.0a1b.jpg", b"")
    fault.see("review", "data", "--import", "a.zip")


@kind("import: corrections.csv itself", "`--import corrections.csv`", "refused; says how it is used")
def test_own_file(fault: Any, lines: list[str]) -> None:
    (fault.folder / "c.csv").write_text("\n".join([HEADER, *lines, ""]))
    fault.see("review", "data", "--import", "c.csv")


@contextmanager
def reviewed(fault: Any, url: str) -> Iterator[Callable[..., httpx.Response]]:
    """A function that asks a running review; one decision is made before, and stays, and the review must live."""
    with httpx.Client(base_url=url.partition("?")[0], headers=LET_IN, timeout=60) as web:

        def call(path: str, method: str = "POST", headers: dict[str, str] | None = None, **more: object) -> Any:
            return web.request(method, path, json={**ME, **more} if method == "POST" else None, headers=headers)

        assert decide(call).status_code == 200
        yield call
        assert web.get("v1/review").status_code == 200
    log = (fault.folder / "log.txt").read_text()
    assert "Traceback" not in log, log


def decide(call: Callable[..., httpx.Response]) -> httpx.Response:
    """The answer to a decision on the next image."""
    return call("v1/decisions", id=call("v1/next").json()["items"][0]["id"], answer="unsure")


def note(fault: Any, answer: httpx.Response) -> None:
    """Record what a running review answered."""
    seen = f"HTTP {answer.status_code}, `{fault.shown(answer.json()['detail'])}`; the review goes on"
    fault.note(seen, {}, MADE)


@pytest.fixture
def served(fault: Any, data: Path, start_review: Callable[..., Any]) -> Any:
    """A review of all of train into c.csv."""
    return start_review(fault.folder, data, *REVIEW.split(), "--out", "c.csv")


@kind("review: file saved by an editor", "c.csv is replaced by a file of its name", "HTTP 507; says what to do")
def test_saved_by_an_editor(fault: Any, served: Any) -> None:
    file = fault.folder / "c.csv"
    with reviewed(fault, served.url) as call:
        (fault.folder / "new.csv").write_bytes(file.read_bytes())
        (fault.folder / "new.csv").replace(file)
        answer = decide(call)
        assert answer.status_code == 507
        note(fault, answer)
    assert len(read_corrections(file).decisions) == 1


@kind("review: full disk", "decisions until no byte is left", "HTTP 507; nothing half written; later ones go on")
def test_full_disk(fault: Any, data: Path, full_disk: str) -> None:
    words = f"{REVIEW} --out disk/c.csv --port 0"
    line = f"{full_disk} && exec {sys.executable} -m deepfer_yolo review data {words}"
    log = fault.folder / "log.txt"
    with log.open("wb") as text:  # the disk is there for this process alone
        process = subprocess.Popen(["unshare", "-m", "bash", "-c", line], cwd=fault.folder, stderr=text, stdout=text)
    try:
        deadline = time.monotonic() + 60
        while (found := re.search(r" at (http://\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        disk = Path(f"/proc/{process.pid}/root{fault.folder}/disk")
        with reviewed(fault, found[1]) as call:
            with (disk / "fill").open("wb", buffering=0) as fill, suppress(OSError):
                while True:
                    fill.write(bytes(1000))
            n = 1
            while (answer := call("v1/undo") if n % 2 else decide(call)).status_code == 200:
                n += 1
            assert answer.status_code == 507
            content = (disk / "c.csv").read_bytes()
            assert len(content.splitlines()) == n + 1
            assert content.endswith(b"Z\n")
            (disk / "fill").unlink()
            assert decide(call).status_code == 200
            assert (disk / "c.csv").read_bytes().startswith(content)
            note(fault, answer)
    finally:
        process.kill()
        process.wait()


@kind("review: image replaced", "an image gets other bytes under a running review", "HTTP 422; it can be left out")
def test_image_replaced(fault: Any, served: Any) -> None:
    with reviewed(fault, served.url) as call:
        item = call("v1/next").json()["items"][0]
        path = fault.folder / "data" / item["path"]
        before = path.read_bytes()
        path.write_bytes(before + b"x")
        answer = call(f"v1/images/{item['id']}", method="GET")
        path.write_bytes(before)
        assert answer.status_code == 422
        note(fault, answer)
        assert call("v1/decisions", id=item["id"], answer="leave-out").status_code == 200


@kind("review: guessed image", "a name that the review never gave", "HTTP 404")
def test_guessed_image(fault: Any, served: Any) -> None:
    with reviewed(fault, served.url) as call:
        assert call("v1/images/..%2f..%2fmanifest.csv", method="GET").status_code == 404
        answer = call("v1/images/00000000-1", method="GET")
        assert answer.status_code == 404
        note(fault, answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"origin": "http://other.example"}, 403, marks=kind(
            "review: other site", "a decision that a page of another site sends", "HTTP 403")),
        pytest.param({"host": "other.example"}, 421, marks=kind(
            "review: other name", "a call to another name that leads to this machine", "HTTP 421")),
        pytest.param({"authorization": "Bearer guessed"}, 401, marks=kind(
            "review: wrong token", "a call with another token", "HTTP 401")),
    ],
)  # fmt: skip
def test_strangers_who_call(fault: Any, served: Any, headers: dict[str, str], status: int) -> None:
    with reviewed(fault, served.url) as call:
        answer = call("v1/undo", headers=headers)
        assert answer.status_code == status
        note(fault, answer)


@kind("review: twice on one file", "a second review of the same c.csv", "refused; the first goes on")
def test_two_reviews(fault: Any, served: Any) -> None:
    with reviewed(fault, served.url):
        fault.see("review", "data", *REVIEW.split(), "--out", "c.csv")


@kind("review: folder may not be written", "`--out closed/c.csv`", "one clear line before any work")
def test_closed_folder(fault: Any, data: Path, bound: list[str]) -> None:
    (fault.folder / "closed").mkdir(mode=0o555)
    fault.see("review", "data", *REVIEW.split(), "--out", "closed/c.csv", prefix=bound)


@pytest.mark.slow
@kind("review: SIGKILL", "20 kills at random moments of a review under way", "no decision that was answered is lost")
def test_kills(fault: Any, data: Path, start_review: Callable[..., Any]) -> None:
    chance, file, known = random.Random(6), fault.folder / "c.csv", list[tuple[str, str]]()
    for _ in range(20):
        served = start_review(fault.folder, data, *REVIEW.split(), "--out", "c.csv")
        with httpx.Client(base_url=served.url.partition("?")[0], headers=LET_IN, timeout=60) as web:
            killer = threading.Timer(chance.uniform(0.02, 0.5), served.process.kill)
            killer.start()
            with suppress(httpx.HTTPError):
                while True:
                    item = web.post("v1/next", json=ME).json()["items"][0]
                    web.post("v1/decisions", json={**ME, "id": item["id"], "answer": "sad"}).raise_for_status()
                    known.append((item["path"], "sad"))
                    web.post("v1/undo", json=ME).raise_for_status()
                    known.append((item["path"], "undo"))
            killer.join()
            served.process.wait(20)
        there = [(one.path, one.new_label) for one in read_corrections(file).decisions]
        assert there[: len(known)] == known
        assert len(there) - len(known) in (0, 1)  # the one that no answer came to
        known = there
    assert len(known) > 20
    fault.note("each file readable, every answered decision in it, gone on with 20 times", {}, MADE)
