"""`deepfer review`: its report, what it refuses to start with, and how it stops."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from deepfer_yolo.data.corrections import CorrectionsWriter, write_corrections
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.data.decisions import Decision
from deepfer_yolo.data.kept_faces import kept_faces

TIME = "2026-11-28T02:10:16Z"


def decided(dataset: Path, n: int = 4, split: str = "train") -> list[Decision]:
    """Ada and Bob on the first `n` images of a split, of whom Bob says something else of the last; one look twice."""
    rows = open_dataset(dataset).rows(split)[:n]
    found = [
        Decision(row.path, row.sha256, split, row.label, "fear", who, "label-error", ("model",), 0.8, TIME)
        for who in ("Ada", "Bob")
        for row in rows
    ]
    again = replace(found[0], how=("model", "repeat"))
    return [*found[:-1], replace(found[-1], new_label="unsure"), again]


def test_the_report_says_agreement_and_consistency(
    deepfer: Callable[..., Any], painted_dataset: Path, tmp_path: Path
) -> None:
    decisions = decided(painted_dataset)
    decisions[4] = replace(decisions[4], new_label="happy")
    write_corrections(tmp_path / "corrections.csv", decisions)
    done = deepfer("review", painted_dataset, "--report", "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert (told["decisions"], told["images"], told["conflicts"], told["reviewers"]) == (9, 4, 1, 2)
    assert told["consistency"] == [{"reviewer": "Ada", "n": 1, "same": 1}]
    (pair,) = told["agreement"]
    assert (pair["reviewers"], pair["n"], pair["agreement"]) == (["Ada", "Bob"], 4, 0.5)
    answers = [{"reviewer": "Ada", "label": "fear"}, {"reviewer": "Bob", "label": "happy"}]
    assert told["in_conflict"] == [{"path": decisions[0].path, "answers": answers}]
    shown = deepfer("review", painted_dataset, "--report")
    text = " ".join(shown.stdout.split())
    assert f"deepfer convert {painted_dataset} DEST --corrections corrections.csv" in shown.stderr
    assert "in conflict between reviewers" in text
    assert "1 of 1 shown twice got the same answer" in text
    assert "Cohen's kappa 0.00, 50.0 % the same of 4" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--report",), "no such file of corrections"),
        (("--out", "{set}/corrections.csv"), "lies inside the data set"),
        (("--split", "test"), "--split test is held out"),
        (("--only", "uncertain"), "needs a model"),
        (("--only", "conflict"), "only: input should be 'conflicts'"),
        (("--host", "0.0.0.0"), "so a token is needed"),
        (("--reviewer", "a\nb"), "control characters"),
    ],
)
def test_what_cannot_be_is_a_clear_error(
    deepfer: Callable[..., Any], painted_dataset: Path, words: tuple[str, ...], message: str
) -> None:
    done = deepfer("review", painted_dataset, *(word.format(set=painted_dataset) for word in words))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (painted_dataset / "corrections.csv").exists()
    assert not Path("corrections.csv").exists()


def test_a_file_of_another_set_or_kind_or_in_use_is_refused(
    deepfer: Callable[..., Any], painted_dataset: Path, tmp_path: Path
) -> None:
    write_corrections(tmp_path / "other.csv", [replace(decided(painted_dataset)[0], sha256="0" * 64)])
    assert "not in FER2013" in deepfer("review", painted_dataset, "--out", "other.csv").stderr
    write_corrections(tmp_path / "held.csv", decided(painted_dataset, 2, "val"))
    refused = deepfer("review", painted_dataset, "--out", "held.csv", "--only", "all")
    assert "never share a file" in refused.stderr
    with CorrectionsWriter(tmp_path / "corrections.csv"):
        assert "another review is writing it" in deepfer("review", painted_dataset).stderr
    (tmp_path / "bare").mkdir()
    assert "is a folder of images" in deepfer("review", "bare").stderr


def test_an_image_set_without_doubts_ends_at_once(
    deepfer: Callable[..., Any], painted_dataset: Path, tmp_path: Path
) -> None:
    done = deepfer("review", painted_dataset, "--only", "conflicts", "--no-near")
    assert done.returncode == 0
    assert "nothing to review" in done.stderr


def test_faces_that_a_stream_kept_come_up_all_but_those_that_are_too_old(
    start_review: Callable[..., Any], painted_dataset: Path, tmp_path: Path
) -> None:
    dataset = open_dataset(painted_dataset)
    rows = dataset.rows("train")[:6]
    today = datetime.now(UTC)
    for place, row in enumerate(rows):
        kept_at = today - timedelta(days=29 if place else 40)
        with kept_faces(tmp_path / "kept", dataset.labels, 30, kept_at) as faces:
            assert faces.add(dataset.path(row).read_bytes(), row, "camera", kept_at)
    served = start_review(tmp_path, tmp_path / "kept")
    assert "reviews 5 images of kept" in served.log.read_text()
    assert len(list((tmp_path / "kept").rglob("*.png"))) == 5


def test_a_signal_ends_it_with_the_summary_and_exit_code_0(
    start_review: Callable[..., Any], painted_dataset: Path, tmp_path: Path
) -> None:
    served = start_review(tmp_path, painted_dataset, "--only", "all", "--json", "--token", "0123456789abcdef")
    base = served.url.partition("?")[0]
    me = {"session": "browser-one", "reviewer": "Ada"}
    with httpx.Client(base_url=base, headers={"authorization": "Bearer 0123456789abcdef"}) as client:
        item = client.post("v1/next", json=me).json()["items"][0]
        client.post("v1/decisions", json={**me, "id": item["id"], "answer": "leave-out"}).raise_for_status()
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(20) == 0
    text = served.log.read_text()
    told = json.loads(text[text.index("\n{") :])
    assert (told["decisions"], told["left_out"]) == (1, 1)
