"""`--corrections` at the shell: a judged set under both labels, what a training learns and says, every exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.files import sha256_of
from deepfer_yolo.yolo import TorchClassifier

N = 350
Deepfer = Callable[..., Any]
Correct = Callable[..., Path]


def answers(right: float) -> list[int]:
    """Answers of which this share is right, the mistakes spread over the classes."""
    return [i % 7 if (i // 7) % 50 < round(50 * right) else (i + 1) % 7 for i in range(N)]


@pytest.fixture(scope="module")
def sheets(
    tmp_path_factory: pytest.TempPathFactory,
    write_answer_sheets: Callable[..., Path],
    write_sheet_reader: Callable[..., Path],
) -> Path:
    """A test set and two models on it: the champion 80 % right, the challenger 60 %, whose mistakes are the first's."""
    folder = tmp_path_factory.mktemp("sheets")
    write_answer_sheets(folder / "sheets", [i % 7 for i in range(N)], [answers(0.8), answers(0.6)])
    for name, k in (("champion", 0), ("challenger", 1)):
        write_sheet_reader(folder / f"{name}.onnx", k)
    return folder


@pytest.fixture
def flattered(sheets: Path, correct: Correct, tmp_path: Path) -> Path:
    """Corrections of the 70 images that the challenger alone got wrong, to what it says; and one image left out."""
    rows = open_dataset(sheets / "sheets").rows("test")
    wrong = [row for row in rows if 0.6 * 50 <= int(row.source_id) // 7 < 0.8 * 50]
    assert len(wrong) == 70
    said = {row.path: EMOTIONS[(EMOTIONS.index(row.label) + 1) % 7] for row in wrong}
    file = tmp_path / "corrections.held-out.csv"
    return correct(file, sheets / "sheets", {**said, rows[0].path: "leave-out"}, how=["model", "by:challenger"])


def found(done: Any, code: int) -> dict[str, Any]:
    assert done.returncode == code, done.stderr + done.stdout
    return dict(json.loads(done.stdout))


def test_gate_judges_by_the_original_labels_unless_asked_and_gives_both_scores(
    deepfer: Deepfer, sheets: Path, flattered: Path
) -> None:
    words = ["gate", sheets / "sheets", "-m", sheets / "challenger.onnx", "--champion", sheets / "champion.onnx"]
    given = [*words, "--corrections", flattered, "--held-out"]
    assert deepfer(*words).returncode == 3
    default = found(deepfer(*given, "--json"), 3)
    assert (default["verdict"], default["judged_by"]) == ("fail", "original")
    assert default["challenger"]["top1"] == pytest.approx(0.6)
    assert default["dataset"]["n"] == N
    said = default["corrections"]
    assert (said["changed"], said["left_out"]) == (70, 1)
    assert said["files"][0]["counts"]["with_model"] == 71
    assert said["files"][0]["models"] == ["challenger"]
    other = said["other"]
    assert (other["labels"], other["verdict"]) == ("corrected", "pass")
    assert other["challenger"]["top1"] == pytest.approx((0.8 * N - 1) / (N - 1))
    assert other["champion"]["top1"] == pytest.approx((0.6 * N - 1) / (N - 1))

    asked = found(deepfer(*given, "--judge", "corrected", "--json"), 0)
    assert (asked["verdict"], asked["judged_by"]) == ("pass", "corrected")
    assert asked["corrections"]["other"]["verdict"] == "fail"
    done = deepfer(*given, "--name", "told")
    text = " ".join(done.stdout.split())
    for told in (
        "The test labels were corrected: 70 changed, 1 images left out.",
        "71 with the answer of challenger shown, 0 blind, by 1 reviewer.",
        "Labels that a model's answers helped to correct flatter that model.",
        "The original labels decided (--judge).",
        "By the corrected ones the verdict would be pass: top-1 of the challenger 79.9 %, of the champion 59.9 %",
    ):
        assert told in text, text
    assert "would be pass" in Path("runs/gate/told/summary.md").read_text()


def test_a_converted_set_still_says_that_it_was_corrected(
    deepfer: Deepfer, sheets: Path, flattered: Path, tmp_path: Path
) -> None:
    words = ["--corrections", flattered, "--held-out", "--val", "0"]
    assert deepfer("convert", sheets / "sheets", tmp_path / "new", *words).returncode == 0
    models = ["-m", sheets / "challenger.onnx", "--champion", sheets / "champion.onnx"]
    gated = found(deepfer("gate", tmp_path / "new", *models, "--json"), 3)
    assert (gated["judged_by"], gated["corrections"]["changed"], gated["corrections"]["left_out"]) == (
        "original",
        70,
        1,
    )
    assert gated["challenger"]["top1"] == pytest.approx((0.6 * N - 1) / (N - 1))
    assert gated["corrections"]["other"]["challenger"]["top1"] == pytest.approx((0.8 * N - 1) / (N - 1))


def test_protected_images_that_were_left_out_protect_nothing_under_the_corrected_labels(
    deepfer: Deepfer, sheets: Path, flattered: Path, tmp_path: Path
) -> None:
    first = open_dataset(sheets / "sheets").rows("test")[0].path
    (tmp_path / "protected.txt").write_text(first)
    models = ["-m", sheets / "champion.onnx", "--champion", sheets / "champion.onnx"]
    words = ["--corrections", flattered, "--held-out", "--must-not-break", tmp_path / "protected.txt", "--json"]
    assert found(deepfer("gate", sheets / "sheets", *models, *words), 0)["must_not_break"]["n"] == 1
    assert found(deepfer("gate", sheets / "sheets", *models, *words, "--judge", "corrected"), 0)["must_not_break"] == {
        "n": 0,
        "wrong": [],
        "broken": [],
    }


def test_evaluate_gives_both_scores(deepfer: Deepfer, sheets: Path, flattered: Path) -> None:
    words = [
        "evaluate",
        sheets / "sheets",
        "--split",
        "test",
        "--corrections",
        flattered,
        "--held-out",
        "--pictures",
        3,
    ]
    done = deepfer(*words, "-m", sheets / "challenger.onnx", "--name", "e")
    assert done.returncode == 0, done.stderr
    head = " ".join(" ".join(done.stdout.splitlines()[1:4]).split())
    assert "corrected" in head
    assert "original" in head
    metrics = json.loads(Path("runs/evaluate/e/metrics.json").read_text())
    assert metrics["top1"] == pytest.approx((0.8 * N - 1) / (N - 1))
    original = metrics["corrections"]["original"]
    assert (original["n"], original["top1"]) == (N, pytest.approx(0.6))
    assert original["fingerprint"] == open_dataset(sheets / "sheets").fingerprint != metrics["dataset"]["fingerprint"]
    assert "The test labels were corrected" in Path("runs/evaluate/e/report.html").read_text()

    plain = found(
        deepfer("evaluate", sheets / "sheets", "--split", "test", "-m", sheets / "challenger.onnx", "--json"), 0
    )
    assert "corrections" not in plain


def test_answers_of_files_are_judged_under_both_labels(deepfer: Deepfer, sheets: Path, flattered: Path) -> None:
    plain = ["evaluate", sheets / "sheets", "--split", "test", "--pictures", 0]
    assert deepfer(*plain, "-m", sheets / "challenger.onnx", "--name", "p").returncode == 0
    words = [
        "--corrections",
        flattered,
        "--held-out",
        "--predictions",
        Path("runs/evaluate/p/predictions.csv"),
        "--json",
    ]
    metrics = found(deepfer(*plain, *words), 0)
    assert metrics["top1"] == pytest.approx((0.8 * N - 1) / (N - 1))
    assert metrics["corrections"]["original"]["top1"] == pytest.approx(0.6)


def test_predictions_of_corrected_labels_can_be_measured_again(
    deepfer: Deepfer, sheets: Path, flattered: Path, tmp_path: Path
) -> None:
    plain = ["--split", "test", "--pictures", 0, "--json"]
    corrected = [*plain, "--corrections", flattered, "--held-out"]
    model = ["-m", sheets / "challenger.onnx"]
    first = found(deepfer("evaluate", sheets / "sheets", *corrected, *model, "--name", "c"), 0)
    done = deepfer("convert", sheets / "sheets", tmp_path / "new", "--corrections", flattered, "--held-out")
    assert done.returncode == 0, done.stderr
    other = found(deepfer("evaluate", tmp_path / "new", *plain, *model, "--name", "n"), 0)
    answers = ["--predictions", Path("runs/evaluate/c/predictions.csv")]
    again = found(deepfer("evaluate", sheets / "sheets", *corrected, *answers), 0)
    assert again["top1"] == first["top1"] == pytest.approx((0.8 * N - 1) / (N - 1))
    assert again["corrections"]["original"]["top1"] == pytest.approx(0.6)
    assert found(deepfer("evaluate", sheets / "sheets", *plain, *answers), 0)["top1"] == pytest.approx(0.6)
    answers = ["--predictions", Path("runs/evaluate/n/predictions.csv")]
    again = found(deepfer("evaluate", tmp_path / "new", *plain, *answers), 0)
    assert again["top1"] == other["top1"] != other["corrections"]["original"]["top1"]
    assert again["corrections"]["original"]["top1"] == other["corrections"]["original"]["top1"]


def test_compare_gives_both_tables(deepfer: Deepfer, sheets: Path, flattered: Path) -> None:
    models = [sheets / "champion.onnx", sheets / "challenger.onnx"]
    words = ["--data", sheets / "sheets", "--split", "test", "--corrections", flattered, "--held-out"]
    metrics = found(deepfer("compare", *models, *words, "--json"), 0)
    assert [round(one["top1"], 2) for one in metrics["models"]] == [0.6, 0.8]
    assert [round(one["top1"], 2) for one in metrics["corrections"]["original"]] == [0.8, 0.6]
    assert metrics["corrections"]["original"][1]["against_first"]["d"] == pytest.approx(-0.2)
    done = deepfer("compare", *models, *words)
    assert "test, corrected, n = 349" in done.stdout
    assert "test, original, n = 350" in done.stdout


@pytest.mark.parametrize("command", ["gate", "evaluate", "compare", "convert", "train"])
def test_held_out_corrections_are_never_applied_by_accident(
    deepfer: Deepfer, sheets: Path, flattered: Path, tmp_path: Path, command: str
) -> None:
    data, model = sheets / "sheets", sheets / "champion.onnx"
    words = {
        "gate": [data, "-m", model],
        "evaluate": [data, "-m", model, "--split", "test"],
        "compare": [model, "--data", data, "--split", "test"],
        "convert": [data, tmp_path / "new"],
        "train": [data],
    }[command]
    done = deepfer(command, *words, "--corrections", flattered)
    assert done.returncode == 1
    assert "held-out images" in done.stderr or "val and test" in done.stderr
    assert not Path("runs").exists()
    assert not (tmp_path / "new").exists()


def test_a_training_learns_the_corrected_labels_and_says_so(
    deepfer: Deepfer, painted_dataset: Path, correct: Correct, tmp_path: Path
) -> None:
    recipe = ["--model", tmp_path / "tiny-cls.yaml", "--imgsz", 32, "--batch", 35, "--threads", 1, "--epochs", 1]
    (tmp_path / "tiny-cls.yaml").write_text(
        "nc: 7\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, Conv, [32, 3, 2]]\n"
        "head:\n  - [-1, 1, Classify, [nc]]\n"
    )
    rows = open_dataset(painted_dataset).rows("train")
    said = {row.path: "sad" for row in rows if row.label == "happy"}
    gone, kept, *_ = said
    file = correct(tmp_path / "corrections.csv", painted_dataset, said | {gone: "leave-out", kept: "happy"})
    dry = deepfer("train", painted_dataset, *recipe, "--corrections", file, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "139 train and 56 val images: angry 20, disgust 20, fear 20, happy 1, neutral 20, sad 38" in dry.stdout
    assert "corrected: corrections.csv" in dry.stdout
    done = deepfer("train", painted_dataset, *recipe, "--corrections", file, "--name", "r")
    assert done.returncode == 0, done.stderr
    assert "18 labels changed, 1 kept, 1 images left out" in done.stderr
    run = Path("runs/train/r")
    trained_on = json.loads((run / "weights/best.json").read_text())["trained_on"]
    (recorded,) = json.loads((run / "metrics.json").read_text())["corrections"]
    assert trained_on["corrections"] == [recorded]
    assert recorded["counts"]["changed"] == 18
    assert recorded["file"] == "corrections.csv"
    card = TorchClassifier(run / "weights/best.pt").card
    assert card.trained_on is not None
    assert card.trained_on.corrections[0].sha256 == sha256_of(file)


def test_a_bad_file_is_one_clear_error_of_every_command(
    deepfer: Deepfer, sheets: Path, painted_dataset: Path, correct: Correct, tmp_path: Path
) -> None:
    other = correct(
        tmp_path / "other.csv", painted_dataset, {open_dataset(painted_dataset).rows("train")[0].path: "leave-out"}
    )
    for command in ("train", "convert"):
        dest = [tmp_path / "new"] if command == "convert" else []
        done = deepfer(command, sheets / "sheets", *dest, "--corrections", other)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    assert "names 1 of 1 images that are not in" in done.stderr
    missing = deepfer("gate", sheets / "sheets", "-m", sheets / "champion.onnx", "--corrections", tmp_path / "no.csv")
    assert missing.returncode == 1
    assert "no such file of corrections" in missing.stderr
