"""Checkpoints carry what they have learned, and a run refuses a start that has learned what is to judge it."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from deepfer_yolo.config import CardConfig, ConvertConfig, ExportConfig
from deepfer_yolo.data.convert import convert
from deepfer_yolo.data.dataset import open_dataset
from deepfer_yolo.data.leaks import Hashes, LeakGuard
from deepfer_yolo.emotions import EMOTIONS
from deepfer_yolo.errors import LeakError, ModelError, TrainingError
from deepfer_yolo.export.cards import card_checkpoint
from deepfer_yolo.export.export import export_model
from deepfer_yolo.files import sha256_of
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.runtime.classifier import Classifier
from deepfer_yolo.train.plan import plan
from deepfer_yolo.train.results import TrainResult
from deepfer_yolo.train.run import Stopped, resume, train
from deepfer_yolo.train.start import starting_model
from deepfer_yolo.train.training_run import RunState, TrainingRun, check_start, drop_states, newest_state
from deepfer_yolo.yolo import TRAINED_HASHES, TorchClassifier, load_checkpoint, trained_hashes


@pytest.fixture(scope="module")
def learned(painted_dataset: Path) -> Hashes:
    return np.unique(LeakGuard(open_dataset(painted_dataset)).hashes("train"))


@pytest.fixture(scope="module")
def resplit(painted_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("resplit") / "resplit"
    convert(painted_csv, target, ConvertConfig(split="train=0.6,val=0.2,test=0.2", reshuffle=True, seed=4))
    return target


def short(config: TrainConfig, **change: object) -> TrainConfig:
    return config.model_copy(update={"epochs": 1, **change})


def quiet(_: str) -> None:
    """Show nothing."""


def test_every_checkpoint_carries_the_hashes_and_stays_plain_data(finished_run: Path, learned: Hashes) -> None:
    assert len(learned) == 140
    for name in ("best.pt", "last.pt"):
        found = trained_hashes(load_checkpoint(finished_run / "weights" / name))
        assert found is not None
        assert np.array_equal(found, learned)
    assert "trained_hashes" not in (finished_run / "weights" / "best.json").read_text()


def test_the_export_and_the_sidecar_formats_carry_them_too(finished_run: Path, learned: Hashes, tmp_path: Path) -> None:
    best = finished_run / "weights" / "best.pt"
    done = export_model(best, ExportConfig(pictures=50), out=tmp_path / "a.onnx")
    card = Classifier(done.path).card
    assert card.learned is not None
    assert np.array_equal(card.learned, learned)
    assert "trained_hashes" not in card.to_json()
    done = export_model(best, ExportConfig(pictures=50, format="torchscript"), out=tmp_path / "b")
    found = TorchClassifier(done.path).card.learned
    assert found is not None
    assert np.array_equal(found, learned)


def test_a_card_says_what_a_stock_checkpoint_has_learned(
    checkpoint: Path, painted_dataset: Path, learned: Hashes, tmp_path: Path
) -> None:
    path = Path(shutil.copy(checkpoint, tmp_path / "stock.pt"))
    card_checkpoint(path, CardConfig(colour="grey"))
    assert TorchClassifier(path).card.learned is None
    card_checkpoint(path, CardConfig(colour="grey"), overwrite=True, taught=open_dataset(painted_dataset))
    _, card = card_checkpoint(path, CardConfig(colour="rgb"), overwrite=True)  # a new card keeps what the old one knew
    found = TorchClassifier(path).card.learned
    assert found is not None
    assert np.array_equal(found, learned)
    assert card.input.colour == "rgb"


@pytest.mark.parametrize("role", ["model", "pretrained", "teacher"])
def test_a_start_or_teacher_that_has_learned_val_is_refused(
    role: str, tiny_config: TrainConfig, finished_run: Path, resplit: Path, tmp_path: Path
) -> None:
    best = str(finished_run / "weights" / "best.pt")
    change = {"data": str(resplit), role: (best,) if role == "teacher" else best}
    with pytest.raises(LeakError, match=r"best\.pt has learned \d+ of the \d+ val images"):
        train(short(tiny_config, **change), root=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", ["soup", "teacher"])
def test_each_of_several_files_of_one_name_is_asked_what_it_learned(
    role: str, tiny_config: TrainConfig, finished_run: Path, resplit: Path, tmp_path: Path
) -> None:
    """Every run names its files best.pt; the one that has learned val comes first, the one that has not last."""
    best, harmless = finished_run / "weights" / "best.pt", tmp_path / "best.pt"
    content = torch.load(best, weights_only=False)
    setattr(content["model"], TRAINED_HASHES, torch.tensor([1]))
    torch.save(content, harmless)
    config = short(tiny_config, data=str(resplit), model=str(harmless), **{role: (str(best), str(harmless))})
    for run in (lambda: train(config, root=tmp_path / "runs"), lambda: plan(config)):
        with pytest.raises(LeakError, match=rf"{re.escape(str(best))}.* has learned \d+ of the \d+ val images"):
            run()


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"model": "deepfer-n"}, ["the start deepfer-n.pt"]),
        ({"model": "yolo26n-cls", "pretrained": "deepfer-n"}, ["the start deepfer-n"]),
        ({"model": "yolo26n-cls"}, []),
    ],
)
def test_a_start_named_in_any_way_is_asked_what_it_has_learned(
    change: dict[str, str], start: list[str], tiny_config: TrainConfig, painted_dataset: Path
) -> None:
    config, dataset = short(tiny_config, **change), open_dataset(painted_dataset)
    model = starting_model(config, EMOTIONS, quiet)
    record, _ = check_start(config, dataset, None, model, (), ())
    assert list(record) == start


def test_with_allow_leak_it_goes_on_and_the_record_says_so(
    tiny_config: TrainConfig, finished_run: Path, resplit: Path, learned: Hashes, tmp_path: Path
) -> None:
    lines: list[str] = []
    config = short(tiny_config, data=str(resplit), model=str(finished_run / "weights" / "best.pt"), allow_leak=True)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 2

    stopped = train(config, name="r", show=lines.append, should_stop=stop, root=tmp_path)
    assert isinstance(stopped, Stopped)
    assert any(line.startswith("--allow-leak: the start best.pt has learned") for line in lines)
    result = resume(stopped.folder, show=quiet)
    assert isinstance(result, TrainResult)
    record = json.loads((result.folder / "metrics.json").read_text())["learned_before"]["the start best.pt"]
    assert record["val"]["leaked"] > 10
    assert record["test"]["leaked"] > 10
    # What it carries now is what both trainings learned, and the resumed run has not forgotten the first.
    own = LeakGuard(open_dataset(resplit)).hashes("train")
    found = trained_hashes(load_checkpoint(result.checkpoint))
    assert found is not None
    assert np.array_equal(found, np.union1d(own, learned))


def test_going_on_with_the_split_it_was_trained_on_is_fine(
    tiny_config: TrainConfig, finished_run: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    result = train(
        short(tiny_config, model=str(finished_run / "weights" / "best.pt")), show=lines.append, root=tmp_path
    )
    assert isinstance(result, TrainResult)
    assert result.learned_before["the start best.pt"]["val"]["learned"] == 0
    assert not [line for line in lines if "leak" in line]


def test_hashes_that_are_none_are_an_error(checkpoint: Path, tmp_path: Path) -> None:
    held = torch.load(checkpoint, weights_only=False)
    held["model"].trained_hashes = torch.zeros(3)
    torch.save(held, tmp_path / "bad.pt")
    shutil.copy(checkpoint.with_suffix(".json"), tmp_path / "bad.json")
    with pytest.raises(ModelError, match="cannot be read"):
        TorchClassifier(tmp_path / "bad.pt")


def state(epoch: int, batch: int = 0) -> RunState:
    nothing = dict.fromkeys((field.name for field in fields(RunState)), None)
    weights = {"weight": torch.full((3,), float(epoch))}
    return RunState(**nothing | {"epoch": epoch, "batch": batch, "model": weights})  # type: ignore[arg-type]


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    for epoch, batch in ((1, 0), (2, 0), (9, 0), (9, 12), (10, 0)):
        state(epoch, batch).save(tmp_path)
    assert sorted(path.name[:19] for path in tmp_path.iterdir()) == ["state-00009-0000012", "state-00010-0000000"]
    found = RunState.read(newest_state(tmp_path))
    assert found is not None
    assert (found.epoch, found.batch, found.model["weight"][0]) == (10, 0, 10.0)


def test_a_truncated_newest_gives_the_one_before(tmp_path: Path) -> None:
    state(1).save(tmp_path)
    newest = state(2).save(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-100])
    found = RunState.read(newest_state(tmp_path))
    assert found is not None
    assert found.epoch == 1


def test_no_state_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "state-final.pt").write_text("someone's own file")
    assert newest_state(tmp_path) is None
    drop_states(tmp_path)
    assert (tmp_path / "state-final.pt").exists()


def test_nothing_is_being_imported_once_a_run_is_open(
    tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer imports the same modules next, and two threads inside torch's circle of imports fail (torch 2.11)."""
    over: list[str] = []

    def slow(name: str) -> None:
        time.sleep(2)
        over.append(name)

    monkeypatch.setattr("deepfer_yolo.train.training_run.importlib.import_module", slow)
    TrainingRun.open(tiny_config)
    assert over == ["torch._dynamo"]


def test_a_resume_notices_another_file_of_corrections(
    tiny_config: TrainConfig, correct: Callable[..., Path], tmp_path: Path
) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 6

    data = Path(str(tiny_config.data))
    paths = [row.path for row in open_dataset(data).rows("train")]
    file = correct(tmp_path / "corrections.csv", data, {paths[0]: "leave-out"})
    before = file.read_bytes()
    config = tiny_config.model_copy(update={"corrections": str(file)})
    stopped = train(config, name="r", show=quiet, should_stop=stop, root=tmp_path)
    correct(file, data, {paths[1]: "unsure"})  # changes no label, and is another file all the same
    with pytest.raises(TrainingError, match=r"corrections.csv has changed since the run began"):
        resume(stopped.folder, show=quiet)
    file.write_bytes(before)
    result = resume(stopped.folder, show=quiet)
    assert isinstance(result, TrainResult)
    assert result.corrections[0]["sha256"] == sha256_of(file)
    assert TrainResult.read(result.folder).corrections[0]["counts"] == result.corrections[0]["counts"]
