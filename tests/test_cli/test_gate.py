"""`deepfer gate` at the shell, on images that say what each model answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from deepfer_yolo.emotions import EMOTIONS

N = 350
Deepfer = Callable[..., Any]


def answers(right: float) -> list[int]:
    """Answers of which this share is right, the mistakes spread over the classes."""
    return [i % 7 if (i // 7) % 50 < round(50 * right) else (i + 1) % 7 for i in range(N)]


@pytest.fixture(scope="module")
def ring(
    tmp_path_factory: pytest.TempPathFactory,
    write_answer_sheets: Callable[..., Path],
    write_sheet_reader: Callable[..., Path],
) -> Path:
    """A data set and four models on it: 60 % right, the same again, 80 % right, 40 % right."""
    folder = tmp_path_factory.mktemp("ring")
    write_answer_sheets(folder / "sheets", [i % 7 for i in range(N)], [answers(0.6), answers(0.8), answers(0.4)])
    for name, k in (("champion", 0), ("twin", 0), ("better", 1), ("worse", 2)):
        write_sheet_reader(folder / f"{name}.onnx", k)
    return folder


def run(deepfer: Deepfer, ring: Path, challenger: str, *words: object) -> tuple[int, dict[str, Any]]:
    done = deepfer(
        "gate",
        ring / "sheets",
        "-m",
        ring / f"{challenger}.onnx",
        "--champion",
        ring / "champion.onnx",
        "--name",
        "g",
        "--json",
        *words,
    )
    assert done.returncode in {0, 3, 5}, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("challenger", "code", "verdict", "d"),
    [("better", 0, "pass", 0.2), ("worse", 3, "fail", -0.2), ("twin", 0, "pass", 0.0)],
)
def test_verdicts(
    deepfer: Deepfer,
    ring: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    challenger: str,
    code: int,
    verdict: str,
    d: float,
) -> None:
    step = tmp_path / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    found, result = run(deepfer, ring, challenger)
    files = tmp_path / "runs" / "gate" / "g"
    assert (found, result["verdict"]) == (code, verdict)
    assert result["pair"]["d"] == pytest.approx(d)
    assert json.loads((files / "gate.json").read_text()) == result
    suite = ET.parse(files / "junit.xml").getroot()
    assert suite.attrib["tests"] == "1"
    assert suite.attrib["failures"] == ("1" if code == 3 else "0")
    assert [case.attrib["name"] for case in suite] == ["non-inferiority"]
    text = (files / "summary.md").read_text()
    assert verdict.upper() in text
    assert step.read_text() == text
    assert "cannot be told from none" in text


def test_a_twin_on_a_tiny_test_set_is_inconclusive(
    deepfer: Deepfer, ring: Path, tmp_path: Path, write_answer_sheets: Callable[..., Path]
) -> None:
    write_answer_sheets(tmp_path / "tiny", [i % 7 for i in range(28)], [answers(0.6)[:28]])
    done = deepfer(
        "gate", tmp_path / "tiny", "-m", ring / "twin.onnx", "--champion", ring / "champion.onnx", "--name", "g"
    )
    assert done.returncode == 5, done.stderr
    assert "INCONCLUSIVE" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    suite = ET.parse(tmp_path / "runs" / "gate" / "g" / "junit.xml").getroot()
    assert suite.attrib["errors"] == "1"
    assert suite[0][0].attrib["type"] == "inconclusive"


def test_equal_models_are_not_superior(deepfer: Deepfer, ring: Path, tmp_path: Path) -> None:
    assert run(deepfer, ring, "twin", "--superiority")[0] == 5


def test_promotion_from_the_first_champion_on(deepfer: Deepfer, ring: Path, tmp_path: Path) -> None:
    titles = tmp_path / "titles"
    words = ("gate", ring / "sheets", "--promote", titles, "-m")
    (tmp_path / "small.yaml").write_text("max_size_mb: 0.001\n")
    assert deepfer(*words, ring / "champion.onnx", "--config", "small.yaml").returncode == 3, (
        "a budget holds for the first champion too"
    )
    assert not (titles / "champion").exists()
    (titles / "history.jsonl").unlink()
    first = deepfer(*words, ring / "champion.onnx")
    assert first.returncode == 0, first.stderr
    assert "There is no champion yet: the shipped deepfer-n stood in for one." in first.stdout
    assert deepfer(*words, ring / "worse.onnx").returncode == 3
    held = titles / "champion" / "model.onnx"
    assert held.read_bytes() == (ring / "champion.onnx").read_bytes()
    better = deepfer(*words, ring / "better.onnx", "--json")
    assert better.returncode == 0
    assert held.read_bytes() == (ring / "better.onnx").read_bytes()
    assert json.loads(better.stdout)["decided_before"] == 2
    history = [json.loads(line) for line in (titles / "history.jsonl").read_text().splitlines()]
    assert [(entry["verdict"], entry["promoted"]) for entry in history] == [
        ("pass", True),
        ("fail", False),
        ("pass", True),
    ]
    assert history[0]["champion"] is None, "the shipped model held no title"


def test_a_first_champion_meets_the_shipped_model(deepfer: Deepfer, ring: Path, tmp_path: Path) -> None:
    alone = json.loads(deepfer("gate", ring / "sheets", "-m", ring / "better.onnx", "--json").stdout)
    assert alone["stand_in"] == {"model": "deepfer-n", "refused": None}
    assert alone["champion"]["name"] == "deepfer-n"
    assert [rule["rule"] for rule in alone["rules"]] == ["non-inferiority"]
    paths = [f"test/{EMOTIONS[i % 7]}/{i:05d}.png" for i in range(200, 207)]
    (tmp_path / "keep.txt").write_text("\n".join(paths) + "\n")
    protected = deepfer("gate", ring / "sheets", "-m", ring / "worse.onnx", "--must-not-break", "keep.txt", "--json")
    assert json.loads(protected.stdout)["must_not_break"]["broken"] == paths, "the shipped model excuses none"

    (tmp_path / "floor.yaml").write_text("floors: {top1: 0.5}\n")
    words = ("gate", ring / "sheets", "--promote", "titles", "--config", "floor.yaml", "--json", "-m")
    assert deepfer(*words, ring / "worse.onnx").returncode == 3
    floors = deepfer(*words, ring / "better.onnx")
    assert floors.returncode == 0, floors.stderr
    assert json.loads(floors.stdout).keys().isdisjoint({"champion", "stand_in", "pair"})


def test_a_first_champion_that_is_compared_with_a_file(deepfer: Deepfer, ring: Path, tmp_path: Path) -> None:
    words = ("gate", ring / "sheets", "-m", ring / "better.onnx", "--champion", ring / "champion.onnx")
    done = deepfer(*words, "--promote", "titles")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "titles/champion/model.onnx").read_bytes() == (ring / "better.onnx").read_bytes()


@pytest.mark.parametrize(
    ("right", "n", "code"),
    [(0.8, 120, 0), (0.5, 120, 5), (0.2, 120, 3), (0.1, 6, 5)],
    ids=["better", "luck", "worse", "few"],
)
def test_a_first_champion_of_labels_that_no_shipped_model_has(
    deepfer: Deepfer,
    tmp_path: Path,
    write_answer_sheets: Callable[..., Path],
    write_sheet_reader: Callable[..., Path],
    right: float,
    n: int,
    code: int,
) -> None:
    truth = [i % 2 for i in range(n)]
    said = [k if (i // 2) % 20 < round(20 * right) else 1 - k for i, k in enumerate(truth)]
    write_answer_sheets(tmp_path / "two", truth, [said], labels=("angry", "disgust"))
    model = write_sheet_reader(tmp_path / "two.onnx", 0, ("angry", "disgust"))
    done = deepfer("gate", "two", "-m", model, "--promote", "t")
    assert done.returncode == code, done.stdout + done.stderr
    assert "the shipped deepfer-n cannot stand in for one" in done.stdout
    assert "better than the largest class" in done.stdout
    assert (tmp_path / "t/champion").exists() == (code == 0)


def test_a_shipped_model_that_has_learned_the_images_cannot_stand_in(
    deepfer: Deepfer, painted_csv: Path, painted_dataset: Path, linear_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = ("--labels", ",".join(EMOTIONS), "--colour", "grey")
    assert (
        deepfer(
            "card", linear_model, *grey, "--out", "m.onnx", "--overwrite", "--trained-on", painted_dataset
        ).returncode
        == 0
    )
    shares = ("--split", "train=0.6,val=0.2,test=0.2", "--reshuffle")
    assert deepfer("convert", painted_csv, "anew", *shares).returncode == 0
    monkeypatch.setattr("deepfer_yolo.evaluate.gate.gate.DEFAULT", "m.onnx")
    found = json.loads(deepfer("gate", "anew", "-m", linear_model, "--json").stdout)
    assert "m.onnx, has learned" in found["stand_in"]["refused"]
    assert [rule["rule"] for rule in found["rules"]] == ["better than the largest class"]
    allowed = json.loads(deepfer("gate", "anew", "-m", linear_model, "--allow-leak", "--json").stdout)
    assert allowed["stand_in"]["refused"] is None


def test_rules_of_a_config_file(deepfer: Deepfer, ring: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        "floors: {top1: 0.9, recall: {happy: 0.5}}\nclass_drop: true\nmax_size_ratio: 1.1\n"
    )
    code, result = run(deepfer, ring, "better", "--config", "rules.yaml")
    assert code == 3
    verdicts = {rule["rule"]: rule["verdict"] for rule in result["rules"]}
    assert verdicts == {
        "floor top1": "fail",
        "floor recall happy": "pass",
        "non-inferiority": "pass",
        "class drop": "pass",
        "size ratio": "pass",
    }


def test_protected_images(deepfer: Deepfer, ring: Path, tmp_path: Path) -> None:
    paths = [f"test/{EMOTIONS[i % 7]}/{i:05d}.png" for i in (0, 1, 200, 340)]
    (tmp_path / "keep.txt").write_text("# faces on the front page\n\n" + "\n".join(paths) + "\n")
    code, result = run(deepfer, ring, "worse", "--margin", "0.4", "--must-not-break", tmp_path / "keep.txt")
    assert code == 3
    assert result["must_not_break"] == {"n": 4, "wrong": paths[2:], "broken": [paths[2]]}
    assert result["rules"][0]["verdict"] == "pass"


def test_models_with_another_label_order_are_aligned_by_name(
    deepfer: Deepfer, ring: Path, tmp_path: Path, write_sheet_reader: Callable[..., Path]
) -> None:
    twisted = write_sheet_reader(tmp_path / "twisted.onnx", 0, EMOTIONS[::-1])
    done = deepfer("gate", ring / "sheets", "-m", twisted, "--champion", ring / "champion.onnx", "--json")
    assert done.returncode == 0
    pair = json.loads(done.stdout)["pair"]
    assert (pair["wins"], pair["losses"]) == (0, 0)


def test_labels_in_other_words_change_nothing(
    deepfer: Deepfer, ring: Path, tmp_path: Path, write_sheet_reader: Callable[..., Path]
) -> None:
    words = ("Surprised", "Sadness", "NEUTRAL", "Joy", "3_fear", "Disgusted", "Anger")
    stock = write_sheet_reader(tmp_path / "stock.onnx", 0, words)
    (tmp_path / "floor.yaml").write_text("floors: {recall: {Anger: 0.999}}\n")
    done = deepfer("gate", ring / "sheets", "-m", stock, "--champion", ring / "champion.onnx", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["pair"]["wins"], result["pair"]["losses"], result["labels"]) == (0, 0, list(EMOTIONS[::-1]))
    assert result["challenger"]["top1"] == result["champion"]["top1"] > 0.3
    words = ("gate", ring / "sheets", "-m", stock, "--champion", ring / "champion.onnx")
    failed = deepfer(*words, "--config", tmp_path / "floor.yaml", "--json")
    assert failed.returncode == 3, failed.stderr
    assert {"rule": "floor recall angry", "verdict": "fail"}.items() <= json.loads(failed.stdout)["rules"][0].items()


def test_models_with_other_labels(
    deepfer: Deepfer, ring: Path, tmp_path: Path, write_sheet_reader: Callable[..., Path]
) -> None:
    other = write_sheet_reader(
        tmp_path / "other.onnx", 1, ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
    )
    words = ("gate", ring / "sheets", "-m", other, "--champion", ring / "champion.onnx", "--json")
    refused = deepfer(*words)
    assert refused.returncode == 1
    assert "the model alone knows contempt" in refused.stderr
    shared = deepfer(*words, "--labels", "intersect")
    assert shared.returncode == 0
    result = json.loads(shared.stdout)
    assert result["labels"] == ["angry", "disgust", "fear", "happy", "sad", "surprise"]
    assert result["pair"]["n"] == N * 6 // 7
    assert result["pair"]["d"] == pytest.approx(0.2, abs=0.02)


def test_a_model_that_answers_nan(
    deepfer: Deepfer, ring: Path, tmp_path: Path, write_linear_model: Callable[..., Path]
) -> None:
    broken = write_linear_model(tmp_path / "nan.onnx", np.full((7, 192), np.nan, np.float32), np.zeros(7, np.float32))
    done = deepfer(
        "gate", ring / "sheets", "-m", broken, "--champion", ring / "champion.onnx", "--promote", tmp_path / "t"
    )
    assert done.returncode == 1
    assert f"{broken} answers with NaN or infinite probabilities: its weights are broken" in done.stderr
    assert not (tmp_path / "t").exists()


def test_files_that_the_manifest_names_and_that_are_not_there(
    deepfer: Deepfer, ring: Path, tmp_path: Path, write_answer_sheets: Callable[..., Path]
) -> None:
    data = write_answer_sheets(tmp_path / "d", [0, 1, 2, 3, 4, 5], [[0] * 6])
    for path in sorted(data.glob("test/*/*.png"))[:5]:
        path.unlink()
    done = deepfer("gate", data, "-m", ring / "twin.onnx", "--champion", ring / "champion.onnx")
    assert done.returncode == 1
    assert "names files that are not there: test/angry/00000.png" in done.stderr
    assert "and 2 more" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--champion", "none.onnx"), "no such model file: none.onnx"),
        (("--split", "val"), "has no 'val' split"),
        (("--config", "sloppy"), "no preset named 'sloppy'"),
        (("--margin", "2"), "margin: input should be less than or equal to 0.5"),
    ],
)
def test_bad_input(deepfer: Deepfer, ring: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = deepfer("gate", ring / "sheets", "-m", ring / "twin.onnx", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()
