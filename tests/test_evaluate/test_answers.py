"""Answers of other programs: joined by name, held against hand-computed figures, refused where anything is unclear."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepfer_yolo.config import EvaluateConfig
from deepfer_yolo.data.dataset import Dataset, open_dataset
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import ConfigError, DatasetError
from deepfer_yolo.evaluate.answers import read_answers
from deepfer_yolo.evaluate.evaluation import evaluate_answers
from deepfer_yolo.evaluate.predictions import predictions_csv
from deepfer_yolo.evaluate.tables import summary_rows
from deepfer_yolo.files import sha256_of

CONFIG = EvaluateConfig(split="test", replicates=100)
TRUTH = ("angry", "angry", "happy", "happy", "sad", "sad")
# The probabilities of angry, happy and sad; four of six are right.
GIVEN = ((0.6, 0.3, 0.1), (0.2, 0.7, 0.1), (0.1, 0.8, 0.1), (0.0, 1.0, 0.0), (0.5, 0.1, 0.4), (0.1, 0.1, 0.8))
SAID = ("angry", "happy", "happy", "happy", "angry", "sad")
HEADER = "prob_Anger,prob_disgust,prob_Fear,prob_Happiness,prob_neutral,prob_SAD,prob_surprised"


@pytest.fixture(scope="module")
def data(write_answer_sheets: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    truth = [EMOTIONS.index(label) for label in TRUTH]
    return open_dataset(write_answer_sheets(tmp_path_factory.mktemp("six") / "data", truth, [truth]))


def numbers(given: tuple[float, float, float]) -> str:
    """One image's probabilities in the order of HEADER."""
    angry, happy, sad = given
    return f"{angry},0,0,{happy},0,{sad},0"


def written(folder: Path, *lines: str, name: str = "answers.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def full(data: Dataset, folder: Path) -> Path:
    rows = [f"{row.path},{numbers(given)}" for row, given in zip(data.rows("test"), GIVEN, strict=True)]
    return written(folder, f"path,{HEADER}", *reversed(rows))


def test_every_metric_of_probabilities_is_as_computed_by_hand(data: Dataset, tmp_path: Path) -> None:
    file = full(data, tmp_path)
    found = evaluate_answers([file], data, CONFIG)
    metrics = found.metrics
    assert (metrics.n, metrics.labels) == (6, EMOTIONS)
    assert metrics.top1 == pytest.approx(4 / 6)
    assert metrics.top2 == 1
    assert metrics.macro_f1 == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)
    assert metrics.nll == pytest.approx(-math.log(0.6 * 0.2 * 0.8 * 1.0 * 0.4 * 0.8) / 6)
    assert metrics.brier == pytest.approx((0.26 + 1.14 + 0.06 + 0 + 0.62 + 0.06) / 6)
    # Each in a bin of its own but the two of 0.8: |1 - 0.6|, |0 - 0.7|, 2 × |1 - 0.8|, 0, |0 - 0.5|.
    assert metrics.ece == pytest.approx((0.4 + 0.7 + 0.4 + 0 + 0.5) / 6)
    assert metrics.confusion[0].tolist() == [1, 0, 0, 1, 0, 0, 0]
    assert metrics.intervals.top1.low < 4 / 6 < metrics.intervals.top1.high
    assert found.to_json()["answers"] == [{"path": str(file), "sha256": sha256_of(file), "n": 6}]
    assert "model" not in found.to_json()
    assert str(found.answers[0]) == f"answers of {file}, sha256 {sha256_of(file)[:12]}"


@pytest.mark.parametrize("way", ["path", "longer", "windows", "name", "sha256", "shards", "p_", "bare", "logits"])
def test_all_ways_to_say_the_same_have_the_same_figures(way: str, data: Dataset, tmp_path: Path) -> None:
    called = {
        "longer": lambda row: f"/somewhere/else/{row.path}",
        "windows": lambda row: "C:\\set\\" + row.path.replace("/", "\\"),
        "name": lambda row: row.path.rpartition("/")[2],
        "sha256": lambda row: row.sha256,
    }.get(way, lambda row: row.path)
    header = {"p_": HEADER.replace("prob_", "p_"), "bare": HEADER.replace("prob_", "")}.get(way, HEADER)
    rows = [f"{called(row)},{numbers(given)}" for row, given in zip(data.rows("test"), GIVEN, strict=True)]
    if way == "logits":
        header = HEADER.replace("prob_", "logit_")
        rows = [
            f"{row.path},{','.join(str(math.log(max(float(p), 1e-9)) + 7) for p in numbers(given).split(','))}"
            for row, given in zip(data.rows("test"), GIVEN, strict=True)
        ]
    first = "sha256" if way == "sha256" else "image" if way == "name" else "path"
    files = [written(tmp_path, f"{first},{header}", *rows)]
    if way == "shards":
        # The second has the columns in another order.
        turned = [",".join([path, *reversed(rest)]) for path, *rest in (row.split(",") for row in rows[2:])]
        files = [
            written(tmp_path, f"path,{header}", *rows[:2], name="a.csv"),
            written(tmp_path, f"path,{','.join(reversed(header.split(',')))}", *turned, name="b.csv"),
        ]
    scores, read = read_answers(files, data, CONFIG)
    assert scores.probs[:, [0, 3, 5]] == pytest.approx(np.array(GIVEN), abs=1e-6)
    assert [scores.labels[target] for target in scores.targets] == list(TRUTH)
    assert [file.n for file in read] == ([2, 4] if way == "shards" else [6])


def test_labels_alone_have_accuracy_and_f1_and_no_figure_that_needs_probabilities(
    data: Dataset, tmp_path: Path
) -> None:
    lines = [f"{row.path},{said.title()}" for row, said in zip(data.rows("test"), SAID, strict=True)]
    found = evaluate_answers([written(tmp_path, "path,label", *lines)], data, CONFIG)
    metrics, shown = found.metrics, found.to_json()
    assert metrics.top1 == pytest.approx(4 / 6)
    assert metrics.macro_f1 == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)
    assert metrics.confusion[5].tolist() == [1, 0, 0, 0, 0, 1, 0]
    missing = {"top2", "top5", "nll", "brier", "ece", "ece_noise_floor", "selective_accuracy", "reliability"}
    assert set(metrics.not_measured) == missing
    assert not any(shown.get(name) for name in missing)
    assert 0 not in [shown.get(name) for name in missing], "no zero stands for what was not measured"
    cells = {row[0]: row[1:] for row in summary_rows(metrics)}
    assert cells["top-5 accuracy"] == cells["ECE, 15 bins"] == cells["NLL (nats)"] == ["–", ""]
    assert cells["top-1 accuracy"][0] == "66.7"
    again = written(tmp_path, *predictions_csv(found.scores).decode().splitlines(), name="again.csv")
    assert again.read_text().startswith("path,label,answer\n")
    assert evaluate_answers([again], data, CONFIG).metrics.to_json() == metrics.to_json()


def refused(data: Dataset, *files: Path, labels: str = "same") -> str:
    with pytest.raises(DatasetError) as caught:
        read_answers(files, data, CONFIG.model_copy(update={"labels": labels}))
    return f"{caught.value} | {caught.value.hint}"


def test_missing_double_and_unknown_images_are_named(data: Dataset, tmp_path: Path) -> None:
    header, *rows = full(data, tmp_path).read_text().splitlines()
    paths = [row.path for row in data.rows("test")]
    text = refused(data, written(tmp_path, header, *rows[1:], name="short.csv"))
    assert f"{paths[5]}: has no answer" in text
    double = written(tmp_path, header, *rows, rows[2], name="double.csv")
    assert f"double.csv, line 8: {paths[3]} has an answer already, in {double}, line 4" in refused(data, double)
    shards = [written(tmp_path, header, *part, name=name) for part, name in ((rows[:4], "a.csv"), (rows[3:], "b.csv"))]
    assert f"b.csv, line 2: {paths[2]} has an answer already, in {shards[0]}, line 5" in refused(data, *shards)
    stranger = written(tmp_path, header, *rows, f"test/sad/no.png,{numbers(GIVEN[0])}", name="stranger.csv")
    assert "stranger.csv, line 8: test/sad/no.png: no such image in the data set" in refused(data, stranger)
    failed = written(tmp_path, "path,label,error", f"{paths[0]},,cannot be read", name="failed.csv")
    assert f"failed.csv, line 2: {paths[0]} has no answer but an error: cannot be read" in refused(data, failed)


def test_a_file_name_of_two_images_is_refused(data: Dataset, tmp_path: Path) -> None:
    first = data.rows("test")[0]
    twice = replace(data, all_rows=(*data.all_rows, replace(first, path="val/angry/00000.png", split="val")))
    header, *rows = full(data, tmp_path).read_text().splitlines()
    named = written(tmp_path, header, *rows[:-1], rows[-1].rpartition("/")[2])
    assert "00000.png: 2 images of the data set are called so" in refused(twice, named)
    # A path tells them apart, and answers to another split are passed over.
    both = written(tmp_path, header, *rows, f"val/angry/00000.png,{numbers(GIVEN[1])}")
    scores, _ = read_answers([both], twice, CONFIG)
    assert len(scores.rows) == 6


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("0.6,0,0,0.2,0,0.1,0", "the probabilities sum to 0.9, not to 1"),
        ("5.1,-2,0,1,0,0.1,0", "these are logits, not probabilities: call the columns logit_LABEL"),
        ("0.6,0,0,0.3,0,nan,0.1", "a number is missing, or is none"),
        ("0.6,0,0,0.3,0,,0.1", "a number is missing, or is none"),
        ("0.6,0,0", "4 values where more than 7 belong"),
    ],
)
def test_numbers_that_are_no_probabilities_are_refused(row: str, why: str, data: Dataset, tmp_path: Path) -> None:
    header, *rows = full(data, tmp_path).read_text().splitlines()
    bad = written(tmp_path, header, *rows[:5], f"{data.rows('test')[0].path},{row}")
    text = refused(data, bad)
    assert f"line 7: {why}" in text
    assert "has no answer" not in text, "the image has one, and it is named once"


def test_labels_must_meet_and_say_one_thing(data: Dataset, tmp_path: Path) -> None:
    header, *rows = full(data, tmp_path).read_text().splitlines()
    more = written(tmp_path, f"{header},prob_contempt", *(f"{row},0" for row in rows), name="more.csv")
    text = refused(data, more)
    assert "the file alone knows contempt" in text
    assert "--labels intersect" in text
    scores, _ = read_answers([more], data, CONFIG.model_copy(update={"labels": "intersect"}))
    assert scores.probs[:, [0, 3, 5]] == pytest.approx(np.array(GIVEN), abs=1e-6)
    unknown = written(tmp_path, "path,label", *(f"{row.path},bored" for row in data.rows("test")), name="bored.csv")
    assert "the label 'bored' is none of angry" in refused(data, unknown)
    shard = written(tmp_path, header.replace("prob_SAD", "prob_bored"), name="b.csv")
    assert "has other label columns than" in refused(data, tmp_path / "answers.csv", shard)
    said = [f"{row},{label}" for row, label in zip(rows, reversed(SAID), strict=True)]
    read_answers([written(tmp_path, f"{header},label", *said)], data, CONFIG)
    true = [f"{row},{label}" for row, label in zip(rows, reversed(TRUTH), strict=True)]
    read_answers([written(tmp_path, f"{header},label", *true)], data, CONFIG)
    said[0] = said[0].replace(",sad", ",happy")
    mixed = written(tmp_path, f"{header},label", *said)
    assert "line 2: the label is 'happy', but the most probable one SAD" in refused(data, mixed)


def test_what_is_no_file_of_answers_is_refused(data: Dataset, tmp_path: Path) -> None:
    assert "no such file of answers" in refused(data, tmp_path / "none.csv")
    assert "is a manifest" in refused(data, data.root / "manifest.csv")
    assert "has no column that names the images: id, label" in refused(data, written(tmp_path, "id,label", "1,sad"))
    assert "has no answers: path, time_ms" in refused(data, written(tmp_path, "path,time_ms", "a.png,3"))
    assert "two columns of one name" in refused(data, written(tmp_path, "path,prob_sad,Prob_Sad", "a.png,1,0"))
    assert "has no column that names the images" in refused(data, written(tmp_path, ""))


@pytest.mark.parametrize("more", [{"tta": "flip"}, {"robustness": True}])
def test_what_needs_a_model_is_refused(more: dict[str, object], data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="have no model to ask"):
        evaluate_answers([full(data, tmp_path)], data, CONFIG.model_copy(update=more))
