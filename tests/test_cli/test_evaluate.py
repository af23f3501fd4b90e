"""`deepfer evaluate` at the shell."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfer_yolo.data.dataset import fingerprint, open_dataset
from deepfer_yolo.emotions import EMOTIONS

Deepfer = Callable[..., Any]


def shell(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deepfer_yolo", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def evaluated(
    painted_dataset: Path, linear_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("evaluated")
    done = shell("evaluate", painted_dataset, "-m", linear_model, "--name", "a", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "evaluate" / "a", json.loads(done.stdout), done.stderr


def test_json_and_files_agree_with_the_model(
    evaluated: tuple[Path, dict[str, Any], str], painted_dataset: Path, linear_model: Path
) -> None:
    run, result, stderr = evaluated
    from deepfer_yolo.runtime.classifier import Classifier

    with (painted_dataset / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    images = [np.asarray(Image.open(painted_dataset / row["path"]).convert("RGB")) for row in rows]
    guesses = [EMOTIONS[i] for i in Classifier(linear_model).predict_images(images).argmax(1)]
    right = sum(guess == row["label"] for guess, row in zip(guesses, rows, strict=True))
    assert result["top1"] == right / 56
    assert 0.2 < result["top1"] < 1, "chance is 0.14"
    assert result["n"] == 56
    assert json.loads((run / "metrics.json").read_text()) == result
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "env.json",
        "metrics.json",
        "predictions.csv",
        "report.html",
    }
    assert "runs/evaluate/a/report.html" in stderr.replace("\n", "")


def test_report_is_one_file_with_the_mistakes_as_images(evaluated: tuple[Path, dict[str, Any], str]) -> None:
    run, result, _ = evaluated
    html = (run / "report.html").read_text()
    wrong = 56 - round(result["top1"] * 56)
    assert html.count("data:image/png;base64,") == min(24, wrong) + min(6, wrong) + min(12, wrong)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", html), "the report must load nothing"
    assert "deepfer evaluate" in html
    assert "Confusion matrix of 7 classes" in html
    assert "width=device-width" in html


def test_table_fits_80_columns(deepfer: Deepfer, painted_dataset: Path, linear_model: Path, tmp_path: Path) -> None:
    done = deepfer("evaluate", painted_dataset, "-m", linear_model, "--split", "test")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for word in ("top-1 accuracy", "macro F1", "ECE", "surprise", "95 % interval"):
        assert word in done.stdout


def test_second_run_of_a_name_is_refused(
    deepfer: Deepfer,
    monkeypatch: pytest.MonkeyPatch,
    evaluated: tuple[Path, dict[str, Any], str],
    painted_dataset: Path,
    linear_model: Path,
) -> None:
    monkeypatch.chdir(evaluated[0].parents[2])
    before = (evaluated[0] / "metrics.json").read_bytes()
    done = deepfer("evaluate", painted_dataset, "-m", linear_model, "--name", "a")
    assert done.returncode == 1
    assert "a run of this name already" in done.stderr
    assert (evaluated[0] / "metrics.json").read_bytes() == before


def test_model_without_a_card(deepfer: Deepfer, painted_dataset: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info("image", TensorProto.UINT8, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["probs"])],
        "g",
        [info],
        [helper.make_tensor_value_info("probs", TensorProto.UINT8, [1])],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "bare.onnx"))
    done = deepfer("evaluate", painted_dataset, "-m", tmp_path / "bare.onnx")
    assert done.returncode == 1
    assert "no model card" in done.stderr
    assert "hint: deepfer card" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_other_labels_are_refused_by_name(
    deepfer: Deepfer, painted_dataset: Path, write_linear_model: Callable[..., Path], tmp_path: Path
) -> None:
    labels = ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
    model = write_linear_model(
        tmp_path / "ck.onnx", np.zeros((7, 8 * 8 * 3), np.float32), np.zeros(7, np.float32), labels
    )
    done = deepfer("evaluate", painted_dataset, "-m", model)
    assert done.returncode == 1
    assert "the model alone knows contempt; the data set alone knows neutral" in done.stderr
    assert "--labels intersect" in done.stderr


def test_empty_split(deepfer: Deepfer, painted_dataset: Path, linear_model: Path, tmp_path: Path) -> None:
    from deepfer_yolo.data.dataset import read_description, read_manifest, register

    (tmp_path / "small").mkdir()
    rows = [row for row in read_manifest(painted_dataset) if row.split != "val"]
    register(rows, read_description(painted_dataset), tmp_path / "small")
    done = deepfer("evaluate", tmp_path / "small", "-m", linear_model)
    assert done.returncode == 1
    assert "has no 'val' split; it has train, test" in done.stderr


@pytest.fixture(scope="module")
def sheets(
    tmp_path_factory: pytest.TempPathFactory,
    write_answer_sheets: Callable[..., Path],
    write_sheet_reader: Callable[..., Path],
) -> Path:
    """140 images of seven subjects: model a is right on 100, b labels by votes."""
    folder = tmp_path_factory.mktemp("sheets")
    truth = [i % 7 for i in range(140)]
    given = [label if i < 100 else (label + 1) % 7 for i, label in enumerate(truth)]
    votes = [f"{EMOTIONS[label]}:6 {EMOTIONS[(label + 1) % 7]}:4" if i % 2 else "" for i, label in enumerate(truth)]
    write_answer_sheets(folder / "data", truth, [given], subjects=[f"s{i // 20}" for i in range(140)], votes=votes)
    write_sheet_reader(folder / "a.onnx", 0)
    return folder


def test_groups_votes_and_intervals_by_subject(deepfer: Deepfer, sheets: Path) -> None:
    done = deepfer(
        "evaluate",
        sheets / "data",
        "-m",
        sheets / "a.onnx",
        "--split",
        "test",
        "--by",
        "subject",
        "--by",
        "label",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["top1"] == pytest.approx(100 / 140)
    assert "over 7 subjects" in result["interval_method"]
    groups = {row["value"]: row["top1"] for row in result["groups"]["subject"]}
    assert groups == {"s0": 1, "s1": 1, "s2": 1, "s3": 1, "s4": 1, "s5": 0, "s6": 0}
    assert len(result["groups"]["label"]) == 7
    votes = result["votes"]
    assert (votes["n"], votes["n_clear"]) == (70, 70)
    assert votes["majority_top1"] == pytest.approx(50 / 70)
    assert votes["vote_share"] == pytest.approx((50 * 0.6 + 20 * 0.4) / 70)
    assert (votes["label_majority_top1"], votes["label_vote_share"]) == (1, pytest.approx(0.6))


def test_predictions_csv_is_what_the_model_said(deepfer: Deepfer, sheets: Path, tmp_path: Path) -> None:
    assert (
        deepfer("evaluate", sheets / "data", "-m", sheets / "a.onnx", "--split", "test", "--name", "p").returncode == 0
    )
    with (tmp_path / "runs/evaluate/p/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 140
    assert list(rows[0]) == ["path", "label", *EMOTIONS]
    right = [max(EMOTIONS, key=lambda label: float(row[label])) == row["label"] for row in rows]
    assert right == [True] * 100 + [False] * 40
    assert all(abs(sum(float(row[label]) for label in EMOTIONS) - 1) < 1e-5 for row in rows)


def test_same_bytes_on_a_second_run_but_for_the_header(deepfer: Deepfer, sheets: Path, tmp_path: Path) -> None:
    words = ("evaluate", sheets / "data", "-m", sheets / "a.onnx", "--split", "test", "--save-plots", "--name")
    assert deepfer(*words, "one").returncode == deepfer(*words, "two").returncode == 0
    one, two = (tmp_path / "runs" / "evaluate" / name for name in ("one", "two"))
    for name in (
        "metrics.json",
        "predictions.csv",
        "config.yaml",
        "plots/confusion_matrix.png",
        "plots/reliability.png",
        "plots/coverage.png",
    ):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    bodies = [(run / "report.html").read_text().split("</header>")[1] for run in (one, two)]
    assert bodies[0] == bodies[1]


def test_clean_leaves_copies_of_training_images_out(
    deepfer: Deepfer, painted_dataset: Path, linear_model: Path, tmp_path: Path
) -> None:
    from shutil import copytree

    from deepfer_yolo.data.dataset import read_description, read_manifest, register

    data = copytree(painted_dataset, tmp_path / "leaky")
    rows = read_manifest(data)
    train = [row for row in rows if row.split == "train"][:5]
    val = [row for row in rows if row.split == "val"][:5]
    for source, target in zip(train, val, strict=True):
        (data / target.path).write_bytes((data / source.path).read_bytes())
    twins = {target.path: source.sha256 for source, target in zip(train, val, strict=True)}
    register([replace(row, sha256=twins.get(row.path, row.sha256)) for row in rows], read_description(data), data)
    done = deepfer("evaluate", data, "-m", linear_model, "--clean", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 5 <= result["clean"]["n_removed"] <= 7
    assert result["clean"]["intervals"]["top1"][0] < result["clean"]["top1"] < result["clean"]["intervals"]["top1"][1]
    assert result["clean"]["n"] == 56 - result["clean"]["n_removed"]


def test_exclude_leaves_the_listed_images_out(deepfer: Deepfer, sheets: Path, tmp_path: Path) -> None:
    wrong = [
        path.relative_to(sheets / "data").as_posix()
        for path in sorted((sheets / "data").glob("test/*/*.png"))
        if int(path.stem) >= 120
    ]
    (tmp_path / "list.csv").write_text("picture\n" + "\n".join(wrong) + "\n")
    words = ("evaluate", sheets / "data", "-m", sheets / "a.onnx", "--split", "test", "--json", "--exclude")
    done = deepfer(*words, tmp_path / "list.csv")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["n"], result["top1"]) == (120, pytest.approx(100 / 120))
    used = [row for row in open_dataset(sheets / "data").all_rows if row.path not in wrong]
    assert result["dataset"]["fingerprint"] == fingerprint(used)
    (tmp_path / "other.csv").write_text("picture\nnowhere.png\n")
    other = deepfer(*words, tmp_path / "other.csv")
    assert other.returncode == 1
    assert "not in this data set" in other.stderr


def test_labels_intersect_scores_what_both_know(
    deepfer: Deepfer, sheets: Path, write_sheet_reader: Callable[..., Path], tmp_path: Path
) -> None:
    model = write_sheet_reader(
        tmp_path / "ck.onnx", 0, ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
    )
    done = deepfer("evaluate", sheets / "data", "-m", model, "--split", "test", "--labels", "intersect", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["labels"] == ["angry", "disgust", "fear", "happy", "sad", "surprise"]
    assert result["n"] == 120


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--by", "subjekt"), "the manifest has no column 'subjekt' (did you mean 'subject'?)"),
        (("--tta", "ten"), "tta: input should be 'none' or 'flip'"),
        (("-m", "none.onnx"), "no such model file"),
        (("--clean",), "has no 'train' split"),
    ],
)
def test_bad_input(deepfer: Deepfer, sheets: Path, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = deepfer("evaluate", sheets / "data", "-m", sheets / "a.onnx", "--split", "test", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_model_is_not_measured_on_what_it_has_learned(
    deepfer: Deepfer, painted_csv: Path, painted_dataset: Path, linear_model: Path
) -> None:
    """The same images split anew: refused by evaluate, gate, compare and card; the split that it was trained on is
    not.
    """
    grey = ("--labels", ",".join(EMOTIONS), "--colour", "grey")
    assert (
        deepfer(
            "card", linear_model, *grey, "--out", "m.onnx", "--overwrite", "--trained-on", painted_dataset
        ).returncode
        == 0
    )
    shares = ("--split", "train=0.6,val=0.2,test=0.2", "--reshuffle")
    assert deepfer("convert", painted_csv, "anew", *shares).returncode == 0
    done = deepfer("evaluate", painted_dataset, "-m", "m.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["learned_before"] == {
        "m.onnx": {"val": {"n": 56, "learned": 0, "leaked": 0, "example": ""}}
    }
    for words in (
        ("evaluate", "anew", "-m", "m.onnx"),
        ("gate", "anew", "-m", linear_model, "--champion", "m.onnx"),
        ("compare", linear_model, "m.onnx", "--data", "anew"),
        ("card", "m.onnx", *grey, "--out", "n.onnx", "--overwrite", "--dataset", "anew"),
    ):
        done = deepfer(*words)
        assert done.returncode == 1, words
        assert "has learned" in done.stderr
        assert "--allow-leak" in done.stderr
    assert not Path("runs/gate").exists()
    done = deepfer("evaluate", "anew", "-m", "m.onnx", "--allow-leak", "--name", "allowed")
    assert done.returncode == 0, done.stderr
    assert "--allow-leak: m.onnx has learned" in done.stderr
    record = json.loads(Path("runs/evaluate/allowed/metrics.json").read_text())
    assert record["learned_before"]["m.onnx"]["val"]["leaked"] > 10
    assert "have no copy in the data&#x27;s own train" in Path("runs/evaluate/allowed/report.html").read_text()


def test_ctrl_c_leaves_no_half_run(
    deepfer: Deepfer, sheets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        assert (tmp_path / "runs").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("deepfer_yolo.evaluate.report.write_report", interrupted)
    assert deepfer("evaluate", sheets / "data", "-m", sheets / "a.onnx", "--split", "test").returncode == 130
    assert not (tmp_path / "runs").exists()


FIGURES = ("top1", "top5", "macro_f1", "balanced_accuracy", "nll", "brier", "ece")


@pytest.fixture(scope="module")
def answers(
    evaluated: tuple[Path, dict[str, Any], str], painted_dataset: Path, linear_model: Path
) -> tuple[Path, Path, dict[str, Any]]:
    """predictions.csv of `evaluate` and of `predict` for one model, and what that model reached."""
    run, result, _ = evaluated
    done = shell("predict", painted_dataset / "val", "-m", linear_model, "--format", "csv", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    (run.parent / "predict.csv").write_text(done.stdout)
    return run / "predictions.csv", run.parent / "predict.csv", result


@pytest.mark.parametrize("which", [0, 1])
def test_our_own_answers_have_the_models_figures(
    which: int, deepfer: Deepfer, answers: tuple[Path, Path, dict[str, Any]], painted_dataset: Path, tmp_path: Path
) -> None:
    file, expected = answers[which], answers[2]
    done = deepfer("evaluate", painted_dataset, "--predictions", file, "--name", "theirs", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {name: result[name] for name in FIGURES} == pytest.approx(
        {name: expected[name] for name in FIGURES}, abs=1e-5
    )
    assert result["confusion"] == expected["confusion"]
    assert result["intervals"]["top1"] == expected["intervals"]["top1"]
    assert result["answers"][0]["path"] == str(file)
    assert result["learned_before"] is None
    run = tmp_path / "runs" / "evaluate" / "theirs"
    assert json.loads((run / "metrics.json").read_text()) == result
    html = (run / "report.html").read_text()
    assert f"answers of {file}, sha256 {result['answers'][0]['sha256'][:12]}" in html
    assert "Reliability diagram" in html
    assert "What decided" not in html, "there is no model to ask"


def test_shards_of_answers_are_merged_and_an_overlap_is_refused(
    deepfer: Deepfer, answers: tuple[Path, Path, dict[str, Any]], painted_dataset: Path, tmp_path: Path
) -> None:
    head, *rows = answers[1].read_text().splitlines(keepends=True)
    parts = [tmp_path / "a.csv", tmp_path / "b.csv"]
    parts[0].write_text("".join([head, *rows[:20]]))
    parts[1].write_text("".join([head, *rows[20:]]))
    words = ("evaluate", painted_dataset, "--predictions", parts[0], "--predictions", parts[1])
    done = deepfer(*words, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["top1"] == answers[2]["top1"]
    assert [part["n"] for part in result["answers"]] == [20, 36]
    parts[1].write_text("".join([head, *rows[19:]]))
    refused = deepfer(*words)
    assert refused.returncode == 1
    assert "b.csv, line 2:" in refused.stderr
    assert "has an answer already" in refused.stderr
    half = deepfer(*words[:4])
    assert half.returncode == 1
    assert "36 problems" in half.stderr
    assert "name every shard" in half.stderr


def test_labels_alone_are_measured_as_far_as_they_go(
    deepfer: Deepfer, answers: tuple[Path, Path, dict[str, Any]], painted_dataset: Path, tmp_path: Path
) -> None:
    with answers[1].open() as file:
        lines = [f"{row['path']},{row['label']}\n" for row in csv.DictReader(file)]
    (tmp_path / "labels.csv").write_text("".join(["path,label\n", *lines]))
    words = ("evaluate", painted_dataset, "--predictions", tmp_path / "labels.csv", "--save-plots")
    done = deepfer(*words, "--name", "l")
    assert done.returncode == 0, done.stderr
    assert re.search(r"ECE, 15 bins\W+–", done.stdout)
    assert "labels came without probabilities" in done.stdout
    run = tmp_path / "runs" / "evaluate" / "l"
    result = json.loads((run / "metrics.json").read_text())
    assert result["top1"] == answers[2]["top1"]
    assert result["macro_f1"] == pytest.approx(answers[2]["macro_f1"])
    assert "ece" in result["not_measured"]
    assert "ece" not in result
    assert [path.name for path in (run / "plots").iterdir()] == ["confusion_matrix.png"]
    assert "Not measured, since labels came without probabilities" in (run / "report.html").read_text()


def test_a_model_beside_answers_is_refused(
    deepfer: Deepfer, answers: tuple[Path, Path, dict[str, Any]], painted_dataset: Path, linear_model: Path
) -> None:
    done = deepfer("evaluate", painted_dataset, "--predictions", answers[0], "-m", linear_model)
    assert done.returncode == 1
    assert "--model and --predictions are two answers to one question" in done.stderr


def test_a_stock_model_needs_no_map(
    deepfer: Deepfer, sheets: Path, write_sheet_reader: Callable[..., Path], tmp_path: Path
) -> None:
    words = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
    stock = write_sheet_reader(tmp_path / "stock.onnx", 0, words)
    done = deepfer("evaluate", sheets / "data", "-m", stock, "--split", "test", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["labels"] == list(EMOTIONS)
    assert result["top1"] == pytest.approx(100 / 140)
    assert result["votes"]["n"] == 70
