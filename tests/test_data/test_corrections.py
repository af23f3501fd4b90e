"""corrections.csv: written, killed, read back; reviewers who agree and who do not; what strangers put into it."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfer_yolo.data.corrections import Corrections, CorrectionsWriter, read_corrections, write_corrections
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.data.decisions import COLUMNS, Decision, decision_of, fault_of
from deepfer_yolo.errors import DatasetError

TIME = "2026-11-28T02:10:16Z"
SHA = "0" * 64


def said(name: str, new: str, who: str = "Ada", old: str = "sad", **more: object) -> Decision:
    decision = Decision(
        f"train/{old}/{name}.png", name.encode().hex().rjust(64, "0"), "train", old, new, who, time=TIME
    )
    return replace(decision, **more)  # type: ignore[arg-type]


def of(*decisions: Decision) -> Corrections:
    return Corrections(Path("corrections.csv"), decisions, "")


def answers(corrections: Corrections) -> dict[str, str]:
    return {Path(decision.path).stem: decision.new_label for decision in corrections.settled()}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    given = [
        said("a", "fear", why="label-error", how=("model",), seconds=0.8),
        said("b", "leave-out", who='=HYPERLINK("http://x")', why='-1+1, "quoted"'),
        said('ü, "', "unsure", who="Äda ش‌ب", how=("blind", "repeat")),
    ]
    write_corrections(tmp_path / "deep" / "corrections.csv", given[:1])
    write_corrections(tmp_path / "deep" / "corrections.csv", given[1:])
    read = read_corrections(tmp_path / "deep" / "corrections.csv")
    assert list(read.decisions) == given
    assert not read.is_held_out
    assert not read.is_torn


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    hostile = ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "''+1", "'plain"]
    write_corrections(tmp_path / "c.csv", [said("a", text, who=text, old=text, why=text) for text in hostile])
    with (tmp_path / "c.csv").open(newline="") as file:
        cells = [cell for row in list(csv.reader(file))[1:] for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert [decision.why for decision in read_corrections(tmp_path / "c.csv").decisions] == hostile


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=60)


@given(TEXT, TEXT, TEXT, TEXT)
def test_any_text_survives_a_line(path: str, old: str, new: str, who: str) -> None:
    decision = Decision(f"train/{path}", SHA, "train", old, new, who, "why", ("blind",), 1.5, TIME)
    if ".." not in path and old not in ("leave-out", "unsure", "undo"):
        assert fault_of(decision.cells()) == ""
        assert decision_of(decision.cells()) == decision


GOOD = f"train/sad/a.png,{SHA},train,sad,fear,Ada,,,,{TIME}"


@pytest.mark.parametrize("cut", [1, 20, 60, 100])
def test_a_torn_last_line_is_left_out_said_and_written_over(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "corrections.csv"
    write_corrections(file, [said("a", "fear"), said("b", "fear")])
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    read = read_corrections(file)
    is_whole = cut == 1  # the line lacks its end alone
    assert read.is_torn is not is_whole
    assert len(read.decisions) == 1 + is_whole
    assert ("cut short" in caplog.text) is not is_whole
    write_corrections(file, [said("c", "fear")])
    assert [Path(d.path).stem for d in read_corrections(file).decisions] == (
        ["a", "b", "c"] if is_whole else ["a", "c"]
    )


@pytest.mark.parametrize(
    "line", [GOOD.replace("fear", ""), GOOD.replace(",,,,", ",,guess,,"), GOOD.replace("a.png,", 'a.png,",')]
)
def test_a_last_line_that_is_whole_and_wrong_is_refused_and_stays(tmp_path: Path, line: str) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text("\n".join([",".join(COLUMNS), GOOD, line]))  # an editor left its end away
    before = file.read_bytes()
    for use in (read_corrections, CorrectionsWriter):
        with pytest.raises(DatasetError, match="line 3"):
            use(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_other_systems_are_read_and_gone_on_with(tmp_path: Path, end: str) -> None:
    file = tmp_path / "corrections.csv"
    lines = [",".join(COLUMNS), GOOD, GOOD.replace("a.png", "b.png")]
    file.write_bytes(("\ufeff" + end.join([*lines, ""])).encode())
    write_corrections(file, [said("c", "fear")])
    assert answers(read_corrections(file)) == {"a": "fear", "b": "fear", "c": "fear"}


@pytest.mark.parametrize("kept", [0, 10, len(",".join(COLUMNS))])
def test_a_kill_before_the_first_line_leaves_a_file_without_decisions(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text(",".join(COLUMNS)[:kept])
    assert read_corrections(file).decisions == ()
    write_corrections(file, [said("a", "fear")])
    assert answers(read_corrections(file)) == {"a": "fear"}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (GOOD.replace("train/sad/a.png", "../a.png"), "path must be a path inside"),
        (GOOD.replace("train/sad/a.png", "/etc/passwd"), "path must be a path inside"),
        (GOOD.replace(SHA, "12"), "sha256 must be 64"),
        (GOOD.replace(",train,", ",training,"), "split must be one of"),
        (GOOD.replace(",train,", ",val,"), "never share a file"),
        (GOOD.replace(",sad,", ",undo,"), "old_label must be"),
        (GOOD.replace(",fear,", ",,"), "new_label must be"),
        (GOOD.replace("Ada", "A\x1b[31mda"), "reviewer holds control characters"),
        (GOOD.replace("Ada", '"A\nda"'), "reviewer holds control characters"),
        (GOOD.replace("Ada", "A" * 81), "reviewer is longer than 80"),
        (GOOD.replace(",,,,", ",,guess,,"), "how must be of blind"),
        (GOOD.replace(",,,,", ",,,nan,"), "seconds must be a number"),
        (GOOD.replace(TIME, "2026-13-28T02:10:16Z"), "time must be UTC"),
        (GOOD.replace(TIME, "2026-11-28T02:10:16+01:00"), "time must be UTC"),
        (GOOD + ",", "11 values where 10 belong"),
        ("A" * 200_000, "longer than 100,000"),
    ],
)
def test_a_bad_line_in_the_middle_is_refused_with_its_line_and_field(tmp_path: Path, line: str, field: str) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text("\n".join([",".join(COLUMNS), GOOD, line, GOOD.replace("a.png", "b.png")]) + "\n")
    with pytest.raises(DatasetError, match=field) as error:
        read_corrections(file)
    assert error.value.line == (4 if '"' in line else 3)
    assert "\x1b" not in error.value.message


def test_bytes_that_are_no_text_another_header_and_a_file_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "corrections.csv"
    file.write_bytes(f"{','.join(COLUMNS)}\n{GOOD}\n".encode().replace(b"Ada", b"A\xffda"))
    with pytest.raises(DatasetError, match="reviewer holds control characters or broken bytes"):
        read_corrections(file)
    file.write_text("path,label\na,b\n")
    with pytest.raises(DatasetError, match="the columns must be path,sha256"):
        read_corrections(file)
    with pytest.raises(DatasetError, match="the columns must be path,sha256"):
        CorrectionsWriter(file)
    assert file.read_text() == "path,label\na,b\n"
    monkeypatch.setattr("deepfer_yolo.data.corrections.MAX_BYTES", 10)
    with pytest.raises(DatasetError, match="is larger than"):
        read_corrections(file)
    with pytest.raises(DatasetError, match="no such file of corrections"):
        read_corrections(tmp_path / "absent.csv")


def test_nothing_is_written_that_could_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    with CorrectionsWriter(file) as writer:
        for bad in (said("a", "fear", who="A\nB"), said("a", "fear", path="../x"), said("a", "fear", time="now")):
            with pytest.raises(DatasetError):
                writer.append(bad)
        writer.append(said("a", "fear"))
        with pytest.raises(DatasetError, match="never share a file"):
            writer.append(said("b", "fear", split="test"))
    assert answers(read_corrections(file)) == {"a": "fear"}


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    with CorrectionsWriter(tmp_path / "c.csv"), pytest.raises(DatasetError, match="another review is writing it"):
        CorrectionsWriter(tmp_path / "c.csv")
    assert not (tmp_path / "c.csv").exists()  # nothing was decided
    with CorrectionsWriter(tmp_path / "c.csv") as writer:
        assert writer.before.decisions == ()


def replaced(file: Path) -> None:
    copy = file.with_name("saved.csv")
    copy.write_bytes(file.read_bytes())
    copy.replace(file)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be replaced there")
@pytest.mark.parametrize(
    "touch",
    [replaced, Path.unlink, lambda file: file.write_bytes(b""), lambda file: file.write_bytes(file.read_bytes() * 2)],
    ids=["saved by an editor", "removed", "emptied", "grown"],
)
def test_a_file_that_another_program_touches_takes_no_more_lines(
    tmp_path: Path, touch: Callable[[Path], object]
) -> None:
    file = tmp_path / "corrections.csv"
    with CorrectionsWriter(file) as writer:
        writer.append(said("a", "fear"))
        touch(file)
        after = file.read_bytes() if file.exists() else None
        with pytest.raises(DatasetError, match="another program"):
            writer.append(said("b", "fear"))
        assert (file.read_bytes() if file.exists() else None) == after


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        with pytest.raises(DatasetError, match="is no file"):
            CorrectionsWriter(path)


def test_undo_takes_back_the_reviewers_own_last_decision() -> None:
    assert answers(of(said("a", "fear"), said("a", "undo"))) == {}
    assert answers(of(said("a", "fear"), said("a", "happy"), said("a", "undo"))) == {"a": "fear"}
    assert answers(of(said("a", "fear"), said("a", "undo", who="Bob"))) == {"a": "fear"}
    assert answers(of(said("a", "undo"), said("a", "fear"))) == {"a": "fear"}


def test_reviewers_in_conflict_settle_nothing_until_they_agree() -> None:
    two = [said("a", "fear"), said("a", "happy", who="Bob"), said("b", "sad"), said("b", "unsure", who="Bob")]
    assert answers(of(*two)) == {"b": "sad"}
    conflict = of(*two).conflicts()[0]
    assert [(decision.reviewer, decision.new_label) for decision in conflict.decisions] == [
        ("Ada", "fear"),
        ("Bob", "happy"),
    ]
    assert answers(of(*two, said("a", "happy"))) == {"a": "happy", "b": "sad"}
    third = of(*two, said("a", "happy", who="Cyd"))
    assert answers(third) == {"a": "happy", "b": "sad"}
    assert third.conflicts() == ()
    assert answers(of(*two, said("a", "sad", who="Cyd"))) == {"b": "sad"}
    assert answers(of(said("a", "unsure"), said("a", "unsure", who="Bob"))) == {"a": "unsure"}
    assert of(*two).counts() == {
        "decisions": 4,
        "images": 2,
        "changed": 0,
        "kept": 1,
        "left_out": 0,
        "unsure": 0,
        "conflicts": 1,
        "reviewers": 2,
        "blind": 0,
        "with_model": 0,
    }


def test_kappa_is_cohens() -> None:
    # Worked out by hand: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no; observed 0.7, expected 0.5, kappa 0.4.
    said_by_both = [("fear", "fear")] * 20 + [("fear", "sad")] * 5 + [("sad", "fear")] * 10 + [("sad", "sad")] * 15
    decisions = []
    for index, (ada, bob) in enumerate(said_by_both):
        decisions += [said(str(index), ada), said(str(index), bob, who="Bob")]
    (agreement,) = of(*decisions, said("alone", "fear")).kappa()
    assert (agreement.reviewers, agreement.n) == (("Ada", "Bob"), 50)
    assert agreement.agreement == pytest.approx(0.7)
    assert agreement.kappa == pytest.approx(0.4)
    (certain,) = of(said("a", "fear"), said("a", "fear", who="Bob")).kappa()
    assert math.isnan(certain.kappa)


def test_a_repeat_measures_the_reviewer_and_decides_nothing() -> None:
    again = ("repeat",)
    found = of(
        said("a", "fear"), said("b", "fear"), said("c", "fear"),
        said("a", "fear", how=again), said("b", "sad", how=again),
        said("c", "sad", how=again), said("c", "undo", how=again),
    )  # fmt: skip
    assert answers(found) == {"a": "fear", "b": "fear", "c": "fear"}
    (ada,) = found.consistency()
    assert (ada.reviewer, ada.n, ada.same) == ("Ada", 2, 1)


def test_corrections_find_their_images_and_refuse_strangers(painted_dataset: Path) -> None:
    dataset = open_dataset(painted_dataset)
    row, other = dataset.rows("train")[:2]
    mine = Decision(row.path, row.sha256, "train", row.label, "fear", time=TIME)
    assert of(mine).check_against(dataset) == {row.path: mine}
    renamed = replace(mine, path="train/sad/elsewhere.png")
    assert of(renamed).check_against(dataset) == {row.path: renamed}
    stranger = replace(mine, path="train/sad/x.png", sha256=SHA)
    with pytest.raises(DatasetError, match=r"names 1 of 2 images that are not in FER2013, such as 'train/sad/x.png'"):
        of(mine, stranger).check_against(dataset)
    with pytest.raises(DatasetError, match="'bored' is no label of FER2013"):
        of(replace(mine, new_label="bored")).check_against(dataset)
    moved = replace(dataset, all_rows=(replace(row, split="test"), other))
    with pytest.raises(DatasetError, match="was in train and is in test here"):
        of(mine).check_against(moved)
    copies = replace(dataset, all_rows=(row, replace(other, sha256=row.sha256)))
    assert list(of(mine).check_against(copies)) == [row.path]
    both = of(replace(mine, path="a"), replace(mine, path="b", new_label="happy"))
    with pytest.raises(DatasetError, match="which has the bytes of several reviewed images"):
        both.check_against(dataset)


KILLED = """
import sys
from pathlib import Path
from deepfer_yolo.data.corrections import CorrectionsWriter
from deepfer_yolo.data.decisions import Decision, now
with CorrectionsWriter(Path(sys.argv[1])) as writer:
    for n in range(100_000):
        writer.append(Decision(f"train/sad/{n}.png", f"{n:064x}", "train", "sad", "fear", time=now()))
        print(n, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_kill_loses_nothing_that_was_said_to_be_written(tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    told = [int(line) for line in process.communicate()[0].splitlines()]
    n = len(read_corrections(file).decisions)
    assert n - max(told, default=49) - 1 in (0, 1)
    write_corrections(file, [said("last", "fear")])
    assert len(read_corrections(file).decisions) == n + 1
