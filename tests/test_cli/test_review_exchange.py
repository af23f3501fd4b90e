"""`deepfer review --export` and `--import` at the shell."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.data.corrections import read_corrections, write_corrections
from deepfer_yolo.data.dataset import open_dataset

Deepfer = Callable[..., Any]
ALL = ("--only", "all", "--no-near")


def filled(file: Path, answers: dict[str, str], who: str = "Ada") -> None:
    """Fill in a table: path to new label."""
    with file.open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    for row in rows:
        row["new_label"], row["reviewer"] = answers.get(row["path"], ""), who
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_table_goes_out_and_comes_back_as_corrections(
    deepfer: Deepfer, painted_dataset: Path, linear_model: Path, tmp_path: Path
) -> None:
    done = deepfer("review", painted_dataset, *ALL, "--with-model", linear_model, "--limit", 12, "--export", "csv")
    assert done.returncode == 0, done.stderr
    assert "12 images for csv: csv/review.csv" in done.stderr
    table = tmp_path / "csv" / "review.csv"
    first, second, *_ = paths = [line.split(",")[0] for line in table.read_text().splitlines()[1:]]
    assert len(paths) == 12
    assert all(line.split(",")[4] for line in table.read_text().splitlines()[1:])
    filled(table, {first: "Surprised", second: "leave-out"})
    done = deepfer("review", painted_dataset, "--import", table, "--json")
    assert done.returncode == 0, done.stderr
    assert "2 decisions of" in done.stderr
    assert "passed over: 10 without an answer" in done.stderr
    assert json.loads(done.stdout)["left_out"] == 1
    found = read_corrections(tmp_path / "corrections.csv")
    assert [(one.path, one.new_label, one.reviewer, one.how) for one in found.decisions] == [
        (first, "surprise", "Ada", ("model", "import")),
        (second, "leave-out", "Ada", ("model", "import")),
    ]

    # What is decided is not asked again.
    assert deepfer("review", painted_dataset, *ALL, "--export", "fiftyone").returncode == 0
    asked = json.loads((tmp_path / "fiftyone" / "labels.json").read_text())["labels"]
    assert len(asked) == len(open_dataset(painted_dataset).rows("train")) - 2
    assert first.removesuffix(".png") not in asked
    converted = deepfer("convert", painted_dataset, "new", "--corrections", "corrections.csv", "--val", 0)
    assert converted.returncode == 0, converted.stderr


def test_the_same_import_twice_adds_nothing(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    row = open_dataset(painted_dataset).rows("train")[0]
    result = [{"from_name": "new_label", "to_name": "image", "type": "choices", "value": {"choices": ["sad"]}}]
    annotation = {"completed_by": 3, "result": result, "updated_at": "2026-11-28T02:10:16.5Z", "lead_time": 2}
    task = {"id": 1, "data": {"path": row.path, "sha256": row.sha256}, "annotations": [annotation]}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    assert "1 decisions of" in deepfer("review", painted_dataset, "--import", "tasks.json").stderr
    before = (tmp_path / "corrections.csv").read_bytes()
    done = deepfer("review", painted_dataset, "--import", "tasks.json")
    assert "0 decisions of" in done.stderr
    assert "passed over: 1 that stand there" in done.stderr
    assert (tmp_path / "corrections.csv").read_bytes() == before


def test_a_table_that_comes_again_takes_nothing_back(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    one, two, *_ = open_dataset(painted_dataset).rows("train")
    table, file = tmp_path / "filled.csv", tmp_path / "corrections.csv"
    table.write_text(f"path,new_label,reviewer\n{one.path},sad,Ada\n")
    assert deepfer("review", painted_dataset, "--import", table).returncode == 0
    (first,) = read_corrections(file).decisions
    write_corrections(file, [replace(first, new_label="fear", how=())])
    table.write_text(f"{table.read_text()}{two.path},sad,Ada\n")
    done = deepfer("review", painted_dataset, "--import", table)
    assert "1 decisions of" in done.stderr
    assert "passed over: 1 that stand there" in done.stderr
    assert [(d.path, d.new_label) for d in read_corrections(file).settled()] == [(one.path, "fear"), (two.path, "sad")]
    done = deepfer("review", painted_dataset, "--import", file, "--out", "other.csv")
    assert "is a file of decisions already" in done.stderr
    assert not Path("other.csv").exists()  # nothing was decided


def test_held_out_answers_are_imported_where_that_is_asked_for(
    deepfer: Deepfer, painted_dataset: Path, tmp_path: Path
) -> None:
    assert deepfer("review", painted_dataset, *ALL, "--held-out", "--export", "csv").returncode == 0
    rows = open_dataset(painted_dataset).rows("test")
    filled(tmp_path / "csv" / "review.csv", {rows[0].path: "sad"})
    done = deepfer("review", painted_dataset, "--import", "csv/review.csv")
    assert "passed over: 1 of test" in done.stderr
    assert not (tmp_path / "corrections.csv").exists()
    assert deepfer("review", painted_dataset, "--held-out", "--import", "csv/review.csv").returncode == 0
    assert [one.split for one in read_corrections(tmp_path / "corrections.held-out.csv").decisions] == ["test"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--export", "label_studio"), "did you mean 'label-studio'?"),
        (("--import", "gone.json"), "no such file of answers"),
        (("--export", "csv", "--to", "{set}/x"), "lies inside the data set"),
        (("--import", "empty.json"), "is no JSON"),
    ],
)
def test_what_cannot_be_is_a_clear_error(
    deepfer: Deepfer, painted_dataset: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty.json").write_text("")
    done = deepfer("review", painted_dataset, *(word.format(set=painted_dataset) for word in words))
    assert done.returncode == 1
    assert message in done.stderr, done.stderr
    assert not list(painted_dataset.glob("x"))
