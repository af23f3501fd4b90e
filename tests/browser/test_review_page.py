"""The page of `deepfer review` in a real browser: by keyboard alone, by touch, blind, two at once, hostile names."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.data.corrections import Corrections, read_corrections
from deepfer_yolo.data.dataset import Dataset, open_dataset, read_description, register

PATIENCE_MS = 30_000
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser(open_browser: Callable[..., Any]) -> Any:
    """Headless Chromium."""
    return open_browser()


@pytest.fixture
def doubtful(painted_dataset: Path, tmp_path: Path) -> Path:
    """The painted data set in which one image of train stands under a second label, and has FER+ votes."""
    folder = tmp_path / "set"
    shutil.copytree(painted_dataset, folder)
    dataset = open_dataset(folder)
    row = next(row for row in dataset.rows("train") if row.label == "happy")
    twin = replace(row, path="train/sad/twin.png", label="sad", votes="happy:7 sad:2 unknown:1")
    shutil.copy(dataset.path(row), folder / twin.path)
    register([*dataset.all_rows, twin], read_description(folder), folder)
    return folder


@pytest.fixture
def enter(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens a review's page in a browser of its own; what the page complains about, or asks of any
    other host, fails the test.
    """
    contexts: list[Any] = []
    complaints: list[str] = []

    def go(served: Any, size: dict[str, int] = DESKTOP, name: str | None = "Ada", **more: Any) -> Any:
        contexts.append(browser.new_context(viewport=size, **more))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        base = served.url.partition("?")[0]
        page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda asked: None if asked.url.startswith((base, "data:")) else complaints.append(asked.url)
        )
        page.goto(served.url)
        page.wait_for_selector("html[data-ready=yes]")
        assert page.url == base  # the token does not stay in the address
        if name is not None:
            page.keyboard.type(name)
            page.keyboard.press("Enter")
            page.wait_for_selector("#stage img")
        return page

    yield go
    for context in contexts:
        context.close()
    assert [text for text in complaints if "status of 409" not in text and "ERR_CONNECTION_REFUSED" not in text] == []


def press(page: Any, key: str) -> None:
    """Press a key and wait until what it does is saved and shown."""
    before = page.inner_text("#count")
    page.keyboard.press(key)
    page.wait_for_function("before => document.getElementById('count').textContent !== before", arg=before)


def decisions(folder: Path) -> list[tuple[str, str]]:
    return [(Path(one.path).name, one.new_label) for one in read_corrections(folder / "corrections.csv").decisions]


def test_a_review_by_keyboard_alone(
    start_review: Callable[..., Any], enter: Callable[..., Any], doubtful: Path, tmp_path: Path, linear_model: Path
) -> None:
    words = ("--only", "conflicts", "--with-model", linear_model, "--repeat", 0, "--no-near")
    page = enter(start_review(tmp_path, doubtful, *words))
    page.wait_for_function("() => document.getElementById('stage').firstChild.naturalWidth === 48")
    paths = [page.inner_text("#path")]
    assert page.locator("#labels button").count() == 7
    assert page.locator("#labels button.is-label .name").inner_text() in ("happy", "sad")
    assert page.locator("#copy-list figure.other").count() == 1
    assert page.inner_text("#legend").startswith("bars: linear")
    assert page.inner_text("#count") == "0 of 2, your answers: 0"
    press(page, "4")  # happy
    paths.append(page.inner_text("#path"))
    press(page, "u")
    assert page.inner_text("#path") == paths[0]
    press(page, " ")
    press(page, "x")
    page.wait_for_selector("#end:visible")
    assert page.inner_text("#end-title") == "All decided"
    press(page, "u")
    assert page.inner_text("#path") == paths[1]
    press(page, "?")
    page.wait_for_selector("#summary dd")
    names = [Path(path).name for path in paths]
    kept = "sad" if "twin" in names[0] else "happy"
    assert decisions(tmp_path) == [
        (names[0], "happy"), (names[0], "undo"), (names[0], kept),
        (names[1], "leave-out"), (names[1], "undo"), (names[1], "unsure"),
    ]  # fmt: skip
    read = read_corrections(tmp_path / "corrections.csv").decisions
    assert {one.reviewer for one in read} == {"Ada"}
    assert all(one.seconds is not None and one.seconds < 30 for one in read if one.new_label != "undo")
    page.reload()
    page.wait_for_selector("#end:visible")


def test_focus_and_controls_work_as_keyboard_users_expect(
    start_review: Callable[..., Any], enter: Callable[..., Any], doubtful: Path, tmp_path: Path
) -> None:
    page = enter(start_review(tmp_path, doubtful, "--only", "all", "--repeat", 0))
    page.focus("#leave-out")
    press(page, " ")  # the button in focus, not "keep"
    assert decisions(tmp_path)[0][1] == "leave-out"
    page.focus("#filter-label")
    page.keyboard.press("4")  # in a list of choices keys choose
    assert len(decisions(tmp_path)) == 1
    page.select_option("#filter-label", "sad")
    page.wait_for_function("() => document.getElementById('path').textContent.startsWith('train/sad')")
    page.keyboard.down("7")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('2 of')")
    page.keyboard.down("7")  # held down, it decides once
    page.keyboard.up("7")
    assert [label for _, label in decisions(tmp_path)] == ["leave-out", "surprise"]


def test_a_phone_by_touch(
    start_review: Callable[..., Any], enter: Callable[..., Any], doubtful: Path, tmp_path: Path, linear_model: Path
) -> None:
    served = start_review(tmp_path, doubtful, "--only", "all", "--with-model", linear_model, "--reviewer", "Cyd")
    page = enter(served, PHONE, name=None, has_touch=True, is_mobile=True)
    page.wait_for_selector("#stage img")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#labels button >> nth=3", "#leave-out"):
        box = page.locator(name).bounding_box()
        assert box["height"] >= 40
        assert box["y"] + box["height"] <= PHONE["height"]  # in sight without scrolling
        before = page.inner_text("#count")
        page.locator(name).tap()
        page.wait_for_function("before => document.getElementById('count').textContent !== before", arg=before)
    page.locator("#undo").tap()
    page.wait_for_function("() => document.getElementById('count').textContent.endsWith(' answers: 1')")
    read = read_corrections(tmp_path / "corrections.csv").decisions
    assert [(one.new_label, one.reviewer) for one in read] == [("happy", "Cyd"), ("leave-out", "Cyd"), ("undo", "Cyd")]


def with_labels(folder: Path, n: int) -> None:
    """Let the data set know `n` labels more, of which no image bears one: more-01, more-02, …"""
    dataset = open_dataset(folder)
    labels = (*dataset.labels, *(f"more-{i:02}" for i in range(1, n + 1)))
    register(list(dataset.all_rows), read_description(folder).model_copy(update={"labels": labels}), folder)


def test_labels_beyond_nine_have_keys(
    start_review: Callable[..., Any], enter: Callable[..., Any], doubtful: Path, tmp_path: Path
) -> None:
    with_labels(doubtful, 27)
    labels = sorted(open_dataset(doubtful).labels)
    page = enter(start_review(tmp_path, doubtful, "--only", "all", "--repeat", 0))
    assert page.is_hidden("#find-line")
    keys = page.locator("#labels kbd").all_inner_texts()
    assert keys == list("1234567890abcdefghijklmnopqrstvwyz")
    assert page.locator("#labels .name").all_inner_texts() == labels
    for key in ("0", "a", "W", "z", "x", "u"):
        press(page, key)
    said = [label for _, label in decisions(tmp_path)]
    assert said == [labels[9], labels[10], labels[31], labels[33], "leave-out", "undo"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_labels_beyond_all_keys_are_found_by_name(
    start_review: Callable[..., Any], enter: Callable[..., Any], doubtful: Path, tmp_path: Path, size: dict[str, int]
) -> None:
    with_labels(doubtful, 60)
    page = enter(start_review(tmp_path, doubtful, "--only", "all", "--repeat", 0), size)
    visible = page.locator("#labels button:visible .name")
    page.keyboard.press("/")
    page.keyboard.press("Enter")  # nothing is typed
    page.keyboard.type("re-5")  # x, u and space are letters here
    assert visible.all_inner_texts() == [f"more-5{i}" for i in range(10)]
    page.keyboard.press("Enter")  # ten are left
    assert decisions(tmp_path) == []
    page.keyboard.type("7")
    press(page, "Enter")
    assert visible.count() == 67
    press(page, "x")
    page.locator("#find").fill("SAD")
    page.locator("#labels button:visible").click()
    page.wait_for_function("() => document.getElementById('count').textContent.endsWith(' answers: 3')")
    page.keyboard.press("/")
    page.keyboard.type("no such label")
    assert visible.count() == 0
    page.keyboard.press("Escape")
    assert visible.count() == 67
    assert [label for _, label in decisions(tmp_path)] == ["more-57", "leave-out", "sad"]
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_blind_shows_neither_label_nor_answers(
    start_review: Callable[..., Any], enter: Callable[..., Any], doubtful: Path, tmp_path: Path, linear_model: Path
) -> None:
    words = ("--with-model", linear_model, "--blind", "--repeat", 0, "--only", "conflicts", "--no-near")
    page = enter(start_review(tmp_path, doubtful, *words))
    shown = page.evaluate("document.getElementById('work').outerHTML")
    assert not [
        word for word in ("twin", "is-label", "\u00a0%", "vote,", "votes", "train/", "conflict") if word in shown
    ]
    assert page.is_hidden("#keep")
    page.keyboard.press(" ")  # there is nothing to keep
    press(page, "4")
    told = page.inner_text("#last")
    assert "happy" in told
    assert "its label" in told
    assert "the model" in told
    assert read_corrections(tmp_path / "corrections.csv").decisions[0].how == ("blind",)


def test_two_browsers_share_a_queue_and_a_lost_server_loses_nothing(
    start_review: Callable[..., Any], enter: Callable[..., Any], doubtful: Path, tmp_path: Path
) -> None:
    served = start_review(tmp_path, doubtful, "--only", "all", "--repeat", 0, "--limit", 24)
    one, two = enter(served), enter(served, name="Bob")
    assert one.inner_text("#path") != two.inner_text("#path")
    for _ in range(6):
        press(one, "1")
        press(two, "2")
    found = decisions(tmp_path)
    assert max(Counter(name for name, _ in found).values()) == 1
    assert Counter(label for _, label in found) == {"angry": 6, "disgust": 6}
    served.process.kill()
    served.process.wait()
    on_screen = one.inner_text("#path")
    one.keyboard.press("1")
    one.wait_for_selector("#error:visible")
    assert one.inner_text("#path") == on_screen
    assert "Not saved" in one.inner_text("#error")
    assert decisions(tmp_path) == found


def hostile(folder: Path) -> Dataset:
    """The data set with labels, file names and votes that would like to be code."""
    dataset = open_dataset(folder)
    evil = {"angry": "<img src=x onerror=window.hacked=1>", "sad": "=1+1", "fear": "ش\u202e<b>fear</b>"}
    rows = []
    for row in dataset.all_rows:
        path = f"{row.split}/{row.label}/<script>window.hacked=1<{len(rows)}>.png"
        dataset.path(row).rename(folder / path)
        label = evil.get(row.label, row.label)
        rows.append(replace(row, path=path, label=label, votes="<script>window.hacked=1</script>:3 happy:9"))
    labels = tuple(sorted({row.label for row in rows}))
    name = "<script>window.hacked=1</script>"
    register(rows, read_description(folder).model_copy(update={"labels": labels, "name": name}), folder)
    return open_dataset(folder)


def test_hostile_labels_paths_and_names_stay_text(
    start_review: Callable[..., Any], enter: Callable[..., Any], doubtful: Path, tmp_path: Path
) -> None:
    dataset = hostile(doubtful)
    page = enter(start_review(tmp_path, doubtful, "--repeat", 0), name="=<b onclick=1>Ada</b>")
    for key in ("1", "2", "x", "u"):
        press(page, key)
    assert page.evaluate("window.hacked") is None
    assert page.locator("main b[onclick], main script, #labels img, #why img").count() == 0
    assert "<script>" in page.inner_text("#path")
    assert "<img src=x" in page.inner_text("#labels")
    corrections: Corrections = read_corrections(tmp_path / "corrections.csv")
    assert {one.reviewer for one in corrections.decisions} == {"=<b onclick=1>Ada</b>"}
    assert set(corrections.check_against(dataset)) <= {row.path for row in dataset.all_rows}
    with (tmp_path / "corrections.csv").open(newline="", encoding="utf-8") as file:
        assert not [cell for line in csv.reader(file) for cell in line if cell[:1] in ("=", "+", "-", "@")]
