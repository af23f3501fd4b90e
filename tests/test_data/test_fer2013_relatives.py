"""Tables that are nearly FER2013's: each gives the very data set that fer2013.csv gives, or says what it lacks."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from deepfer_yolo.config import ConvertConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.emotions import FER2013_CODES
from deepfer_yolo.errors import DatasetError

PLAIN = ConvertConfig(group_by="none")
Row = list[str]
USAGE = {"Training": "train", "PublicTest": "Validation", "PrivateTest": "TEST"}


def spread(rows: list[Row], names: Row) -> list[Row]:
    """A column for each pixel."""
    return [["emotion", *names, "Usage"], *([code, *pixels.split(), usage] for code, pixels, usage in rows)]


FORMS: dict[str, Callable[[list[Row]], list[Row]]] = {
    "lower case": lambda rows: [["emotion", "pixels", "usage"], *([c, p, u.lower()] for c, p, u in rows)],
    "upper case": lambda rows: [["Emotion", "Pixels", "USAGE"], *([c, p, u.upper()] for c, p, u in rows)],
    "other splits": lambda rows: [["label", "pixels", "Usage"], *([c, p, USAGE[u]] for c, p, u in rows)],
    "floats": lambda rows: [
        ["emotion", "pixels", "Usage"],
        *([f"{c}.0", p.replace(" ", ".0 "), u] for c, p, u in rows),
    ],
    "names": lambda rows: [
        ["emotion", "pixels", "Usage"],
        *([FER2013_CODES[int(c)].title(), p, u] for c, p, u in rows),
    ],
    "index": lambda rows: [["", "emotion", "pixels", "Usage"], *([str(i), *row] for i, row in enumerate(rows))],
    "lists": lambda rows: [["emotion", "pixels", "Usage"], *([c, f"[{', '.join(p.split())}]", u] for c, p, u in rows)],
    "array": lambda rows: [["emotion", "pixels", "Usage"], *([c, f"[{_broken(p)}]", u] for c, p, u in rows)],
    "pixel0": lambda rows: spread(rows, [f"pixel{i}" for i in range(2304)]),
    "pixel_1": lambda rows: spread(rows, [f"Pixel_{i + 1}" for i in range(2304)]),
    "numbers": lambda rows: spread(rows, [str(i) for i in range(2304)]),
    "no names": lambda rows: spread(rows, [""] * 2304),
    "backwards": lambda rows: [
        ["Usage", *(f"pixel{i}" for i in reversed(range(2304))), "emotion"],
        *([usage, *reversed(pixels.split()), code] for code, pixels, usage in rows),
    ],
    "index and pixels": lambda rows: [
        ["Unnamed: 0", *spread(rows, [f"pixel{i}" for i in range(2304)])[0]],
        *([str(i), *row] for i, row in enumerate(spread(rows, [""] * 2304)[1:])),
    ],
}


def _broken(pixels: str) -> str:
    """As numpy prints an array: padded, over several lines."""
    words = pixels.split()
    return "\n ".join(" ".join(f"{word:>3}" for word in words[at : at + 48]) for at in range(0, 2304, 48))


def written(path: Path, rows: list[Row], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.fixture
def rows(painted_csv: Path) -> list[Row]:
    with painted_csv.open(newline="") as file:
        return list(csv.reader(file))[1:]


OTHERWISE = [(form, mark) for mark in (";", "\t") for form in ("lower case", "lists", "numbers", "no names")]


@pytest.mark.parametrize(("form", "delimiter"), [*((form, ",") for form in FORMS), *OTHERWISE])
def test_the_same_data_set(form: str, delimiter: str, rows: list[Row], painted_dataset: Path, tmp_path: Path) -> None:
    found = convert(written(tmp_path / "a.csv", FORMS[form](rows), delimiter), tmp_path / "out", PLAIN)
    assert found.options["layout"] == "fer2013-csv"
    assert found.fingerprint == open_dataset(painted_dataset).fingerprint


def ckextended(rows: list[Row]) -> list[Row]:
    """Every twentieth row bears the code 7."""
    return [["emotion", "pixels", "Usage"], *([c if i % 20 else "7", p, u] for i, (c, p, u) in enumerate(rows))]


def test_contempt_in_ckextended_is_mapped_or_dropped_and_never_guessed(rows: list[Row], tmp_path: Path) -> None:
    source = written(tmp_path / "ckextended.csv", ckextended(rows))
    n_contempt = len(rows[::20])
    with pytest.raises(DatasetError) as caught:
        convert(source, tmp_path / "out", PLAIN)
    assert f"label '7': not a known emotion ({n_contempt} images); --map '7=" in caught.value.message
    assert "--drop '7'" in caught.value.message
    eight = convert(source, tmp_path / "eight", ConvertConfig(map={"7": "contempt"}))
    assert (len(eight.labels), eight.name, eight.licence) == (8, "CK+", "research only, on request")
    assert Counter(row.label for row in open_dataset(tmp_path / "eight").all_rows)["contempt"] == n_contempt
    seven = convert(source, tmp_path / "seven", ConvertConfig(drop=("7",)))
    assert len(seven.labels) == 7
    assert seven.left_out == {"7": n_contempt}
    assert sum(sum(counts.values()) for counts in seven.counts.values()) == len(rows) - n_contempt


def test_several_tables_in_a_folder_are_named(rows: list[Row], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("test", "train"):
        written(tmp_path / "set" / f"{name}.csv", [["emotion", "pixels"], *(row[:2] for row in rows[:5])])
    with pytest.raises(DatasetError) as caught:
        convert(tmp_path / "set", tmp_path / "out", PLAIN)
    assert (
        caught.value.hint
        == f"it holds 2 tables (test.csv, train.csv); name one: deepfer convert {tmp_path / 'set' / 'test.csv'}"
    )


def test_ckextended_in_a_folder_beside_a_readme(rows: list[Row], tmp_path: Path) -> None:
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck" / "README.md").write_text("read me")
    written(tmp_path / "ck" / "ckextended.csv", ckextended(rows))
    assert len(convert(tmp_path / "ck", tmp_path / "out", ConvertConfig(map={"7": "contempt"})).labels) == 8


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda rows: [["emotion", "pixels", "Usage"], ["3", "[1, 2]", "Training"]],
            "line 2: 2 pixels where 2304 belong",
        ),
        (lambda rows: [["emotion", "pixels"], ["3", rows[0][1].replace(" ", " 0.", 1)]], "line 2: pixel 1 is '0."),
        (lambda rows: [["emotion", "pixels"], ["3", f"[{rows[0][1][:40]} ... 7]"]], "pixels where 2304 belong"),
        (lambda rows: [["emotion", "pixels"], ["\u0663", rows[0][1]]], "line 2: emotion is '\u0663'"),
        (lambda rows: [["emotion", "pixels"], ["-1", rows[0][1]]], "line 2: emotion is '-1'"),
        (lambda rows: [["emotion", "pixels"], ["1.5", rows[0][1]]], "line 2: emotion is '1.5'"),
        (lambda rows: [spread(rows, ["p"] * 2304)[0], *spread(rows, [])[1:]], "line 1: no column 'pixels'"),
        (lambda rows: spread(rows, [f"pixel{i}" for i in range(2303)]), "line 1: no column 'pixels'"),
        (lambda rows: spread(rows, [])[1:], "line 1: no column 'emotion'"),
        (lambda rows: rows, "line 1: no column 'emotion'"),
        (
            lambda rows: [*spread(rows[:1], [""] * 2304), ["3", *["7"] * 2000, "", *["7"] * 303, "Training"]],
            "pixel 2000 is",
        ),
        (
            lambda rows: [*spread(rows[:1], [""] * 2304), ["3", *["7"] * 2000, "7 7", *["7"] * 303, "Training"]],
            "2305 pixels",
        ),
    ],
)
def test_what_is_wrong_is_said(
    change: Callable[[list[Row]], list[Row]], what: str, rows: list[Row], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError) as caught:
        convert(written(tmp_path / "a.csv", change(rows)), tmp_path / "out", PLAIN)
    assert what in caught.value.message
    assert caught.value.hint
