"""The champion's folder."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deepfer_yolo.errors import ConfigError, DeepferError
from deepfer_yolo.evaluate.gate import promotion
from deepfer_yolo.evaluate.gate.promotion import (
    GateDecision,
    champion_of,
    find_champion,
    lock,
    read_history,
    record,
    times_decided,
    title_of,
)
from deepfer_yolo.runtime.model_file import digest

DECISION = GateDecision("pass", "sha of the challenger", None, "f", "test", 0.1, "runs/gate/x")


def model(folder: Path, name: str, content: str = "") -> Path:
    path = folder / name
    path.write_text(content or name)
    return path


def test_the_title_passes_from_hand_to_hand_and_every_release_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "titles"
    first, second = model(tmp_path, "a.onnx"), model(tmp_path, "b.onnx")
    assert champion_of(folder) is None
    assert record(folder, DECISION, first, promote=True) == folder / "champion" / "model.onnx"
    record(folder, replace(DECISION, verdict="fail"), second, promote=False)
    assert (folder / "champion" / "model.onnx").read_text() == "a.onnx"
    record(folder, replace(DECISION, champion=digest(first)), second, promote=True)
    assert champion_of(folder) == folder / "champion" / "model.onnx"
    assert (folder / "champion" / "model.onnx").read_text() == "b.onnx"
    assert [entry["promoted"] for entry in read_history(folder)] == [True, False, True]
    assert [entry["number"] for entry in read_history(folder)] == [1, 2, 3]
    assert len(list((folder / "releases").iterdir())) == 2
    assert first.exists(), "the original stays where it was"


def test_a_checkpoint_takes_its_card_along(tmp_path: Path) -> None:
    checkpoint = model(tmp_path, "best.pt")
    model(tmp_path, "best.json", "{}")
    record(tmp_path / "t", DECISION, checkpoint, promote=True)
    assert sorted(path.name for path in (tmp_path / "t" / "champion").iterdir()) == [
        "decision",
        "model.json",
        "model.pt",
    ]
    assert champion_of(tmp_path / "t") == tmp_path / "t" / "champion" / "model.pt"


def test_a_model_of_two_files_is_known_by_both_and_moves_as_one(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        model(tmp_path / name, "model.xml", "the same graph")
        model(tmp_path / name, "model.bin", f"weights of {name}")
    a, b = tmp_path / "a" / "model.xml", tmp_path / "b" / "model.xml"
    record(tmp_path / "t", DECISION, a, promote=True)
    held = champion_of(tmp_path / "t")
    assert held == tmp_path / "t" / "champion" / "model.xml"
    assert held.with_suffix(".bin").read_text() == "weights of a"
    assert digest(held) == digest(a) != digest(b)


def test_a_decision_about_a_former_champion_is_refused(tmp_path: Path) -> None:
    a, b, c = (model(tmp_path, f"{name}.onnx") for name in "abc")
    record(tmp_path / "t", DECISION, a, promote=True)
    record(tmp_path / "t", replace(DECISION, champion=digest(a)), b, promote=True)
    with pytest.raises(ConfigError, match="changed while this gate ran"):
        record(tmp_path / "t", replace(DECISION, champion=digest(a)), c, promote=True)
    assert (tmp_path / "t" / "champion" / "model.onnx").read_text() == "b.onnx"
    assert len(read_history(tmp_path / "t")) == 2


def test_two_promotions_at_once_one_wins(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from deepfer_yolo.evaluate.gate.promotion import GateDecision, record\n"
        "decision = GateDecision('pass', 'a', None, 'f', 'test', None, 'run')\n"
        "record(Path(sys.argv[1]), decision, Path(sys.argv[2]), promote=True)"
    )
    words = [[sys.executable, "-c", code, str(tmp_path / "t"), str(model(tmp_path, f"{name}.onnx"))] for name in "ab"]
    running = [subprocess.Popen(word, stderr=subprocess.PIPE, text=True) for word in words]
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert sorted(process.returncode for process in running) == [0, 1]
    assert "changed while this gate ran" in "".join(errors)
    assert len(read_history(tmp_path / "t")) == 1


def test_the_lock_waits_and_then_says_who_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "LOCK_WAIT_S", 0.2)
    with lock(tmp_path), pytest.raises(DeepferError, match="another promotion holds"), lock(tmp_path):
        pass
    held = threading.Event()
    order: list[str] = []

    def hold() -> None:
        with lock(tmp_path):
            held.set()
            time.sleep(0.2)
            order.append("the holder is done")

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    monkeypatch.setattr(promotion, "LOCK_WAIT_S", 10.0)
    with lock(tmp_path):
        order.append("the other one has it")
    holder.join()
    assert order == ["the holder is done", "the other one has it"]


def test_how_often_this_test_set_has_decided(tmp_path: Path) -> None:
    a = model(tmp_path, "a.onnx")
    for split in ("test", "val", "test"):
        record(tmp_path / "t", replace(DECISION, split=split), a, promote=False)
    assert times_decided(tmp_path / "t", "f", "test") == 2
    assert times_decided(tmp_path / "t", "g", "test") == 0


def test_broken_history_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(json.dumps({"a": 1}) + "\n{oops\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_history(tmp_path)


def test_a_folder_in_the_links_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "champion").mkdir()
    with pytest.raises(ConfigError, match="not a link"):
        record(tmp_path, DECISION, model(tmp_path, "a.onnx"), promote=True)


def test_which_champion_is_meant(tmp_path: Path) -> None:
    a, b = model(tmp_path, "a.onnx"), model(tmp_path, "b.onnx")
    folder = tmp_path / "t"
    assert find_champion(None, None) is None
    assert title_of(None) is None
    assert find_champion(None, folder) is None
    assert title_of(folder) is None
    assert find_champion(a, folder) == a
    record(folder, DECISION, a, promote=True)
    held = folder / "champion" / "model.onnx"
    assert find_champion(None, folder) == held
    assert title_of(folder) == digest(a)
    assert find_champion(folder, None) == held
    assert find_champion(folder / "champion", None) == held
    with pytest.raises(ConfigError, match="not the model that holds the title"):
        find_champion(b, folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no champion"):
        find_champion(tmp_path / "empty", None)
