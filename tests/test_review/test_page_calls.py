"""The calls of the page against a running `deepfer review`: who is let in, what is told, kills, hostile names."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as PillowImage

from deepfer_yolo.data.corrections import read_corrections
from deepfer_yolo.data.dataset import open_dataset, read_description, register
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.painted import paint_csv

ME = {"session": "browser-one", "reviewer": "Ada"}
Start = Callable[..., Any]


def post(client: httpx.Client, path: str, **more: object) -> dict[str, Any]:
    answer = client.post(path, json={**ME, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_only_the_token_lets_in_and_nothing_of_another_site(
    start_review: Start, tmp_path: Path, painted_dataset: Path
) -> None:
    served = start_review(tmp_path, painted_dataset, "--only", "all")
    base, _, token = served.url.partition("?token=")
    assert base.startswith("http://127.0.0.1:")
    assert len(token) == 32
    assert httpx.get(f"{base}v1/review").status_code == 401
    assert httpx.get(base, params={"token": "0" * 32}).status_code == 401
    ours = {"authorization": f"Bearer {token}"}
    assert httpx.get(f"{base}v1/review", headers=ours).status_code == 200
    assert httpx.get(f"{base}v1/review", headers={**ours, "origin": "http://elsewhere.example"}).status_code == 403
    assert httpx.get(f"{base}v1/review", headers={**ours, "host": "elsewhere.example"}).status_code == 421
    page = httpx.get(served.url, follow_redirects=True)
    assert "default-src 'none'" in httpx.get(base, headers=ours).headers["content-security-policy"]
    assert page.status_code == 200
    large = httpx.post(f"{base}v1/next", headers=ours, content=b"x" * 200_000)
    assert large.status_code == 413
    for bad in ({"session": "x"}, {**ME, "reviewer": "a" * 81}, {**ME, "reviewer": "a\nb"}, {**ME, "more": 1}, []):
        assert httpx.post(f"{base}v1/next", headers=ours, json=bad).status_code == 422, bad
    gone = {**ME, "id": "../../etc/passwd"}
    assert httpx.post(f"{base}v1/decisions", headers=ours, json={**gone, "answer": "sad"}).status_code == 404
    assert httpx.get(f"{base}v1/images/..%2F..%2Fmanifest.csv", headers=ours).status_code == 404


def test_one_browser_may_have_two_reviews_open(start_review: Start, tmp_path: Path, painted_dataset: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    served = [start_review(tmp_path / name, painted_dataset, "--only", "all") for name in ("one", "two")]
    with httpx.Client(follow_redirects=True) as browser:  # its cookies know no ports
        for one in (*served, *served):
            assert browser.get(one.url).status_code == 200
        for one in served:
            assert browser.get(f"{one.url.partition('?')[0]}v1/review").status_code == 200


def test_images_are_those_of_the_data_set_and_bounded(
    start_review: Start, client: Callable[..., httpx.Client], tmp_path: Path, painted_dataset: Path
) -> None:
    opened = client(start_review(tmp_path, painted_dataset, "--only", "all").url)
    facts = opened.get("v1/review").json()
    assert (facts["name"], facts["model"], facts["splits"]) == ("FER2013", None, ["train"])
    item = post(opened, "v1/next")["items"][0]
    answer = opened.get(f"v1/images/{item['id']}")
    assert answer.headers["content-type"] == "image/png"
    shown = np.asarray(PillowImage.open(io.BytesIO(answer.content)).convert("RGB"))
    assert np.array_equal(shown, np.asarray(PillowImage.open(painted_dataset / item["path"]).convert("RGB")))
    small = PillowImage.open(io.BytesIO(opened.get(f"v1/images/{item['id']}?side=16").content))
    assert max(small.size) == 16
    assert opened.get(f"v1/images/{item['id']}?side=100000").status_code == 422


def test_a_photo_is_sent_at_the_size_of_a_screen(
    start_review: Start, client: Callable[..., httpx.Client], tmp_path: Path, painted_dataset: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(painted_dataset, folder)
    dataset = open_dataset(folder)
    row = dataset.rows("train")[0]
    PillowImage.fromarray(np.full((1000, 3200, 3), (200, 30, 30), np.uint8)).save(folder / row.path)
    digest = sha256((folder / row.path).read_bytes()).hexdigest()
    rows = [replace(one, sha256=digest) if one.path == row.path else one for one in dataset.all_rows]
    register(rows, read_description(folder), folder)
    opened = client(start_review(tmp_path, folder, "--only", "all").url)
    item = post(opened, "v1/next")["items"][0]
    assert item["path"] == row.path
    answer = opened.get(f"v1/images/{item['id']}")
    shown = PillowImage.open(io.BytesIO(answer.content))
    assert (shown.format, shown.size, answer.headers["content-type"]) == ("JPEG", (1600, 500), "image/jpeg")
    assert np.abs(np.asarray(shown, np.int16) - (200, 30, 30)).max() < 4
    # An image that is no longer what was converted is not shown, and can still be left out.
    PillowImage.new("RGB", (48, 48)).save(folder / row.path)
    assert opened.get(f"v1/images/{item['id']}").status_code == 422
    post(opened, "v1/decisions", id=item["id"], answer="leave-out")


def test_blind_nothing_leaves_the_server_but_the_image(
    start_review: Start, client: Callable[..., httpx.Client], tmp_path: Path, painted_dataset: Path, linear_model: Path
) -> None:
    words = ("--only", "uncertain", "--with-model", linear_model, "--blind")
    opened = client(start_review(tmp_path, painted_dataset, *words).url)
    answer = post(opened, "v1/next")
    assert all(list(item) == ["id"] for item in answer["items"])
    assert not [label for label in EMOTIONS if label in json.dumps(answer)]
    assert opened.post("v1/next", json={**ME, "label": "sad"}).status_code == 422
    after = post(opened, "v1/decisions", id=answer["items"][0]["id"], answer="sad", seconds=0.4)
    assert after["revealed"] is None  # it may be shown again
    (line,) = read_corrections(tmp_path / "corrections.csv").decisions
    assert (line.how, line.new_label, line.why[:9]) == (("blind",), "sad", "uncertain")


def test_blind_without_repeats_tells_after_the_choice(
    start_review: Start, client: Callable[..., httpx.Client], tmp_path: Path, painted_dataset: Path, linear_model: Path
) -> None:
    words = ("--only", "uncertain", "--with-model", linear_model, "--blind", "--repeat", 0)
    opened = client(start_review(tmp_path, painted_dataset, *words).url)
    item = post(opened, "v1/next")["items"][0]
    revealed = post(opened, "v1/decisions", id=item["id"], answer="unsure")["revealed"]
    assert revealed["id"] == item["id"]
    assert revealed["label"] in revealed["path"]
    assert len(revealed["probs"]) == 7


@pytest.mark.parametrize(
    ("words", "name", "splits"),
    [((), "corrections.csv", {"train"}), (("--held-out",), "corrections.held-out.csv", {"val", "test"})],
)
def test_held_out_images_have_a_file_of_their_own(
    start_review: Start,
    client: Callable[..., httpx.Client],
    tmp_path: Path,
    painted_dataset: Path,
    words: tuple[str, ...],
    name: str,
    splits: set[str],
) -> None:
    before = {path: path.read_bytes() for path in painted_dataset.rglob("*") if path.is_file()}
    opened = client(start_review(tmp_path, painted_dataset, "--only", "all", "--repeat", 0, *words).url)
    while items := post(opened, "v1/next")["items"]:
        for item in items:
            post(opened, "v1/decisions", id=item["id"], answer="fear")
    read = read_corrections(tmp_path / name)
    assert {decision.split for decision in read.decisions} == splits
    assert len(read.decisions) == sum(row.split in splits for row in open_dataset(painted_dataset).all_rows)
    assert [file.name for file in tmp_path.glob("*.csv")] == [name]
    assert {path: path.read_bytes() for path in painted_dataset.rglob("*") if path.is_file()} == before


def test_two_clients_at_once_decide_each_image_once(
    start_review: Start, client: Callable[..., httpx.Client], tmp_path: Path, painted_dataset: Path
) -> None:
    served = start_review(tmp_path, painted_dataset, "--only", "all", "--repeat", 0)
    faults: list[str] = []

    def work(who: str, opened: httpx.Client) -> None:
        me = {"session": f"browser-{who}", "reviewer": who}
        turns = random.Random(who)
        while True:
            asked = opened.post("v1/next", json=me).json()
            if not asked["items"]:
                if asked["progress"]["left"] == 0:
                    return
                time.sleep(0.01)
                continue
            item = turns.choice(asked["items"])
            answer = opened.post("v1/decisions", json={**me, "id": item["id"], "answer": "happy"})
            if answer.status_code != 200:
                faults.append(answer.text)
                return

    threads = [threading.Thread(target=work, args=(who, client(served.url))) for who in ("Ada", "Bob", "Cyd")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not faults
    decisions = read_corrections(tmp_path / "corrections.csv").decisions
    assert Counter(Counter(decision.path for decision in decisions).values()) == {1: 140}
    assert len({decision.reviewer for decision in decisions}) > 1


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_300_decisions_with_a_kill_in_the_middle_lose_none_that_was_answered(
    start_review: Start, client: Callable[..., httpx.Client], tmp_path: Path, deepfer: Callable[..., Any]
) -> None:
    paint_csv(tmp_path / "some.csv", seed=3, n_train=420, n_val=21, n_test=21)
    assert deepfer("convert", tmp_path / "some.csv", tmp_path / "set").returncode == 0
    words = ("--only", "all", "--no-near", "--repeat", 0)
    served = start_review(tmp_path, tmp_path / "set", *words)
    answered: list[tuple[str, str]] = []
    asked = 0
    killer = threading.Timer(1.0, lambda: None)
    opened = client(served.url)
    items = post(opened, "v1/next")["items"]
    turns = random.Random(5)
    while len(answered) < 300:
        if asked == 150:  # somewhere in the middle of the next call
            killer = threading.Timer(turns.uniform(0, 0.02), served.process.send_signal, [signal.SIGKILL])
            killer.start()
        item, label = items[0], ("angry", "leave-out", "unsure", "sad")[asked % 4]
        asked += 1
        try:
            items = post(opened, "v1/decisions", id=item["id"], answer=label, seconds=0.1)["items"]
            answered.append((item["path"], label))
        except httpx.HTTPError:
            served.process.wait(10)
            on_disk = [(d.path, d.new_label) for d in read_corrections(tmp_path / "corrections.csv").decisions]
            assert on_disk[: len(answered)] == answered
            assert len(on_disk) - len(answered) in (0, 1)  # the one on screen
            answered = on_disk
            served = start_review(tmp_path, tmp_path / "set", *words)
            opened = client(served.url)
            items = post(opened, "v1/next")["items"]
            assert items[0]["path"] not in {path for path, _ in on_disk}
    killer.join()
    assert served.process.poll() is None
    decisions = read_corrections(tmp_path / "corrections.csv").decisions
    assert [(decision.path, decision.new_label) for decision in decisions] == answered
    assert len({decision.path for decision in decisions}) == 300


HOSTILE = ('=HYPERLINK("http://x")', "<img src=x onerror=alert(1)>", "-1+1|cmd", "@SUM(A1)", "ش <b>")


def test_hostile_labels_paths_and_names_stay_text(
    start_review: Start,
    client: Callable[..., httpx.Client],
    tmp_path: Path,
    painted_dataset: Path,
    lines: Callable[[Path], list[dict[str, Any]]],
) -> None:
    folder = tmp_path / "hostile"
    shutil.copytree(painted_dataset, folder)
    dataset = open_dataset(folder)
    renamed = dict(zip(dataset.labels, HOSTILE, strict=False))
    rows = []
    for row in dataset.all_rows:
        label = renamed.get(row.label, row.label)
        path = f'{row.split}/{row.label}/<script>alert(1)<{len(rows)}>,".png'
        dataset.path(row).rename(folder / path)
        rows.append(replace(row, path=path, label=label))
    description = read_description(folder).model_copy(update={"labels": tuple(sorted({row.label for row in rows}))})
    register(rows, description, folder)
    opened = client(start_review(tmp_path, folder, "--only", "all", "--repeat", 0).url)
    for name, label in (("=cmd|' /C calc'!A0", HOSTILE[0]), ("+Ada", HOSTILE[1]), ("-", "leave-out")):
        me = {"session": "browser-one", "reviewer": name}
        item = opened.post("v1/next", json=me).json()["items"][0]
        assert opened.post("v1/decisions", json={**me, "id": item["id"], "answer": label}).status_code == 200
    cells = [cell for line in lines(tmp_path / "corrections.csv") for cell in line.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    read = read_corrections(tmp_path / "corrections.csv")
    assert [decision.reviewer for decision in read.decisions] == ["=cmd|' /C calc'!A0", "+Ada", "-"]
    assert read.decisions[0].new_label == HOSTILE[0]
    read.check_against(open_dataset(folder))
