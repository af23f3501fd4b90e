"""`audit --corrections`: what people settled of its findings, in JSON, terminal and report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.data.dataset import open_dataset, read_description, read_manifest, register
from deepfer_yolo.files import sha256_of

Deepfer = Callable[..., Any]
Correct = Callable[..., Path]


@pytest.fixture
def doubtful(painted_dataset: Path, tmp_path: Path) -> tuple[Path, list[tuple[str, str]]]:
    """A set with three pairs of copies under two labels, and their paths."""
    folder = tmp_path / "set"
    shutil.copytree(painted_dataset, folder)
    rows = read_manifest(folder)
    pairs = []
    for row in [row for row in rows if (row.split, row.label) == ("train", "happy")][:3]:
        path = f"train/sad/copy-of-{Path(row.path).name}"
        shutil.copy(folder / row.path, folder / path)
        rows.append(replace(row, path=path, label="sad"))
        pairs.append((row.path, path))
    register(rows, read_description(folder), folder)
    return folder, pairs


def test_a_conflict_is_settled_by_one_label_a_copy_left_out_or_a_word_on_each(
    deepfer: Deepfer, doubtful: tuple[Path, list[tuple[str, str]]], correct: Correct, tmp_path: Path
) -> None:
    folder, (one, two, three) = doubtful
    said = {one[1]: "happy", two[0]: "leave-out", three[0]: "unsure"}
    file = correct(tmp_path / "corrections.csv", folder, said, how=["model"])
    found = json.loads(deepfer("audit", folder, "--no-near", "--json", "--corrections", file).stdout)
    settled = found["settled"]
    assert settled["sha256"] == sha256_of(file)
    assert settled["findings"]["conflict"] == {"groups": 3, "settled": 2}
    assert settled["findings"]["duplicate"] == {"groups": 3, "settled": 1}
    assert settled["moves"] == [
        {"from": "happy", "to": "leave-out", "images": 1},
        {"from": "sad", "to": "happy", "images": 1},
    ]
    before, after = found["counts"]["train"], settled["counts_after"]["train"]
    assert (after["happy"], after["sad"]) == (before["happy"], before["sad"] - 1)
    plain = json.loads(deepfer("audit", folder, "--no-near", "--json").stdout)
    assert "settled" not in plain
    assert plain["findings"] == found["findings"]  # the set is what it was, and so is the verdict

    correct(file, folder, {path: "happy" for pair in (one, two, three) for path in pair if path != two[0]})
    later = json.loads(deepfer("audit", folder, "--no-near", "--json", "--corrections", file).stdout)
    assert later["settled"]["findings"]["conflict"] == {"groups": 3, "settled": 3}
    assert later["settled"]["findings"]["duplicate"] == {"groups": 3, "settled": 3}


def test_terminal_and_report_show_before_and_after(
    deepfer: Deepfer, doubtful: tuple[Path, list[tuple[str, str]]], correct: Correct, tmp_path: Path
) -> None:
    folder, (one, two, _) = doubtful
    file = correct(tmp_path / "corrections.csv", folder, {one[1]: "happy", two[0]: "leave-out"}, who="<Ada>")
    done = deepfer("audit", folder, "--no-near", "--corrections", file, "--report", "audit.html", "--fail-on", "never")
    assert done.returncode == 0, done.stderr
    assert "2 of 3" in done.stdout
    assert "1 labels changed" in done.stdout
    page = (tmp_path / "audit.html").read_text()
    for text in ("Before and after", "sad → happy", "happy → leave-out", "&lt;Ada&gt;", "before → after"):
        assert text in page
    assert "<Ada>" not in page


def test_a_file_of_another_set_and_a_part_are_refused(
    deepfer: Deepfer, painted_dataset: Path, correct: Correct, painted_csv: Path, tmp_path: Path
) -> None:
    row = open_dataset(painted_dataset).rows("train")[0]
    file = correct(tmp_path / "corrections.csv", painted_dataset, {row.path: "leave-out"})
    done = deepfer("audit", painted_csv, "--no-near", "--corrections", file)
    assert done.returncode == 1
    assert "not a data set folder" in done.stderr
    part = deepfer("audit", painted_dataset, "--shard", "1/2", "--out", "parts", "--corrections", file)
    assert part.returncode == 1
    assert "corrections" in part.stderr
    file.write_text(file.read_text().replace(row.sha256, "0" * 64))
    assert "not in FER2013" in deepfer("audit", painted_dataset, "--no-near", "--corrections", file).stderr
