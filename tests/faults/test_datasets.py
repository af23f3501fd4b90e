"""Data sets that changed after convert, destinations that others use, runs that were killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo import files
from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import register
from deepfer_yolo.files import HOST, REPLACED_MARK, STAGING_MARK, staged_tree
from deepfer_yolo.runs import create_run, release

kind = pytest.mark.fault


def edit(path: Path, old: str, new: str) -> None:
    """Replace the first `old` in a text file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@kind("data set: label changed", "one row of the manifest gets another label", "refused with the first difference")
def test_relabelled(fault: Any, data: Path, model: Path) -> None:
    edit(data / "manifest.csv", ",train,happy,", ",train,sad,")
    fault.see("evaluate", "data", "-m", model.name)


@kind("data set: rows appended", "the manifest's rows, a second time", "refused with both lines")
def test_appended(fault: Any, data: Path, model: Path) -> None:
    manifest = data / "manifest.csv"
    manifest.write_text(manifest.read_text() + "\n".join(manifest.read_text().splitlines()[1:]) + "\n")
    fault.see("evaluate", "data", "-m", model.name)


@kind("data set: row removed", "the manifest's last row is gone", "refused with the first difference")
def test_row_removed(fault: Any, data: Path, model: Path) -> None:
    lines = (data / "manifest.csv").read_text().splitlines()
    (data / "manifest.csv").write_text("\n".join(lines[:-1]) + "\n")
    fault.see("evaluate", "data", "-m", model.name)


@kind("data set: image replaced", "one image gets the bytes of another", "refused with its name")
def test_replaced_image(fault: Any, data: Path, model: Path) -> None:
    one, two, *_ = sorted((data / "val").rglob("*.png"))
    one.write_bytes(two.read_bytes())
    fault.see("evaluate", "data", "-m", model.name)


@kind("data set: image missing", "one image is deleted", "refused with its name")
def test_missing_image(fault: Any, data: Path, model: Path) -> None:
    sorted((data / "val").rglob("*.png"))[0].unlink()
    fault.see("evaluate", "data", "-m", model.name)


@kind("data set: path that leaves it", "a row of the manifest names `../secret.png`", "refused with file and line")
def test_path_leaves(fault: Any, data: Path, model: Path) -> None:
    edit(data / "manifest.csv", "val/", "../")
    fault.see("evaluate", "data", "-m", model.name)


@kind("data set: bytes that are no text", "a byte of a label is no UTF-8", "refused")
def test_no_text(fault: Any, data: Path, model: Path) -> None:
    path = data / "manifest.csv"
    path.write_bytes(path.read_bytes().replace(b",happy,", b",h\xff\xfepy,", 1))
    fault.see("evaluate", "data", "-m", model.name)


@kind("dataset.json: cut off", "its second half is gone", "refused with its name")
def test_half_a_description(fault: Any, data: Path, model: Path) -> None:
    text = (data / "dataset.json").read_text()
    (data / "dataset.json").write_text(text[: len(text) // 2])
    fault.see("evaluate", "data", "-m", model.name, says="data/dataset.json: is no JSON that can be used")


@kind("dataset.json: key twice", "`name` stands twice", "refused")
def test_key_twice(fault: Any, data: Path, model: Path) -> None:
    edit(data / "dataset.json", '"name":', '"name": "other", "name":')
    fault.see("evaluate", "data", "-m", model.name)


@kind("dataset.json: label twice", "`labels` names one label twice", "refused")
def test_label_twice(fault: Any, data: Path, model: Path) -> None:
    edit(data / "dataset.json", '"labels": [', '"labels": ["happy", ')
    fault.see("evaluate", "data", "-m", model.name)


@kind("dataset.json: other counts", "`counts` says 7 more images of a label", "refused with the first difference")
def test_other_counts(fault: Any, data: Path, model: Path) -> None:
    edit(data / "dataset.json", '"happy": ', '"happy": 7')
    fault.see("evaluate", "data", "-m", model.name)


@kind("dataset.json: of a later version", "`schema_version` is 2", "refused")
def test_later_version(fault: Any, data: Path, model: Path) -> None:
    edit(data / "dataset.json", '"schema_version": 1', '"schema_version": 2')
    fault.see("evaluate", "data", "-m", model.name)


@kind(
    "destination: filled meanwhile", "a file comes into it while `convert` works", "refused at the end; the file stays"
)
def test_filled_meanwhile(fault: Any, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*words: Any) -> Any:
        (fault.folder / "out").mkdir()
        (fault.folder / "out" / "thesis.txt").write_text("years of work")
        return register(*words)

    monkeypatch.setattr("deepfer_yolo.data.convert.register", fill)
    fault.see("convert", "faces.csv", "out", new=["out"])
    assert [path.name for path in (fault.folder / "out").iterdir()] == ["thesis.txt"]


@kind("destination: not empty", "`convert` to a folder with a file, without `--overwrite`", "refused; the file stays")
def test_not_empty(fault: Any, table: Path) -> None:
    (fault.folder / "out").mkdir()
    (fault.folder / "out" / "thesis.txt").write_text("years of work")
    fault.see("convert", "faces.csv", "out")


@kind("destination: two runs", "a second `convert` to a place that one is writing", "the second is refused")
def test_two_runs(fault: Any, table: Path) -> None:
    with ExitStack() as first:
        first.enter_context(pytest.raises(KeyError))
        first.enter_context(staged_tree(fault.folder / "out"))
        fault.see("convert", "faces.csv", "out")
        raise KeyError


@kind("destination: a file", "`convert` to the name of a file", "refused; the file stays")
def test_file_as_destination(fault: Any, table: Path) -> None:
    (fault.folder / "out").write_text("years of work")
    fault.see("convert", "faces.csv", "out", "--overwrite")


@kind("killed: between two renames", "the old tree lies beside under a name of the moment", "the next run puts it back")
def test_between_two_renames(fault: Any, data: Path, model: Path) -> None:
    before = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    data.rename(fault.folder / f".data{REPLACED_MARK}{HOST}01234567")
    seen = fault.child("evaluate", "data", "-m", model.name, "--name", "x")
    assert seen.returncode == 0, seen.stderr
    assert {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    line = next(line for line in seen.stderr.splitlines() if line.startswith("warning:"))
    fault.note(f"exit 0, `{fault.shown(line)}`", {}, new=["data", "runs", model.name])


@kind("killed: parts left behind", "a half written tree and file of a dead run lie there", "the next run removes them")
def test_parts_left_behind(fault: Any, table: Path) -> None:
    part = fault.folder / f".out{STAGING_MARK}{HOST}01234567"
    (part / "tree").mkdir(parents=True)
    os.utime(part, (time.time() - 60,) * 2)
    files._swept.clear()
    done = fault.run("convert", "faces.csv", "out")
    assert (done.returncode, part.exists()) == (0, False), done.stderr
    fault.note("exit 0, no word", {"faces.csv": files.sha256_of(table)}, new=["out"])


@kind(
    "killed: the run's name", "`evaluate --name x` was killed, and is run again", "the dead run is replaced with a line"
)
def test_name_of_a_killed_run(fault: Any, data: Path, model: Path) -> None:
    release(create_run("evaluate", "x", EvaluateConfig(), fault.folder / "runs"))
    done = fault.child("evaluate", "data", "-m", model.name, "--name", "x")
    assert done.returncode == 0, done.stderr
    assert json.loads((fault.folder / "runs" / "evaluate" / "x" / "metrics.json").read_text())["n"] == 14
    line = next(line for line in done.stderr.splitlines() if line.startswith("note: runs"))
    fault.note(f"exit 0, `{fault.shown(line)}`", {}, new=["data", "runs", model.name])


@kind("run: under way", "`evaluate --name x` while another process holds that run", "refused")
def test_run_under_way(fault: Any, data: Path, model: Path) -> None:
    release(create_run("evaluate", "x", EvaluateConfig(), fault.folder / "runs"))
    held = "import sys; from pathlib import Path; from deepfer_yolo.files import hold; h = hold(Path(sys.argv[1]));"
    words = [sys.executable, "-c", f"{held} print('held', flush=True); sys.stdin.read()", "runs/evaluate/x"]
    with subprocess.Popen(words, cwd=fault.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        fault.see("evaluate", "data", "-m", model.name, "--name", "x")
        process.communicate()


@kind("run: can go on", "`train --name x` where a stopped training has that name", "refused; `--resume` is named")
def test_run_that_can_go_on(fault: Any, data: Path, model: Path) -> None:
    run = create_run("evaluate", "x", EvaluateConfig(), fault.folder / "runs")
    release(run)
    (run / "weights").mkdir()
    (run / "weights" / "last.pt").write_bytes(b"weights")
    fault.see("evaluate", "data", "-m", model.name, "--name", "x")


@kind("run: name that leads away", "`--name ../x`", "refused")
def test_name_that_leads_away(fault: Any, data: Path, model: Path) -> None:
    fault.see("evaluate", "data", "-m", model.name, "--name", "../x")


@kind("run: broken metrics.json", "half of a run's metrics.json", "`runs list` shows the other runs and names it")
def test_broken_metrics(fault: Any) -> None:
    for name, text in (("whole", '{"n": 7}'), ("broken", '{"n": 7, "top1"')):
        run = create_run("evaluate", name, EvaluateConfig(), fault.folder / "runs")
        release(run)
        (run / "metrics.json").write_text(text)
    assert "whole" in fault.see("runs", "list", code=0).stdout


@kind("run: metrics.json nested 3,000 times", "brackets in brackets", "`runs show` names it")
def test_nested_metrics(fault: Any) -> None:
    run = create_run("evaluate", "x", EvaluateConfig(), fault.folder / "runs")
    release(run)
    (run / "metrics.json").write_text("[" * 3000 + "]" * 3000)
    assert "metrics.json cannot be read" in fault.see("runs", "show", "x", code=0).stderr


@kind("intervals: few images", "14 images of 3 subjects with 9, 4 and 1 of them", "no share and no bound leaves 0..1")
def test_shares_stay_shares(fault: Any, data: Path, model: Path) -> None:
    lines = (data / "manifest.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    subjects = iter("aaaaaaaaabbbbc")
    for row in rows:
        row[4] = next(subjects) if row[1] == "val" else ""
    (data / "manifest.csv").write_text("\n".join([lines[0], *map(",".join, rows)]) + "\n")
    fault.see("evaluate", "data", "-m", model.name, "--name", "x", code=0, new=["runs"])
    found = json.loads((fault.folder / "runs/evaluate/x/metrics.json").read_text())["intervals"]
    bounds = [pair for name, pair in found.items() if name not in ("nll", "brier", "selective_accuracy")]
    bounds += found["selective_accuracy"].values()
    assert len(bounds) > 10
    assert all(0 <= bound <= 1 for pair in bounds for bound in pair or ()), found
